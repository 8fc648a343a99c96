"""What each work has to give, in float64, by NumPy alone; made once, kept beside the problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy_convolutions import gradients
from numpy_networks import (
    backward,
    forward,
    hessian_product,
    loss_slopes,
    losses,
    margin_slopes,
    mean_gradient,
    rows_of_gradients,
    softmax,
    with_one,
)
from problems import STRIDES, Problem, load_problem, save_arrays, versioned
from settings import (
    ARNOLDI_RANK,
    CG_EXAMPLES,
    CG_QUERIES,
    EKFAC_DAMPING,
    HEAD_DAMPING,
    KNN,
    KNN_QUERIES,
    TOP_K,
    TRAK_DIM,
    TRAK_EXAMPLES,
    TRAK_QUERIES,
)

Arrays = dict[str, np.ndarray]
EKFAC_CHECKED = 32
"""Queries whose scores with EKFAC are held against the reference."""

PART = 512
"""Examples whose gradients are held at once."""

LANCZOS_STEPS = 300
TRAK_DRAWS = 5


def double(problem: Problem) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the layers of a problem in float64."""
    return [(kernel.astype(float), bias.astype(float)) for kernel, bias in problem.layers]


def passes(
    problem: Problem,
    x: np.ndarray,
    y: np.ndarray,
    slopes: Callable[[np.ndarray, np.ndarray], np.ndarray] = loss_slopes,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each layer's inputs, extended by one, ``(n, i + 1)``, and deltas ``(n, o)``."""
    layers = double(problem)
    inputs, logits = forward(layers, x, problem.activation)
    deltas = backward(layers, inputs, slopes(logits, y), problem.activation)
    return [(with_one(a), d) for a, d in zip(inputs, deltas, strict=True)]


def norms_mlp(problem: Problem) -> Arrays:
    """Return ``Σ ‖a‖² ‖δ‖²`` over the layers."""
    pairs = passes(problem, problem.x, problem.y)
    return {"scores": sum((a**2).sum(axis=1) * (d**2).sum(axis=1) for a, d in pairs)}


def _image_batches(problem: Problem) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield the losses and the gradients of a batch of images after another."""
    for start in range(0, len(problem.x), 128):
        part = slice(start, start + 128)
        found, parts = gradients(double(problem), STRIDES, problem.x[part], problem.y[part])
        yield found, [rows.reshape(len(rows), -1) for rows in parts]


def norms_cnn(problem: Problem) -> Arrays:
    """Return the squared norms of the gradients."""
    batches = _image_batches(problem)
    norms = [sum((rows**2).sum(axis=1) for rows in parts) for _, parts in batches]
    return {"scores": np.concatenate(norms)}


def step(problem: Problem) -> Arrays:
    """Return the mean loss and the norm of its gradient."""
    if problem.x.ndim == 4:
        batches = list(_image_batches(problem))
        found = np.concatenate([of_batch for of_batch, _ in batches])
        columns = zip(*(parts for _, parts in batches), strict=True)
        sums = [sum(rows.sum(axis=0) for rows in column) for column in columns]
    else:
        logits = forward(double(problem), problem.x, problem.activation)[1]
        found = losses(logits, problem.y)
        sums = [a.T @ d for a, d in passes(problem, problem.x, problem.y)]
    norm = np.sqrt(sum((total**2).sum() for total in sums)) / len(found)
    return {"scores": np.array([found.mean(), norm])}


def fit(problem: Problem) -> Arrays:
    """Return the mean loss."""
    return {"scores": step(problem)["scores"][:1]}


def _label_draws(problem: Problem) -> tuple[np.ndarray, list[list[np.ndarray]], list[np.ndarray]]:
    """Return the probabilities, each label's deltas of each layer, and the layers' inputs."""
    layers = double(problem)
    inputs, logits = forward(layers, problem.x, problem.activation)
    pi = softmax(logits)
    deltas = []
    for label in range(pi.shape[1]):
        slopes = loss_slopes(logits, np.full(len(pi), label))
        deltas.append(backward(layers, inputs, slopes, problem.activation))
    return pi, deltas, [with_one(a) for a in inputs]


def _ekfac_bases(problem: Problem) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return each layer's eigenvectors of inputs and deltas, and its corrected eigenvalues.

    Labels are not drawn: every mean is one over the model's probabilities.
    """
    pi, deltas, inputs = _label_draws(problem)
    bases = []
    for layer, read in enumerate(inputs):
        weighted = [(pi[:, c, None], d[layer]) for c, d in enumerate(deltas)]
        of_inputs = np.linalg.eigh(read.T @ read / len(read))[1]
        of_deltas = np.linalg.eigh(sum((d * w).T @ d for w, d in weighted) / len(read))[1]
        squares = sum(w * (d @ of_deltas) ** 2 for w, d in weighted)
        values = ((read @ of_inputs) ** 2).T @ squares / len(read)
        bases.append((of_inputs, of_deltas, values))
    return bases


def ekfac_self(problem: Problem) -> Arrays:
    """Return the self-influence of the training examples in the exact eigenbasis."""
    pairs = passes(problem, problem.x, problem.y)
    total = np.zeros(len(problem.x))
    for (a, d), (u, v, values) in zip(pairs, _ekfac_bases(problem), strict=True):
        inverse = 1 / (values + EKFAC_DAMPING)
        total += ((a @ u) ** 2 @ inverse * (d @ v) ** 2).sum(axis=1)
    return {"scores": total}


def ekfac_pairs(problem: Problem) -> Arrays:
    """Return the scores of the first queries and all training examples."""
    problem = problem.first(queries=EKFAC_CHECKED)
    train = passes(problem, problem.x, problem.y)
    asked = passes(problem, problem.queries, problem.query_labels)
    scores = np.zeros((len(problem.queries), len(problem.x)))
    layers = zip(train, asked, _ekfac_bases(problem), strict=True)
    for (a, d), (query_a, query_d), (u, v, values) in layers:
        rows = (query_a @ u)[:, :, None] * (query_d @ v)[:, None, :] / (values + EKFAC_DAMPING)
        solved = np.einsum("pi,mio,qo->mpq", u, rows, v, optimize=True).reshape(len(rows), -1)
        for start in range(0, len(a), PART):
            part = slice(start, start + PART)
            outer = (a[part, :, None] * d[part, None, :]).reshape(-1, solved.shape[1])
            scores[:, part] += solved @ outer.T
    return {"scores": scores}


def exact_head(problem: Problem) -> Arrays:
    """Return scores with the inverse Hessian of the last layer, ``(m, n)``."""
    layers = double(problem)
    inputs, logits = forward(layers, problem.x, problem.activation)
    features, pi = with_one(inputs[-1]), softmax(logits)
    size = features.shape[1] * pi.shape[1]
    hessian = np.zeros((features.shape[1], pi.shape[1]) * 2)
    for c in range(pi.shape[1]):
        for e in range(pi.shape[1]):
            weights = pi[:, c] * ((c == e) - pi[:, e])
            hessian[:, c, :, e] = (features * weights[:, None]).T @ features / len(pi)
    hessian = hessian.reshape(size, size) + HEAD_DAMPING * np.eye(size)
    (a, d), (query_a, query_d) = (
        passes(problem, *data)[-1]
        for data in ((problem.x, problem.y), (problem.queries, problem.query_labels))
    )
    asked = (query_a[:, :, None] * query_d[:, None, :]).reshape(len(query_a), -1)
    solved = np.linalg.solve(hessian, asked.T).T.reshape(-1, *query_a.shape[1:], pi.shape[1])
    return {"scores": np.einsum("mio,ni,no->mn", solved, a, d, optimize=True)}


def top_k(problem: Problem) -> Arrays:
    """Return all scores, and the best of each query."""
    scores = exact_head(problem)["scores"]
    return {"all": scores, "scores": -np.sort(-scores, axis=1)[:, :TOP_K]}


def cg(problem: Problem) -> Arrays:
    """Return the gradients of the queries; what is checked is the residual."""
    problem = problem.first(queries=CG_QUERIES)
    asked = (problem.queries, problem.query_labels, problem.activation)
    return {"gradients": rows_of_gradients(double(problem), *asked)}


def largest_eigenpairs(
    multiply: Callable[[np.ndarray], np.ndarray], size: int, count: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of largest magnitude and their vectors ``(size, count)``.

    By Lanczos with every vector made orthogonal to all before it, twice.

    Raises
    ------
    ArithmeticError
        If the residual of a pair is above 1e-7 of the largest eigenvalue.
    """
    vectors = np.zeros((steps, size))
    diagonal, beside = np.zeros(steps), np.zeros(steps)
    vector = np.random.default_rng(1).normal(size=size)
    for i in range(steps):
        vectors[i] = vector / np.linalg.norm(vector)
        vector = multiply(vectors[i])
        diagonal[i] = vectors[i] @ vector
        for _ in range(2):
            vector = vector - vectors[: i + 1].T @ (vectors[: i + 1] @ vector)
        beside[i] = np.linalg.norm(vector)
    off = beside[:-1]
    values, basis = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    kept = np.argsort(-np.abs(values))[:count]
    residual = np.abs(beside[-1] * basis[-1, kept]).max() / np.abs(values).max()
    if residual > 1e-7:
        message = f"{steps} steps leave a residual of {residual:.1e}: take more."
        raise ArithmeticError(message)
    return values[kept], vectors.T @ basis[:, kept]


def arnoldi(problem: Problem) -> Arrays:
    """Return scores within the eigenvectors of largest magnitude of the Hessian."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)
    layers, activation = double(problem), problem.activation
    data = (problem.x.astype(float), problem.y, activation)
    size = mean_gradient(layers, *data).size
    values, vectors = largest_eigenpairs(
        lambda v: hessian_product(layers, *data, v), size, ARNOLDI_RANK, LANCZOS_STEPS
    )
    train = rows_of_gradients(layers, *data) @ vectors
    asked = rows_of_gradients(layers, problem.queries, problem.query_labels, activation) @ vectors
    return {"scores": asked / values @ train.T, "values": values}


def trak_features(problem: Problem, draws: int, dim: int) -> list[np.ndarray]:
    """Return projected gradients of the margin, ``(n + m, dim)``, for each draw of signs.

    The product is in float32, as its rounding is nothing beside what another draw changes.
    """
    x = np.concatenate([problem.x, problem.queries])
    y = np.concatenate([problem.y, problem.query_labels])
    generator = np.random.default_rng(2)
    features = np.zeros((len(x), draws * dim), np.float32)
    for a, d in passes(problem, x, y, margin_slopes):
        a, d = a.astype(np.float32), d.astype(np.float32)
        step_size = max(4096 // d.shape[1], 1)
        for start in range(0, a.shape[1], step_size):
            rows = (a[:, start : start + step_size, None] * d[:, None, :]).reshape(len(a), -1)
            signs = generator.integers(0, 2, (rows.shape[1], draws * dim), np.int8)
            features += rows @ (2 * signs.astype(np.float32) - 1)
    return np.split(features.astype(np.float64) / np.sqrt(dim), draws, axis=1)


def trak(problem: Problem) -> Arrays:
    """Return the mean of the scores of several draws, and how well each agrees with the others."""
    problem = problem.first(TRAK_EXAMPLES, TRAK_QUERIES)
    logits = forward(double(problem), problem.x, problem.activation)[1]
    pulls = 1 - softmax(logits)[np.arange(len(problem.y)), problem.y]
    draws = []
    for features in trak_features(problem, TRAK_DRAWS, TRAK_DIM):
        train, asked = features[: len(problem.x)], features[len(problem.x) :]
        draws.append(np.linalg.solve(train.T @ train, asked.T).T @ train.T * pulls)
    total = sum(draws)
    others = [(total - one) / (len(draws) - 1) for one in draws]
    agreement = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(draws, others, strict=True)
    ]
    return {"scores": total / len(draws), "agreement": np.array(agreement)}


def knn_shapley(problem: Problem) -> Arrays:
    """Return the mean Shapley value of each training example, a query after another."""
    problem = problem.first(queries=KNN_QUERIES)
    layers = double(problem)
    train, asked = (
        forward(layers, x, problem.activation)[0][-1] for x in (problem.x, problem.queries)
    )
    total = np.zeros(len(train))
    for query, label in zip(asked, problem.query_labels, strict=True):
        order = np.argsort(((train - query) ** 2).sum(axis=1), kind="stable")
        total[order] += shapley_of_sorted(problem.y[order] == label, KNN)
    return {"scores": total / len(asked)}


def shapley_of_sorted(same: Sequence[bool], k: int) -> np.ndarray:
    """Return the Shapley values of points in the order of their distance, ``(n,)``."""
    n = len(same)
    same = np.asarray(same, np.float64)
    values = np.zeros(n)
    values[-1] = same[-1] / max(n, k)
    ranks = np.arange(1, n)
    steps = (same[:-1] - same[1:]) * np.minimum(k, ranks) / (k * ranks)
    values[:-1] = np.cumsum(steps[::-1])[::-1] + values[-1]
    return values


def load_reference(name: str, problem: str, folder: Path) -> Arrays:
    """Return the reference of this name, made and kept in the folder where it is not there yet."""
    path = versioned(folder) / f"reference-{name}-{problem}.npz"
    if not path.exists():
        save_arrays(path, globals()[name](load_problem(problem, folder)))
    with np.load(path) as found:
        return dict(found)
