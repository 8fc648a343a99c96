"""Block-diagonal curvature that is kept by its eigenvectors, and the algebra on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..gradients.batch_gradients import Basis, BatchGradients, gram, join_columns, take_columns
from ..gradients.blocks import GradientBlock, OuterBlock
from ..model.parameters import ParameterLayout


@dataclass(frozen=True)
class EigenBlock:
    """The curvature ``U diag(values) Uᵀ`` of one layer, or of a part of it, without damping.

    Attributes
    ----------
    parts
        The indices of its variables in the parameter layout; together they have q entries.
    values
        Eigenvalues of at least 0, float64: ``(r, s)`` with ``U = left ⊗ right``, else ``(q,)``.
    left
        Eigenvectors in columns: ``(r, r)`` of the inputs' covariance where there is a Kronecker
        form, else ``(q, q)``; None where U is the identity.
    right
        Eigenvectors ``(s, s)`` of the output gradients' covariance, or None.
    is_outer
        Whether each gradient is one outer product ``a δᵀ``: the layer has a Kronecker form, and is
        applied once to each example.
    """

    parts: tuple[int, ...]
    values: np.ndarray
    left: np.ndarray | None = None
    right: np.ndarray | None = None
    is_outer: bool = False


class EigenbasisCurvature:
    """``H = U diag(values + damping) Uᵀ``, block-diagonal, with products that are traceable.

    With a damping of 0, directions whose eigenvalue is below the rounding error of the largest of
    their block are left out of the inverse (the Moore-Penrose pseudo-inverse).

    Parameters
    ----------
    layout
        The watched variables.
    blocks
        The layers' curvatures, which together hold every variable once.
    damping
        One number for each block.
    dtype
        The type of the vectors.
    """

    def __init__(
        self,
        layout: ParameterLayout,
        blocks: Sequence[EigenBlock],
        damping: np.ndarray,
        dtype: tf.DType,
    ) -> None:
        self.blocks = tuple(blocks)
        self.damping = np.asarray(damping, np.float64)
        self._layout = layout
        self._damped = [
            DampedBlock(block, float(value), dtype)
            for block, value in zip(self.blocks, self.damping, strict=True)
        ]

    @property
    def damped_blocks(self) -> tuple[DampedBlock, ...]:
        """The blocks with their damping, as tensors."""
        return tuple(self._damped)

    @property
    def form(self) -> tuple:
        """What products depend on besides `tensors`."""
        parts = [(b.parts, b.shape, b.basis.left is None, b.is_kronecker) for b in self._damped]
        return tuple(parts)

    @property
    def tensors(self) -> list[tuple[tf.Tensor, ...]]:
        """What products are made with, for each block."""
        return [block.tensors for block in self._damped]

    def with_tensors(self, tensors: Sequence[tuple[tf.Tensor, ...]]) -> EigenbasisCurvature:
        """Return a curvature of this form whose products are made with others."""
        twin = copy(self)
        pairs = zip(self._damped, tensors, strict=True)
        twin._damped = [block.with_tensors(*given) for block, given in pairs]
        return twin

    def multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H v`` for every row of vectors ``(k, p)``."""
        return self._apply(vectors, [block.values for block in self._damped])

    def solve(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of vectors ``(k, p)``."""
        return self._apply(vectors, [block.inverse for block in self._damped])

    def of_function(
        self, function: Callable[[tf.Tensor], tf.Tensor], vectors: tf.Tensor
    ) -> tf.Tensor:
        """Return ``f(H) v`` for every row of vectors ``(k, p)``, f of the damped eigenvalues."""
        return self._apply(vectors, [function(block.values) for block in self._damped])

    def coordinates(self, gradients: BatchGradients) -> list[tf.Tensor]:
        """Return ``Uᵀ g_i``, for each block a tensor ``(b, r, s)`` or ``(b, q)``."""
        if self.describes(gradients):
            rotated = gradients.rotate([block.basis for block in self._damped])
            rows = [block.rows() for block in rotated.blocks]
            pairs = zip(rows, self._damped, strict=True)
            return [tf.reshape(row, (-1, *block.shape)) for row, block in pairs]
        vectors = gradients.materialize()
        return [
            block.into(take_columns(vectors, block.parts, self._layout)) for block in self._damped
        ]

    def preconditioned(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``H⁻¹ g_i``, shape ``(b, p)``."""
        return self.vectors(self.inverted_coordinates(gradients))

    def inverted_coordinates(self, gradients: BatchGradients) -> list[tf.Tensor]:
        """Return ``Uᵀ H⁻¹ g_i``, for each block a tensor ``(b, r, s)`` or ``(b, q)``."""
        pairs = zip(self.coordinates(gradients), self._damped, strict=True)
        return [values * block.inverse for values, block in pairs]

    def vectors(self, coordinates: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the vectors ``(b, p)`` of which `coordinates` are given."""
        pairs = zip(self._damped, coordinates, strict=True)
        return self.joined([block.back(values) for block, values in pairs])

    def joined(self, columns: Sequence[tf.Tensor]) -> tf.Tensor:
        """Join the columns ``(b, q)`` of all blocks into vectors ``(b, p)``."""
        parts = [block.parts for block in self.blocks]
        return join_columns(list(zip(parts, columns, strict=True)), self._layout)

    def quadratic_forms(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``g_iᵀ H⁻¹ g_i``, shape ``(b,)``, without the matrix of the gradients."""
        if self.describes(gradients):
            rotated = gradients.rotate([block.basis for block in self._damped])
            return rotated.scaled_squared_norms([block.inverse for block in self._damped])
        rows = gradients.materialize()
        return tf.reduce_sum(rows * self.solve(rows), axis=1)

    def gram(self, sets: Sequence[BatchGradients]) -> tf.Tensor:
        """Return ``g_ikᵀ H⁻¹ g_il`` of K sets of gradients of one batch, shape ``(b, K, K)``.

        The sets are of one forward pass, and differ in what was sent back through it.
        """
        if not self.describes(sets[0]):
            return gram(sets, self.solve)
        bases = [block.basis for block in self._damped]
        rotated = [gradients.rotate(bases).blocks for gradients in sets]
        pairs = zip(zip(*rotated, strict=True), self._damped, strict=True)
        return tf.add_n([_gram(blocks, damped.inverse) for blocks, damped in pairs])

    def describes(self, gradients: BatchGradients) -> bool:
        """Tell whether gradients come in the blocks of this curvature.

        A layer whose rule the engine dropped after the fit comes in other ones.
        """
        theirs = [(placed.parts, placed.block.matrix_shape) for placed in gradients.blocks]
        mine = [
            (block.parts, block.values.shape if block.right is not None else None)
            for block in self.blocks
        ]
        pairs = zip(mine, theirs, strict=False)
        # A block may have a matrix shape and still be kept whole.
        same = all(a == b and (shape is None or shape == s) for (a, shape), (b, s) in pairs)
        return same and len(mine) == len(theirs)

    def _apply(self, vectors: tf.Tensor, scales: Sequence[tf.Tensor]) -> tf.Tensor:
        coordinates = [
            block.into(take_columns(vectors, block.parts, self._layout)) * scale
            for block, scale in zip(self._damped, scales, strict=True)
        ]
        return self.vectors(coordinates)


def _gram(blocks: Sequence[GradientBlock], scale: tf.Tensor) -> tf.Tensor:
    """Return ``Σ_j scale_j g_ikj g_ilj`` of K blocks of one layer, shape ``(b, K, K)``."""
    outer = [block for block in blocks if isinstance(block, OuterBlock)]
    if len(outer) == len(blocks):  # Σ (a² scale) δ_k δ_l
        along = tf.matmul(tf.square(outer[0].inputs), tf.reshape(scale, outer[0].matrix_shape))
        deltas = tf.stack([block.deltas for block in outer], axis=1)
        return tf.matmul(deltas * along[:, None], deltas, transpose_b=True)
    rows = tf.stack([block.rows() for block in blocks], axis=1)
    return tf.matmul(rows * tf.reshape(scale, (-1,)), rows, transpose_b=True)


class DampedBlock:
    """An `EigenBlock` and its damping, as tensors.

    Parameters
    ----------
    block, damping, dtype
        What it is made of.
    """

    def __init__(self, block: EigenBlock, damping: float, dtype: tf.DType) -> None:
        def constant(values: np.ndarray | None) -> tf.Tensor | None:
            return None if values is None else tf.constant(values, dtype)

        self.parts = block.parts
        self.shape = block.values.shape
        self.basis = Basis(constant(block.left), constant(block.right))
        damped = block.values + damping
        rounding = max(self.shape) * np.finfo(dtype.as_numpy_dtype).eps * damped.max()
        kept = damped > (0.0 if damping else rounding)
        inverse = np.divide(1.0, damped, where=kept, out=np.zeros_like(damped))
        self.values, self.inverse = tf.constant(damped, dtype), tf.constant(inverse, dtype)

    @property
    def is_kronecker(self) -> bool:
        """Whether the eigenvectors are a Kronecker product."""
        return self.basis.right is not None

    @property
    def tensors(self) -> tuple[tf.Tensor, ...]:
        """The eigenvalues, those of the inverse, and the bases that there are."""
        bases = (self.basis.left, self.basis.right)
        return (self.values, self.inverse, *(basis for basis in bases if basis is not None))

    def with_tensors(self, values: tf.Tensor, inverse: tf.Tensor, *bases: tf.Tensor) -> DampedBlock:
        """Return a block of the same form with other `tensors`."""
        twin = copy(self)
        twin.values, twin.inverse = values, inverse
        twin.basis = Basis(*bases) if bases else self.basis
        return twin

    def into(self, columns: tf.Tensor) -> tf.Tensor:
        """Return ``Uᵀ v`` for columns ``(k, q)``, shape ``(k, r, s)`` or ``(k, q)``."""
        left, right = self.basis.left, self.basis.right
        if left is None:
            return columns
        if right is None:
            return tf.matmul(columns, left)
        matrices = tf.reshape(columns, (-1, *self.shape))
        return tf.matmul(tf.matmul(left, matrices, transpose_a=True), right)

    def back(self, coordinates: tf.Tensor) -> tf.Tensor:
        """Return the columns ``(k, q)`` with these coordinates ``(k, r, s)`` or ``(k, q)``."""
        left, right = self.basis.left, self.basis.right
        if left is None:
            return coordinates
        if right is None:
            return tf.matmul(coordinates, left, transpose_b=True)
        turned = tf.matmul(left, tf.matmul(coordinates, right, transpose_b=True))
        return tf.reshape(turned, (-1, self.shape[0] * self.shape[1]))


def to_arrays(curvature: EigenbasisCurvature) -> dict[str, np.ndarray]:
    """Return what `from_arrays` makes the same curvature of."""
    arrays = {"damping": curvature.damping}
    for index, block in enumerate(curvature.blocks):
        arrays[f"parts_{index}"] = np.asarray(block.parts, np.int64)
        arrays[f"values_{index}"] = block.values
        arrays[f"is_outer_{index}"] = np.asarray(block.is_outer)
        if block.left is not None:
            arrays[f"left_{index}"] = block.left
        if block.right is not None:
            arrays[f"right_{index}"] = block.right
    return arrays


def from_arrays(
    arrays: Mapping[str, np.ndarray], layout: ParameterLayout, dtype: tf.DType
) -> EigenbasisCurvature:
    """Return the curvature that `to_arrays` was given."""
    damping = arrays["damping"]
    blocks = [
        EigenBlock(
            tuple(arrays[f"parts_{index}"].tolist()),
            arrays[f"values_{index}"],
            arrays.get(f"left_{index}"),
            arrays.get(f"right_{index}"),
            bool(arrays[f"is_outer_{index}"]),
        )
        for index in range(len(damping))
    ]
    return EigenbasisCurvature(layout, blocks, damping, dtype)
