"""The works with captum."""

from __future__ import annotations

import tempfile
from pathlib import Path

import captum
import torch
from captum.influence import NaiveInfluenceFunction, TracInCP
from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction
from problems import Problem
from settings import (
    ARNOLDI_RANK,
    ARNOLDI_STEPS,
    BATCH,
    CG_EXAMPLES,
    CG_QUERIES,
    HEAD_DAMPING,
    SEED,
    TOP_K,
)
from torch import nn
from torch_networks import (
    LAST,
    Call,
    checkpoint,
    loader,
    network,
    query_tensors,
    train_tensors,
)

VERSION = f"{captum.__version__}, PyTorch {torch.__version__}"

HEAD_PARAMETERS = 650


def norms(problem: Problem) -> Call:
    """Take the self-influence of one checkpoint, with gradients of whole batches."""
    model = network(problem)
    tracin = TracInCP(
        model,
        loader(train_tensors(problem)),
        [checkpoint(model, Path(tempfile.mkdtemp()))],
        checkpoints_load_func=_load,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        sample_wise_grads_per_batch=True,
    )
    return lambda: {"scores": tracin.self_influence().numpy()}


def _load(model: nn.Module, path: str) -> float:
    """Load a checkpoint, whose learning rate was one."""
    model.load_state_dict(torch.load(path))
    return 1.0


def _shared(problem: Problem) -> dict:
    model = network(problem)
    return {
        "model": model,
        "train_dataset": loader(train_tensors(problem)),
        "checkpoint": checkpoint(model, Path(tempfile.mkdtemp())),
        "checkpoints_load_func": _load,
        "loss_fn": nn.CrossEntropyLoss(reduction="sum"),
        "batch_size": BATCH,
        "sample_wise_grads_per_batch": True,
    }


def _head(problem: Problem) -> NaiveInfluenceFunction:
    """Fit the last layer, all of whose directions are kept.

    Its Hessian is a sum over examples where that of others is a mean, and so are the damping that
    it is given, and its scores, which are multiplied by n.
    """
    return NaiveInfluenceFunction(
        **_shared(problem),
        layers=[LAST],
        projection_dim=HEAD_PARAMETERS,
        hessian_reg=HEAD_DAMPING * len(problem.x),
        seed=SEED,
    )


def exact_head(problem: Problem) -> Call:
    """Fit and take the scores, each time anew."""
    queries = query_tensors(problem)
    count = len(problem.x)
    return lambda: {"scores": _head(problem).influence(queries).numpy() * count}


def top_k(problem: Problem) -> Call:
    """Find the best examples after the fit."""
    fitted, queries, count = _head(problem), query_tensors(problem), len(problem.x)

    def call() -> dict:
        ids, scores = fitted.influence(queries, k=TOP_K)
        return {"scores": scores.numpy() * count, "ids": ids.numpy()}

    return call


def arnoldi(problem: Problem) -> Call:
    """Fit and take the scores, each time anew."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)
    queries = query_tensors(problem)

    def call() -> dict:
        fitted = ArnoldiInfluenceFunction(
            **_shared(problem), projection_dim=ARNOLDI_RANK, arnoldi_dim=ARNOLDI_STEPS, seed=SEED
        )
        return {"scores": fitted.influence(queries).numpy() * len(problem.x)}

    return call
