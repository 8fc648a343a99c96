"""The works with kronfluence."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as functional
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from kronfluence.version import __version__
from problems import Problem
from settings import BATCH, EKFAC_DAMPING, EKFAC_QUERIES, SEED
from torch import nn
from torch.utils.data import TensorDataset
from torch_networks import Call, network, query_tensors, train_tensors

VERSION = f"{__version__}, PyTorch {torch.__version__}"


class Classification(Task):
    """Cross-entropy, with labels drawn from the model where the Fisher matrix asks for them."""

    def compute_train_loss(self, batch: tuple, model: nn.Module, sample: bool = False):
        inputs, labels = batch
        logits = model(inputs)
        if sample:
            with torch.no_grad():
                labels = torch.multinomial(logits.softmax(dim=-1), num_samples=1).flatten()
        return functional.cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch: tuple, model: nn.Module):
        return self.compute_train_loss(batch, model)


def _analyzer(problem: Problem) -> Analyzer:
    torch.manual_seed(SEED)
    task = Classification()
    return Analyzer(
        f"peers-{problem.name}",
        prepare_model(network(problem), task),
        task,
        cpu=True,
        log_level=logging.ERROR,
        disable_tqdm=True,
        output_dir=str(problem.folder / "kronfluence"),
    )


def _fit(analyzer: Analyzer, train: TensorDataset, strategy: str, anew: bool = False) -> None:
    """Fit, unless an earlier process has; the factors lie in files, and `ekfac_fit` writes them."""
    analyzer.fit_all_factors(
        strategy,
        train,
        per_device_batch_size=BATCH,
        factor_args=FactorArguments(strategy=strategy),
        overwrite_output_dir=anew,
    )


def _self_scores(
    analyzer: Analyzer, train: TensorDataset, strategy: str, score_args: ScoreArguments
):
    analyzer.compute_self_scores(
        "self",
        strategy,
        train,
        per_device_train_batch_size=BATCH,
        score_args=score_args,
        overwrite_output_dir=True,
    )
    return analyzer.load_self_scores("self")["all_modules"].numpy()


def norms(problem: Problem) -> Call:
    """Take the self-influence with the strategy ``"identity"``."""
    analyzer, train = _analyzer(problem), TensorDataset(*train_tensors(problem))
    _fit(analyzer, train, "identity")
    return lambda: {"scores": _self_scores(analyzer, train, "identity", ScoreArguments())}


def _pairs(analyzer: Analyzer, problem: Problem):
    analyzer.compute_pairwise_scores(
        "pairs",
        "ekfac",
        TensorDataset(*query_tensors(problem)),
        TensorDataset(*train_tensors(problem)),
        per_device_query_batch_size=EKFAC_QUERIES,
        per_device_train_batch_size=BATCH,
        score_args=ScoreArguments(damping_factor=EKFAC_DAMPING),
        overwrite_output_dir=True,
    )
    return analyzer.load_pairwise_scores("pairs")["all_modules"].numpy()


def ekfac_fit(problem: Problem) -> Call:
    """Fit anew each time; the scores are taken afterwards, from the last fit."""
    problem = problem.first(queries=EKFAC_QUERIES)
    analyzer, train = _analyzer(problem), TensorDataset(*train_tensors(problem))

    def call() -> dict:
        _fit(analyzer, train, "ekfac", anew=True)
        return {"scores": lambda: _pairs(analyzer, problem)}

    return call


def ekfac_self(problem: Problem) -> Call:
    """Take the self-influence after the fit."""
    analyzer, train = _analyzer(problem), TensorDataset(*train_tensors(problem))
    _fit(analyzer, train, "ekfac")
    arguments = ScoreArguments(damping_factor=EKFAC_DAMPING)
    return lambda: {"scores": _self_scores(analyzer, train, "ekfac", arguments)}


def ekfac_pairs(problem: Problem) -> Call:
    """Take the scores of all pairs after the fit, the queries in one batch."""
    problem = problem.first(queries=EKFAC_QUERIES)
    analyzer = _analyzer(problem)
    _fit(analyzer, TensorDataset(*train_tensors(problem)), "ekfac")
    return lambda: {"scores": _pairs(analyzer, problem)}
