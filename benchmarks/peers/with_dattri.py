"""The works with dattri."""

from __future__ import annotations

from importlib.metadata import version

import torch
from dattri.algorithm import (
    IFAttributorArnoldi,
    IFAttributorCG,
    IFAttributorExplicit,
    KNNShapleyAttributor,
    TracInAttributor,
    TRAKAttributor,
)
from dattri.task import AttributionTask
from numpy_networks import forward
from problems import Problem
from settings import (
    ARNOLDI_RANK,
    ARNOLDI_STEPS,
    CG_DAMPING,
    CG_EXAMPLES,
    CG_QUERIES,
    HEAD_DAMPING,
    KNN,
    KNN_QUERIES,
    SEED,
    TOP_K,
    TRAK_DIM,
    TRAK_EXAMPLES,
    TRAK_QUERIES,
)
from torch import nn
from torch.nn.functional import cross_entropy
from torch_networks import (
    Call,
    loader,
    network,
    query_tensors,
    rows_from_torch,
    train_tensors,
)

VERSION = f"{version('dattri')}, PyTorch {torch.__version__}"

CG_STEPS = 15
"""Its tolerance has no effect, so that the number of steps is fixed beforehand."""


def _task(model: nn.Module) -> AttributionTask:
    """Return the task with the mean loss of a batch, as influence functions want it."""

    def loss(parameters, data):
        x, y = data
        return cross_entropy(torch.func.functional_call(model, parameters, x), y)

    return AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())


def _one_example(problem: Problem, function) -> tuple[AttributionTask, nn.Module]:
    """Return the task with a function of one example, as TracIn and TRAK want it."""
    model = network(problem)

    def of_example(parameters, data):
        x, y = data
        logits = torch.func.functional_call(model, parameters, x.unsqueeze(0))
        return function(logits, y.unsqueeze(0))

    task = AttributionTask(loss_func=of_example, model=model, checkpoints=model.state_dict())
    return task, model


def norms(problem: Problem) -> Call:
    """Take the self-influence of one checkpoint, without a projection."""
    task, _ = _one_example(problem, cross_entropy)
    attributor = TracInAttributor(
        task,
        weight_list=torch.ones(1),
        normalized_grad=False,
        projector_kwargs={"proj_type": "identity"},
    )
    batches = loader(train_tensors(problem))
    return lambda: {"scores": attributor.self_attribute(batches).detach().numpy()}


def _scores(attributor, train, queries) -> torch.Tensor:
    return attributor.attribute(train, queries).T.detach()


def _head_scores(problem: Problem) -> torch.Tensor:
    """Return scores of the last layer as a model of its own, over features that are computed.

    Through ``layer_name`` the whole network would be differentiated, which takes minutes. All
    examples are one batch, over which alone the inverse is that of their Hessian.
    """
    model = network(problem)
    with torch.no_grad():
        data = [(model[:-1](x), y) for x, y in (train_tensors(problem), query_tensors(problem))]
    train, queries = (loader(arrays, len(problem.x)) for arrays in data)
    attributor = IFAttributorExplicit(_task(model[-1]), regularization=HEAD_DAMPING)
    attributor.cache(train)
    return _scores(attributor, train, queries)


def exact_head(problem: Problem) -> Call:
    """Fit and take the scores, each time anew."""
    return lambda: {"scores": _head_scores(problem).numpy()}


def top_k(problem: Problem) -> Call:
    """Take the scores, and ``torch.topk`` of them: there is no call for the best.

    The Hessian is not kept, so that it is computed within.
    """

    def call() -> dict:
        values, ids = torch.topk(_head_scores(problem), TOP_K, dim=1)
        return {"scores": values.numpy(), "ids": ids.numpy()}

    return call


def cg(problem: Problem) -> Call:
    """Solve for the gradients of the queries; all examples are one batch, as for the last layer."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)
    task = _task(network(problem))
    attributor = IFAttributorCG(task, max_iter=CG_STEPS, regularization=CG_DAMPING)
    attributor.cache(loader(train_tensors(problem), CG_EXAMPLES))
    queries = tuple(tensor.unsqueeze(0) for tensor in query_tensors(problem))

    def call() -> dict:
        gradients = attributor.generate_test_rep(0, queries)
        return {"solutions": rows_from_torch(attributor.transform_test_rep(0, gradients), problem)}

    return call


def arnoldi(problem: Problem) -> Call:
    """Fit and take the scores, each time anew."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)

    queries = loader(query_tensors(problem))

    def call() -> dict:
        attributor = IFAttributorArnoldi(
            _task(network(problem)), proj_dim=ARNOLDI_RANK, max_iter=ARNOLDI_STEPS, seed=SEED
        )
        attributor.cache(loader(train_tensors(problem), CG_EXAMPLES))
        return {"scores": _scores(attributor, loader(train_tensors(problem)), queries).numpy()}

    return call


def _margin(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    label = torch.arange(logits.shape[1]) == y.unsqueeze(1)  # one_hot cannot be vectorised
    right = torch.where(label, logits, 0.0).sum(dim=1)
    return (right - logits.masked_fill(label, -torch.inf).logsumexp(dim=1)).sum()


def trak(problem: Problem) -> Call:
    """Fit and take the scores, each time anew, with the default projection."""
    problem = problem.first(TRAK_EXAMPLES, TRAK_QUERIES)
    batches, queries = loader(train_tensors(problem)), loader(query_tensors(problem))

    def call() -> dict:
        task, model = _one_example(problem, _margin)

        def probability(parameters, data):
            x, y = data
            logits = torch.func.functional_call(model, parameters, x.unsqueeze(0))
            return torch.exp(-cross_entropy(logits, y.unsqueeze(0)))

        attributor = TRAKAttributor(
            task, probability, projector_kwargs={"proj_dim": TRAK_DIM, "proj_seed": SEED}
        )
        attributor.cache(batches)
        return {"scores": attributor.attribute(test_dataloader=queries).T.detach().numpy()}

    return call


def knn_shapley(problem: Problem) -> Call:
    """Value the training examples by features that are given, and take the mean over queries."""
    problem = problem.first(queries=KNN_QUERIES)

    def data(x, y):
        features = forward(problem.layers, x, problem.activation)[0][-1]
        return loader((torch.from_numpy(features.astype("float32")), torch.from_numpy(y)))

    train, queries = data(problem.x, problem.y), data(problem.queries, problem.query_labels)
    attributor = KNNShapleyAttributor(KNN)
    return lambda: {"scores": attributor.attribute(train, queries).mean(dim=0).numpy()}
