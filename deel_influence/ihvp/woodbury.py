"""The exact inverse of the Gauss-Newton matrix of few examples, through their Gram matrix."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from ..curvature.data import CurvatureData
from ..curvature.regularizer import regularizer_diagonal
from ..curvature.sampling import expected_gradients
from ..errors import CurvatureSizeError, UnsupportedModelError
from ..gradients.engine import GradientEngine
from ..linalg.checks import check_count
from ..linalg.dense_inverse import ROUNDINGS
from ..linalg.eigen import eigenpairs
from ..linalg.low_rank import LowRank
from ..linalg.orthogonal import rounding
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch, Data
from ..utils.arguments import settings_in
from ..utils.memory import available_bytes, human_bytes
from ..utils.running import call
from .damping import automatic_damping
from .low_rank import LowRankIHVP


class WoodburyIHVP(LowRankIHVP):
    """Invert the Gauss-Newton matrix exactly, by an N×N problem where N = n·c is below p.

    With the rows ``G = [B_iᵀ J_i]`` of all n examples and c outputs, ``(1/n) Gᵀ G`` is the
    Gauss-Newton matrix, and its eigenvectors are those of the Gram matrix ``(1/n) G Gᵀ``, mapped
    by G. Woodbury's identity then gives the inverse of the damped matrix. An L2 regulariser adds
    to the damping of each parameter.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    rank
        Keep the largest eigenvalues only, which projects the Gram matrix on its leading
        eigenvectors; None keeps all, and is exact.
    damping
        Added to the diagonal: a number, ``"auto"`` (a tenth of the mean eigenvalue of C), or one
        number for each watched layer. With 0, and no regulariser, it is the pseudo-inverse.
    regularizer
        Whether the Hessian of the model's regularisers belongs to H; it must be diagonal.
    n_samples_for_hessian
        How many examples to draw; None takes all.
    seed
        Fixes the draw of examples.

    Raises
    ------
    CurvatureSizeError
        If the rows do not fit in the free memory.
    UnsupportedModelError
        If the regulariser's Hessian is not diagonal.

    References
    ----------
    .. [1] Y. Ren, D. Goldfarb. Efficient Subsampled Gauss-Newton and Natural Gradient Methods for
       Training Neural Networks. arXiv 1906.02353, 2019.
    """

    name = "woodbury"

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        rank: int | None = None,
        *,
        damping: Any = "auto",
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
    ) -> None:
        config = settings_in(locals())
        if rank is not None:
            check_count("rank", rank)
        super().__init__(model, train_dataset, config)

    @property
    def curvature(self) -> str:
        """The name of the curvature, always ``"gauss_newton"``."""
        return "gauss_newton"

    def _automatic_damping(self) -> float:
        squares = float(tf.reduce_sum(tf.square(tf.cast(self._rows, tf.float64))))
        return automatic_damping(squares / self.model.nb_params)

    @cached_property
    def _rows(self) -> tf.Tensor:
        """``G/√n``, shape ``(N, p)``; held until the fit is done."""
        engine, count = self.engine, 0
        parts: list[tf.Tensor] = []
        data = CurvatureData(self.model, self._fit_dataset(), with_features=False)
        for item in data:
            kernel = engine.kernel("gauss_newton_rows", _rows_function(engine))
            rows = call(kernel, item, (item.batch,))
            if not parts:
                _check_memory(rows, item.size, data.num_examples)
            parts.append(rows)
            count += item.size
        return tf.concat(parts, axis=0) / np.sqrt(count)

    def _find_diagonal(self) -> np.ndarray:
        diagonal = super()._find_diagonal()
        if self.config["regularizer"] and self.model.is_regularized:
            added = regularizer_diagonal(self.model)
            if added is None:
                message = (
                    "WoodburyIHVP needs regularisers with a diagonal Hessian, such as L2. "
                    "Received: one that couples parameters. Pass regularizer=False, or use another "
                    "strategy."
                )
                raise UnsupportedModelError(message)
            diagonal = diagonal + added
        return diagonal

    def _approximate(self) -> LowRank:
        rows = self._rows
        del self.__dict__["_rows"]  # as large as the result, and not needed again
        if self._scale is not None:
            rows = rows * self._scale
        # G Gᵀ and Gᵀ G have the same eigenvalues above 0; the smaller of them is decomposed.
        is_wide = rows.shape[0] <= rows.shape[1]
        gram = tf.matmul(rows, rows, transpose_a=not is_wide, transpose_b=is_wide)
        gram = gram.numpy().astype(np.float64)
        values, vectors = eigenpairs((gram + gram.T) / 2)
        # What is left out counts as the damping alone: no more of it than rounding has decided.
        cutoff = ROUNDINGS * rounding(self.model.dtype) * max(values[-1], 0.0)
        kept = np.flatnonzero(values > cutoff)[::-1]
        kept = kept[: self.config["rank"]]
        values, basis = values[kept], vectors[:, kept].T
        if not is_wide:
            return LowRank(tf.constant(basis, self.model.dtype), values)
        basis = tf.constant(basis / np.sqrt(values)[:, None], self.model.dtype)
        return LowRank(tf.matmul(basis, rows), values)


def _rows_function(engine: GradientEngine) -> Any:
    def rows(batch: Batch) -> tf.Tensor:
        columns = [gradients.materialize() for gradients in expected_gradients(engine, batch)]
        return tf.concat(columns, axis=0) / np.sqrt(len(columns))

    return rows


def _check_memory(rows: tf.Tensor, batch_size: int, num_examples: int) -> None:
    total = int(rows.shape[0]) * num_examples // batch_size
    # The rows, their images under the eigenvectors, and the smaller Gram matrix with its own.
    p = int(rows.shape[1])
    needed = 3 * total * p * rows.dtype.size + 3 * 8 * min(total, p) ** 2
    free = available_bytes()
    if free is not None and needed > free:
        message = (
            f"The {total} rows of {num_examples} examples need about {human_bytes(needed)} of "
            f"memory, and {human_bytes(free)} are free. Pass n_samples_for_hessian=, watch fewer "
            "layers, or use ihvp_calculator='ekfac', which needs no rows."
        )
        raise CurvatureSizeError(message)
