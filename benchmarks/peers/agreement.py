"""How far a result is from its reference, each as one number that a bound is set for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy_networks import hessian_product
from problems import Problem
from references import double
from settings import CG_DAMPING, CG_EXAMPLES, CG_QUERIES

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Measure:
    """A number that tells of agreement.

    Attributes
    ----------
    title
        What the page calls it.
    of
        Computes it from a result, the reference and the problem.
    is_error
        Whether a small one is good; else a large one is.
    """

    title: str
    of: Callable[[Arrays, Arrays, Problem], float]
    is_error: bool = True

    def holds(self, value: float, bound: float) -> bool:
        """Tell whether a value is within its bound; NaN never is."""
        return bool(value <= bound if self.is_error else value >= bound)


def _relative(result: np.ndarray, reference: np.ndarray) -> float:
    if np.shape(result) != np.shape(reference):
        return float("inf")
    return float(np.linalg.norm(result - reference) / np.linalg.norm(reference))


def relative_error(result: Arrays, reference: Arrays, _: Problem) -> float:
    """Return ``‖result - reference‖ / ‖reference‖``."""
    return _relative(result["scores"], reference["scores"])


def pearson(result: Arrays, reference: Arrays, _: Problem) -> float:
    """Return the correlation of all entries of the first rows, as many as the reference has."""
    expected = reference["scores"]
    found = result["scores"][: len(expected)]
    if np.shape(found) != np.shape(expected):
        return float("nan")
    return float(np.corrcoef(found.ravel(), expected.ravel())[0, 1])


def share_of_a_draw(result: Arrays, reference: Arrays, problem: Problem) -> float:
    """Return the correlation, over that which a draw of the reference has with the others."""
    return pearson(result, reference, problem) / float(reference["agreement"].mean())


def best_found(result: Arrays, reference: Arrays, _: Problem) -> float:
    """Return the larger error of what the best are said to score, and of what they do score."""
    true = np.take_along_axis(reference["all"], result["ids"].astype(np.int64), axis=1)
    said, best = result["scores"], reference["scores"]
    return max(_relative(said, best), _relative(true, best))


def residual(result: Arrays, reference: Arrays, problem: Problem) -> float:
    """Return the largest relative residual of the solutions, the products being in float64."""
    part, layers = problem.first(CG_EXAMPLES, CG_QUERIES), double(problem)
    worst = 0.0
    for solution, gradient in zip(result["solutions"], reference["gradients"], strict=True):
        v = solution.astype(np.float64)
        product = hessian_product(layers, part.x, part.y, part.activation, v) + CG_DAMPING * v
        worst = max(worst, np.linalg.norm(product - gradient) / np.linalg.norm(gradient))
    return float(worst)


MEASURES = {
    "relative": Measure("relative error", relative_error),
    "pearson": Measure("Pearson", pearson, is_error=False),
    "draw": Measure("Pearson, over that of a draw", share_of_a_draw, is_error=False),
    "best": Measure("relative error, scores and choice", best_found),
    "residual": Measure("largest relative residual", residual),
}
