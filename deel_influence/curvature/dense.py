"""Dense curvature matrices ``(p, p)``, accumulated batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..errors import CurvatureSizeError
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..linalg.checks import check_choice
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch, Data
from ..utils.datasets import Item, batch_size_of, check_dataset
from ..utils.memory import available_bytes, human_bytes
from ..utils.running import run
from ..utils.takes_data import takes_data
from .closed_form import assemble_closed_form, closed_form_of_batch, has_closed_form
from .hessian_rows import gradient_bytes, hessian_of_batch, smallest_bytes
from .sampling import expected_gradients
from .sums import PartialFit, PlainSum, total_over

KINDS = ("hessian", "gauss_newton")

COPIES_NEEDED = 5
"""Matrix, eigenvectors, inverse and LAPACK's workspace, in float64."""


@dataclass(frozen=True)
class DenseCurvature:
    """A curvature matrix of the mean loss.

    Attributes
    ----------
    matrix
        Symmetric, float64, shape ``(p, p)``: the mean over examples, plus the regulariser's
        Hessian if it was asked for; no damping.
    num_examples
        How many examples it is the mean of.
    """

    matrix: np.ndarray
    num_examples: int


@takes_data
def dense_curvature(
    model: BaseInfluenceModel,
    dataset: Data | PartialFit,
    kind: str = "hessian",
    regularizer: bool = True,
    verbose: str | int = "auto",
) -> DenseCurvature:
    """Compute the Hessian or the Gauss-Newton matrix of the mean loss over a dataset.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        A batched dataset, or the parts of a fit.
    kind
        ``"hessian"``: ``(1/n) Σ ∇²ℓ(z_i)``. ``"gauss_newton"``: ``(1/n) Σ J_iᵀ S_i J_i`` with J the
        Jacobian of the outputs (before the last layer's activation) and S the Hessian of the
        loss in them; positive semidefinite for convex losses.
    regularizer
        Whether the Hessian of ``R(θ)`` is added.
    verbose
        As in Keras.

    Raises
    ------
    ValueError
        For an unknown kind.
    BatchError
        If TensorFlow refuses a batch; the message names it.
    NonFiniteError
        If a batch gives NaN or infinity; the message names it.
    """
    check_choice("curvature", kind, KINDS)
    check_influence_model(model)
    if not isinstance(dataset, PartialFit):
        check_dataset(dataset, "dataset", model.input_rank)
    engine = GradientEngine.of(model)

    def compute(data: Pass) -> tuple[dict, np.ndarray]:
        total = np.zeros(())
        ids: list[np.ndarray] = []
        for item in data.items(engine):
            part = _of_batch(engine, kind, item)
            # Sums over many batches are in float64; each batch is computed in the model's dtype.
            total = np.add(total, part, out=total) if ids else part.astype(np.float64)
            ids.append(item.ids)
        return {(): PlainSum(_assembled(engine, kind, total))}, np.concatenate(ids)

    totals, count = total_over(dataset, "Curvature", compute, verbose)
    matrix = totals[()].total / count
    if regularizer:
        matrix = matrix + regularizer_hessian(model)
    return DenseCurvature((matrix + matrix.T) / 2, count)


@takes_data
def check_dense_memory(
    model: BaseInfluenceModel,
    dataset: Data | None = None,
    kind: str = "hessian",
    remedy: str = "or use ihvp_calculator='ekfac' or 'cgd', which need no matrix",
) -> None:
    """Refuse a curvature that does not fit in memory together with its inverse.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        What `dense_curvature` would be computed of; None where the matrix is there.
    kind
        As for `dense_curvature`.
    remedy
        What else can be done than to watch fewer layers.

    Raises
    ------
    CurvatureSizeError
        Says how much is needed, and how much is free.
    """
    p, free = model.nb_params, available_bytes()
    needed = COPIES_NEEDED * 8 * p**2
    if dataset is not None and free is not None and needed <= free:
        needed += _working_bytes(model, dataset, kind)
    if free is not None and needed > free:
        message = (
            f"A dense curvature of {p} parameters needs about {human_bytes(needed)} of memory, "
            f"its inverse included, and {human_bytes(free)} are free. Watch fewer layers "
            f"(InfluenceModel(model, start_layer=...)), {remedy}."
        )
        raise CurvatureSizeError(message)


def _working_bytes(model: BaseInfluenceModel, dataset: tf.data.Dataset, kind: str) -> int:
    """Return the least memory that the terms of the sum over examples take."""
    engine = GradientEngine.of(model)
    batch = next(Pass(dataset, "dataset", in_order=False).items(engine)).batch
    if kind == "gauss_newton":
        return batch_size_of(batch) * (gradient_bytes(model, batch) + 2 * 4 * model.nb_params)
    if has_closed_form(engine):
        return batch_size_of(batch) * gradient_bytes(model, batch)
    return smallest_bytes(model, batch)


def regularizer_hessian(model: BaseInfluenceModel) -> np.ndarray:
    """Return ``∇²R(θ)``, float64, shape ``(p, p)``."""
    p = model.nb_params
    if not model.is_regularized:
        return np.zeros((p, p))
    values = [v.value for v in model.weights]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        gradient = model.regularization_gradient()
    rows = tape.jacobian(gradient, values, unconnected_gradients="zero")
    return model.layout.flatten_rows(rows).numpy().astype(np.float64)


def _of_batch(engine: GradientEngine, kind: str, item: Item) -> np.ndarray:
    """Return the sum over the examples of a batch, in the form that `_assembled` takes."""
    if kind == "hessian" and not has_closed_form(engine):
        return hessian_of_batch(engine, item)
    compute = _gauss_newton_of_batch if kind == "gauss_newton" else closed_form_of_batch
    kernel = engine.kernel(("curvature", kind), lambda batch: compute(engine, batch))
    return run(kernel, item, (item.batch,), axis=None).numpy()


def _assembled(engine: GradientEngine, kind: str, total: np.ndarray) -> np.ndarray:
    if kind == "hessian" and has_closed_form(engine):
        return assemble_closed_form(engine, total)
    return total


def _gauss_newton_of_batch(engine: GradientEngine, batch: Batch) -> tf.Tensor:
    """Return ``Σ_i J_iᵀ S_i J_i``, shape ``(p, p)``: K sets of gradients have it for their mean."""
    sets = expected_gradients(engine, batch)
    total = tf.zeros((engine.model.nb_params,) * 2, engine.model.dtype)
    for gradients in sets:
        rows = gradients.materialize()
        total += tf.matmul(rows, rows, transpose_a=True)
    return total / len(sets)
