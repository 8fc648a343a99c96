"""The works with pyDVL."""

from __future__ import annotations

import pydvl
import torch
from numpy_networks import forward
from problems import Problem
from pydvl.influence.torch import ArnoldiInfluence, CgInfluence, DirectInfluence, EkfacInfluence
from pydvl.valuation import Dataset, KNNShapleyValuation
from settings import (
    ARNOLDI_RANK,
    ARNOLDI_STEPS,
    CG_DAMPING,
    CG_EXAMPLES,
    CG_QUERIES,
    CG_TOLERANCE,
    EKFAC_DAMPING,
    EKFAC_QUERIES,
    HEAD_DAMPING,
    KNN,
    KNN_QUERIES,
    TOP_K,
)
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import cross_entropy
from torch_networks import (
    LAST,
    Call,
    loader,
    network,
    query_tensors,
    rows_from_torch,
    train_tensors,
)

VERSION = f"{pydvl.__version__}, PyTorch {torch.__version__}"


def _scores(fitted, problem: Problem) -> torch.Tensor:
    """Return the scores, the factors of the queries being computed once."""
    factors = fitted.influence_factors(*query_tensors(problem))
    batches = loader(train_tensors(problem))
    return torch.cat([fitted.influences_from_factors(factors, *batch) for batch in batches], dim=1)


def _ekfac(problem: Problem) -> EkfacInfluence:
    fitted = EkfacInfluence(
        network(problem), update_diagonal=True, hessian_regularization=EKFAC_DAMPING
    )
    return fitted.fit(loader(train_tensors(problem)))


def ekfac_fit(problem: Problem) -> Call:
    """Fit anew each time; the scores are taken afterwards, from the last fit."""
    problem = problem.first(queries=EKFAC_QUERIES)

    def call() -> dict:
        fitted = _ekfac(problem)
        return {"scores": lambda: _scores(fitted, problem).detach().numpy()}

    return call


def ekfac_pairs(problem: Problem) -> Call:
    """Take the scores after the fit."""
    problem = problem.first(queries=EKFAC_QUERIES)
    fitted = _ekfac(problem)
    return lambda: {"scores": _scores(fitted, problem).detach().numpy()}


def _head(problem: Problem) -> DirectInfluence:
    """Fit the last layer, whose parameters alone ask for gradients."""
    model = network(problem)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(LAST)
    fitted = DirectInfluence(model, cross_entropy, regularization=HEAD_DAMPING)
    return fitted.fit(loader(train_tensors(problem)))


def exact_head(problem: Problem) -> Call:
    """Fit and take the scores, each time anew."""
    return lambda: {"scores": _scores(_head(problem), problem).detach().numpy()}


def top_k(problem: Problem) -> Call:
    """Take the scores after the fit, and ``torch.topk`` of them: there is no call for the best."""
    fitted = _head(problem)

    def call() -> dict:
        values, ids = torch.topk(_scores(fitted, problem), TOP_K, dim=1)
        return {"scores": values.detach().numpy(), "ids": ids.numpy()}

    return call


def cg(problem: Problem) -> Call:
    """Solve for the gradients of the queries, all at once."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)
    fitted = CgInfluence(
        network(problem),
        cross_entropy,
        regularization=CG_DAMPING,
        rtol=CG_TOLERANCE,
        solve_simultaneously=True,
    ).fit(loader(train_tensors(problem)))
    queries = query_tensors(problem)
    return lambda: {"solutions": rows_from_torch(fitted.influence_factors(*queries), problem)}


def arnoldi(problem: Problem) -> Call:
    """Fit and take the scores, each time anew."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)

    def call() -> dict:
        fitted = ArnoldiInfluence(
            network(problem),
            cross_entropy,
            regularization=0.0,
            rank=ARNOLDI_RANK,
            krylov_dimension=ARNOLDI_STEPS,
        ).fit(loader(train_tensors(problem)))
        return {"scores": _scores(fitted, problem).detach().numpy()}

    return call


def knn_shapley(problem: Problem) -> Call:
    """Value the training examples by features that are given."""
    problem = problem.first(queries=KNN_QUERIES)

    def features(x):
        return forward(problem.layers, x, problem.activation)[0][-1]

    train = Dataset(features(problem.x), problem.y)
    test = Dataset(features(problem.queries), problem.query_labels)
    model = KNeighborsClassifier(KNN)

    def call() -> dict:
        valuation = KNNShapleyValuation(model, test, progress=False)
        return {"scores": valuation.fit(train).result.values}

    return call
