"""The exact inverse of a dense curvature matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import tensorflow as tf

from ..curvature.dense import check_dense_memory, dense_curvature, regularizer_hessian
from ..curvature.flat import check_curved
from ..errors import CurvatureWarning
from ..linalg.dense_inverse import DenseInverse, decided_eigenpairs, rounding_cutoff
from ..linalg.eigen import eigenpairs
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Data
from ..utils.arguments import settings_in
from ..utils.separable import Separated
from .base import InverseHessianVectorProduct
from .damping import (
    AUTO,
    NEGATIVE_MARGIN,
    automatic_damping,
    check_damping,
    damping_vector,
    resolve_damping,
)
from .left_out import warn_if_lost


class ExactIHVP(InverseHessianVectorProduct):
    """Invert ``H = C + damping·I`` by its eigenvalues, with C a dense curvature matrix.

    A direction is left out (the Moore-Penrose pseudo-inverse) where the data have no curvature
    above the rounding of C, and neither damping nor regulariser adds any: the softmax, for one,
    leaves C singular whatever the data. `num_dropped` tells how many there are. For one Dense
    layer C has a closed form; see `deel_influence.curvature.closed_form`. Products are in float64.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set; not needed with ``train_hessian``.
    train_hessian
        A symmetric curvature matrix ``(p, p)`` to use instead of the data; the damping is
        added to it.
    curvature
        ``"hessian"`` or ``"gauss_newton"``: see `deel_influence.curvature.dense_curvature`.
    damping
        Added to the diagonal: a number, ``"auto"`` (a tenth of the mean eigenvalue of C and, where
        the smallest is negative, 1.1 times its size on top), or one number for each watched layer.
    rcond
        A cut-off of one's own: eigenvalues of H of size ``rcond · max |λ|`` and less are left
        out, damped or not, and without a warning. None leaves out what is rounding.
    regularizer
        Whether the Hessian of the model's regularisers belongs to C.
    n_samples_for_hessian
        How many examples to draw for C; None takes all.
    seed
        Fixes that draw.
    verbose
        As in Keras.

    Raises
    ------
    CurvatureSizeError
        If the matrix does not fit in the free memory.
    ValueError
        For a matrix of another shape, a negative damping, or neither data nor matrix.

    Warns
    -----
    CurvatureWarning
        If H has negative eigenvalues: the weights are no minimum of the training objective. If
        directions are left out that carry a part of the training gradients or, in `solve`, of the
        vectors.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf
    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.randn(64, 3).astype("float32"), np.random.randn(64, 1).astype("float32")
    >>> net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    >>> from deel_influence.model import InfluenceModel
    >>> data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    >>> ihvp = ExactIHVP(InfluenceModel(net, loss_function="mse"), data, verbose=0)
    >>> bool(np.allclose(ihvp.hessian, 2 * x.T @ x / 64, atol=1e-5))
    True
    """

    name = "exact"

    damping_values: np.ndarray
    """The damping of each watched layer, float64, shape ``(layers,)``."""

    cutoff: float
    """The size below which an eigenvalue of H is rounding; with ``rcond``, what that comes to."""

    fits_by_sums = True
    separable = True
    settings = ("n_samples_for_hessian", "seed")

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        train_hessian: Any = None,
        *,
        curvature: str = "hessian",
        damping: Any = 0.0,
        rcond: float | None = None,
        regularizer: bool = True,
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        verbose: str | int = "auto",
    ) -> None:
        config = settings_in(locals())
        check_influence_model(model)
        config["damping"] = check_damping(damping, model.layout)
        config["rcond"] = _checked_rcond(rcond)
        super().__init__(model, train_dataset, config)
        if train_hessian is not None:
            check_dense_memory(model)
            self._fit(_checked_matrix(train_hessian, model.nb_params), None)
            return
        if train_dataset is None:
            message = (
                "Argument `train_dataset` or `train_hessian` must be given: ExactIHVP needs data "
                "or a matrix. Received: neither. Pass the training set."
            )
            raise ValueError(message)
        data = self._fit_dataset()
        check_dense_memory(model, self.train_dataset, curvature)
        found = dense_curvature(model, data, curvature, False, verbose)
        self._note_size(found.num_examples)
        regularized = regularizer and model.is_regularized
        self._fit(found.matrix, regularizer_hessian(model) if regularized else None)
        if rcond is None and self.train_dataset is not None:
            warn_if_lost(self._inverse, self.engine, data, type(self).__name__)

    @property
    def hessian(self) -> np.ndarray:
        """The damped curvature matrix H, float64, shape ``(p, p)``, without C's rounding."""
        return self._dense.numpy()

    @property
    def inv_hessian(self) -> np.ndarray:
        """The pseudo-inverse of H, float64, shape ``(p, p)``."""
        return self._inverse.matrix.numpy()

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues of H, ascending, float64, shape ``(p,)``; 0 where all is rounding."""
        return self._eigenvalues

    @property
    def smallest_eigenvalue(self) -> float:
        """The smallest eigenvalue of H; negative where the weights are no minimum."""
        return float(self._eigenvalues[0])

    @property
    def condition_number(self) -> float:
        """``max |λ| / min |λ|`` over the eigenvalues that the pseudo-inverse keeps."""
        kept = np.abs(self._eigenvalues[self._kept])
        return float(kept.max() / kept.min()) if kept.size else np.inf

    @property
    def num_dropped(self) -> int:
        """How many directions the pseudo-inverse leaves out."""
        return int(np.sum(~self._kept))

    def _fit(self, matrix: np.ndarray, penalty: np.ndarray | None) -> None:
        """Add penalty and damping to a curvature, which is overwritten, and invert the sum."""
        config, layout = self.config, self.model.layout
        is_automatic = config["damping"] == AUTO
        is_damped = not is_automatic and np.min(config["damping"]) > 0
        largest = float(np.abs(matrix).max(initial=0.0))
        check_curved(largest, type(self).__name__, penalty is not None or is_damped)
        rounding = rounding_cutoff(matrix, self.model.dtype)
        if penalty is not None:
            matrix += penalty
        if is_automatic:
            values, vectors = eigenpairs(matrix)
        self.damping_values = resolve_damping(
            config["damping"], layout, lambda: automatic_damping(values.mean(), values[0])
        )
        damping = damping_vector(self.damping_values, layout)
        if is_automatic:
            values += damping
        else:
            matrix[np.diag_indices_from(matrix)] += damping
            values, vectors = eigenpairs(matrix)
        self.cutoff = rounding
        if config["rcond"] is None:
            values, vectors = decided_eigenpairs(
                values, vectors, damping, penalty, rounding, self.model.dtype
            )
        else:
            self.cutoff = float(config["rcond"] * np.abs(values).max())
        self._set_eigenpairs(values, vectors)
        self._warn_if_no_minimum(max(self.cutoff, rounding))

    def _set_eigenpairs(self, values: np.ndarray, vectors: np.ndarray) -> None:
        """Take the eigenpairs of H; `cutoff` is known."""
        self._eigenvalues, self._vectors = values, vectors
        has_own = self.config["rcond"] is not None
        self._kept = np.abs(values) > (self.cutoff if has_own else 0.0)
        self._inverse = DenseInverse(values, vectors, self._kept, self.cutoff)
        self._dense = tf.constant((vectors * values) @ vectors.T)

    def _separated(self) -> Separated:
        def over(tensors: list[tf.Tensor]) -> ExactIHVP:
            inverse = copy(self._inverse)
            inverse.matrix = tensors[0]
            return self._altered(_inverse=inverse, _dense=tensors[1])

        return Separated((), [self._inverse.matrix, self._dense], over)

    def _warn_if_no_minimum(self, rounding: float) -> None:
        smallest = self.smallest_eigenvalue
        if smallest >= -rounding:
            return
        message = (
            f"The curvature has negative eigenvalues, the smallest {smallest:.3g} (condition "
            f"number {self.condition_number:.3g}): the weights are no minimum of the training "
            f"objective, so that influence has no clear meaning along them. Train further, use "
            f"curvature='gauss_newton', or pass {self._better_damping()} or more."
        )
        warnings.warn(message, CurvatureWarning, stacklevel=4)

    def _better_damping(self) -> str:
        """Return the damping that makes H positive definite, as an argument."""
        given = self.config["damping"]
        if not isinstance(given, float):
            return 'damping="auto"'
        return f"damping={given - NEGATIVE_MARGIN * self.smallest_eigenvalue:.2g}"

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        products = self._inverse.apply(vectors)
        if tf.executing_eagerly() and self.config["rcond"] is None:
            self._inverse.warn_if_lost(vectors, products, type(self).__name__, stacklevel=3)
        return tf.cast(products, self.model.dtype)

    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(tf.cast(vectors, tf.float64), self._dense)
        return tf.cast(product, self.model.dtype)

    def _state(self) -> dict[str, np.ndarray]:
        return {
            "eigenvalues": self._eigenvalues,
            "eigenvectors": self._vectors,
            "damping": self.damping_values,
            "cutoff": np.asarray(self.cutoff),
        }

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        check_dense_memory(self.model)
        self.cutoff = float(state["cutoff"])
        self._set_eigenpairs(state["eigenvalues"], state["eigenvectors"])
        self.damping_values = state["damping"]


def _checked_rcond(rcond: Any) -> float | None:
    if rcond is None:
        return None
    number = isinstance(rcond, (int, float, np.number)) and not isinstance(rcond, bool)
    if not number or not 0 <= rcond < 1:
        message = f"Argument `rcond` must be None or a number in [0, 1). Received: {rcond!r}."
        raise ValueError(message)
    return float(rcond)


def _checked_matrix(matrix: Any, p: int) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (p, p):
        message = (
            f"Argument `train_hessian` must have shape ({p}, {p}), one row and column for each "
            f"watched parameter. Received: shape {matrix.shape}."
        )
        raise ValueError(message)
    if not np.all(np.isfinite(matrix)):
        message = "Argument `train_hessian` must be finite. Received: NaN or infinite entries."
        raise ValueError(message)
    scale = max(float(np.abs(matrix).max(initial=0.0)), np.finfo(np.float64).tiny)
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-4 * scale):
        message = (
            "Argument `train_hessian` must be symmetric. Received: a matrix that differs from "
            f"its transpose by up to {np.abs(matrix - matrix.T).max():.3g}."
        )
        raise ValueError(message)
    return (matrix + matrix.T) / 2
