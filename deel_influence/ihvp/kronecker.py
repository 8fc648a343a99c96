"""What the strategies on Kronecker-factored curvature share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..curvature.flat import check_curved
from ..curvature.kronecker import APPROXIMATIONS
from ..curvature.kronecker_basis import EigenbasisCurvature, EigenBlock, from_arrays, to_arrays
from ..curvature.kronecker_low_rank import LowRankQueries
from ..curvature.kronecker_passes import FISHERS, FisherPass
from ..gradients.batch_gradients import BatchGradients
from ..gradients.passes import Pass
from ..linalg.checks import check_choice
from ..model.influence_model import BaseInfluenceModel
from ..model.parameters import ParameterLayout
from ..types import Data
from ..utils.arguments import settings_in
from ..utils.datasets import check_dataset
from ..utils.kernels import Kernel
from ..utils.progress import check_verbose
from ..utils.running import run
from ..utils.separable import Separated
from .base import InverseHessianVectorProduct
from .damping import AUTO_SHARE, check_damping, resolve_damping

AUTO_FLOOR = 1e-6
"""``damping="auto"`` takes no layer's mean eigenvalue for less than this share of that of all."""


class KroneckerIHVP(InverseHessianVectorProduct):
    """Base class of strategies whose H is known by layer, by eigenvalues and eigenvectors.

    To be implemented by subclasses: `_fit`.
    """

    fits_by_sums = True
    settings: ClassVar[tuple[str, ...]] = ("n_samples_for_hessian", "seed")

    curvature: EigenbasisCurvature
    """The fitted H."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        *,
        damping: Any = "auto",
        fisher: str = "true",
        approximation: str = "expand",
        query_rank: int | None = None,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        verbose: str | int = "auto",
    ) -> None:
        config = settings_in(locals())
        check_choice("fisher", fisher, FISHERS)
        check_choice("approximation", approximation, APPROXIMATIONS)
        check_verbose(verbose)
        config["query_rank"] = _checked_rank(query_rank)
        super().__init__(model, train_dataset, config)
        checked = check_damping(damping, model.layout)
        self.config["damping"] = list(checked) if isinstance(checked, tuple) else checked
        drawn = int(np.random.default_rng(self.config["seed"]).integers(2**31))
        dataset = self._fit_dataset()
        passes = FisherPass(self.engine, dataset, fisher, drawn, verbose)
        blocks = self._fit(passes, approximation)
        self._note_size(passes.num_examples)
        values = damping_of_blocks(checked, blocks, model.layout)
        largest = max(float(block.values.max(initial=0.0)) for block in blocks)
        check_curved(largest, type(self).__name__, bool(values.all()))
        self.curvature = EigenbasisCurvature(model.layout, blocks, values, model.dtype)

    @abstractmethod
    def _fit(self, fisher: FisherPass, approximation: str) -> list[EigenBlock]:
        """Return the curvature of the layers. To be implemented by subclasses."""

    @property
    def query_rank(self) -> int | None:
        """The highest rank at which query gradients are kept; None where they are kept whole."""
        return self.config.get("query_rank")

    def query_truncation_error(self, queries: Data) -> float:
        """Return how much of ``H⁻¹ g`` of some queries is lost with `query_rank`.

        Parameters
        ----------
        queries
            A batched dataset.

        Returns
        -------
        ``√(Σ ‖H⁻¹ g - V‖² / Σ ‖H⁻¹ g‖²)``, sums over queries and layers, V what is kept; 0 where
        queries are kept whole.
        """
        check_dataset(queries, "queries", self.model.input_rank)
        low_rank = self._low_rank
        if low_rank is None:
            return 0.0
        sums = np.zeros(2)
        # Its own kernel: it holds the fitted curvature, which the engine would keep for ever.
        kernel = Kernel(lambda batch: low_rank.squared_errors(self.engine.gradients(batch)))
        for item in Pass(queries, "queries", in_order=False).items(self.engine):
            sums += np.sum(run(kernel, item, (item.batch,), axis=0), axis=0, dtype=float)
        return float(np.sqrt(sums[0] / sums[1])) if sums[1] else 0.0

    def self_influence(self, gradients: BatchGradients) -> tf.Tensor:
        return self.curvature.quadratic_forms(gradients)

    def gram(self, sets: Sequence[BatchGradients]) -> tf.Tensor:
        return self.curvature.gram(sets)

    def query_factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return what `scores` needs of the queries, one row for each.

        ``H⁻¹ g``, ``(m, p)``, or with `query_rank` its low-rank factors.
        """
        low_rank = self._low_rank
        if low_rank is not None:
            return low_rank.factors(gradients)
        return self.curvature.preconditioned(gradients)

    def scores(self, factors: tf.Tensor, gradients: BatchGradients) -> tf.Tensor:
        low_rank = self._low_rank
        if low_rank is not None:
            return low_rank.scores(factors, gradients)
        return super().scores(factors, gradients)

    def products(self, factors: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        low_rank = self._low_rank
        whole = factors if low_rank is None else low_rank.vectors(factors)
        return super().products(whole, vectors)

    def damping_diagonal(self) -> np.ndarray:
        layout = self.model.layout
        diagonal = np.zeros(layout.size)
        for block, value in zip(self.curvature.blocks, self.curvature.damping, strict=True):
            for part in block.parts:
                diagonal[slice(*layout.slots[part])] = value
        return diagonal

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        return self.curvature.solve(vectors)

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        return self.curvature.multiply(vectors)

    def _state(self) -> dict[str, np.ndarray]:
        return to_arrays(self.curvature)

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.curvature = from_arrays(state, self.model.layout, self.model.dtype)

    def _separated(self) -> Separated:
        low_rank = self._low_rank

        def over(tensors: list[tf.Tensor]) -> KroneckerIHVP:
            curvature = self.curvature.with_tensors(tensors)
            queries = None if low_rank is None else low_rank.over(curvature)
            return self._altered(curvature=curvature, _low_rank=queries)

        ranks = None if low_rank is None else (low_rank.ranks, self.config.get("seed"))
        return Separated((self.curvature.form, ranks), self.curvature.tensors, over)

    @cached_property
    def _low_rank(self) -> LowRankQueries | None:
        if self.query_rank is None:
            return None
        return LowRankQueries(self.curvature, self.query_rank, self.config.get("seed") or 0)


def damping_of_blocks(
    damping: float | str | tuple[float, ...],
    blocks: Sequence[EigenBlock],
    layout: ParameterLayout,
) -> np.ndarray:
    """Return the damping of each block, of which a layer may have several, ``(blocks,)``.

    Raises
    ------
    ValueError
        If a layer's variables, watched apart from each other, are given different ones.
    """
    layer_of = {part: i for i, layer in enumerate(layout.blocks) for part in layer.parts}

    def automatic() -> np.ndarray:
        means = []
        for layer in layout.blocks:
            within = [block for block in blocks if set(block.parts) & set(layer.parts)]
            total = sum(block.values.sum() for block in within)
            means.append(total / sum(block.values.size for block in within))
        overall = sum(block.values.sum() for block in blocks) / layout.size
        return AUTO_SHARE * np.maximum(means, AUTO_FLOOR * overall)

    by_layer = resolve_damping(damping, layout, automatic)
    of_blocks = [{float(by_layer[layer_of[part]]) for part in block.parts} for block in blocks]
    different = next(
        (b for b, found in zip(blocks, of_blocks, strict=True) if len(found) > 1), None
    )
    if different is not None:
        names = [layout.variables[part].path for part in different.parts]
        message = (
            "Argument `damping` must be the same for the kernel and the bias of a layer, which "
            f"share one curvature. Received: {damping!r} where {names} belong together."
        )
        raise ValueError(message)
    return np.array([found.pop() for found in of_blocks])


def _checked_rank(rank: Any) -> int | None:
    whole = isinstance(rank, (int, np.integer)) and not isinstance(rank, bool)
    if rank is None or (whole and rank >= 1):
        return None if rank is None else int(rank)
    message = f"Argument `query_rank` must be None or an integer of at least 1. Received: {rank!r}."
    raise ValueError(message)
