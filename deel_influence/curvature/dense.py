"""Dense curvature matrices ``(p, p)``, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError
from ..gradients.engine import GradientEngine
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch
from ..utils.datasets import batch_size_of, check_dataset, numbered_batches
from ..utils.progress import progress_bar
from ..utils.running import call, check_finite_inputs, quiet_tensorflow
from .closed_form import assemble_closed_form, closed_form_of_batch, has_closed_form
from .sampling import expected_gradients

KINDS = ("hessian", "gauss_newton")


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


def dense_curvature(
    model: BaseInfluenceModel,
    dataset: tf.data.Dataset,
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
        A batched dataset.
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
    if kind not in KINDS:
        message = f"Argument `curvature` must be one of {KINDS}. Received: {kind!r}."
        raise ValueError(message)
    check_influence_model(model)
    check_dataset(dataset, "dataset", model.input_rank)
    engine = GradientEngine.of(model)
    total: tf.Tensor = tf.zeros((), tf.float64)
    count = 0
    batches = numbered_batches(dataset)
    for index, (batch, ids) in enumerate(progress_bar(batches, "Curvature", verbose=verbose)):
        check_finite_inputs(batch, index, ids)
        engine.prepare(batch)
        kernel = engine.kernel(("curvature", kind), _kernel_function(engine, kind))
        part, finite = call(kernel, index, ids, (batch,))
        if not bool(finite):
            message = (
                f"The curvature is not finite: batch {index} (examples {ids[0]} to {ids[-1]}) "
                "gives NaN or infinity. Check its inputs and labels."
            )
            raise NonFiniteError(message)
        # Sums over many batches are kept in float64; each batch is computed in the model's dtype.
        total += tf.cast(part, tf.float64)
        count += batch_size_of(batch)
    matrix = _assembled(engine, kind, total.numpy() / count)
    if regularizer:
        matrix = matrix + regularizer_hessian(model)
    return DenseCurvature((matrix + matrix.T) / 2, count)


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


def _kernel_function(engine: GradientEngine, kind: str) -> Callable[[Batch], tuple]:
    if kind == "gauss_newton":
        compute = _gauss_newton_of_batch
    elif has_closed_form(engine):
        compute = closed_form_of_batch
    else:
        compute = _hessian_of_batch

    def run(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        part = compute(engine, batch)
        return part, tf.math.is_finite(tf.reduce_sum(part))

    return run


def _assembled(engine: GradientEngine, kind: str, mean: np.ndarray) -> np.ndarray:
    if kind == "hessian" and has_closed_form(engine):
        return assemble_closed_form(engine, mean)
    return mean


def _hessian_of_batch(engine: GradientEngine, batch: Batch) -> tf.Tensor:
    """Return ``Σ_i ∇²ℓ(z_i)`` by reverse-over-reverse differentiation, shape ``(p, p)``."""
    model = engine.model
    values = [v.value for v in model.weights]
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch(values)
        gradient = model.batch_gradient_tensor(batch)
    rows = _jacobian(tape, gradient, values)
    return model.layout.flatten_rows([tf.convert_to_tensor(row) for row in rows])


def _jacobian(tape: tf.GradientTape, target: tf.Tensor, sources: list) -> list[tf.Tensor]:
    """Differentiate each entry of ``target``, side by side where TensorFlow can."""
    try:
        with quiet_tensorflow():
            return tape.jacobian(target, sources, unconnected_gradients="zero")
    except (ValueError, TypeError, NotImplementedError):
        # TensorFlow cannot vectorise second derivatives of loops (recurrent layers). One entry
        # after the other works for every model, and fails with the true reason if there is one.
        return tape.jacobian(
            target, sources, unconnected_gradients="zero", experimental_use_pfor=False
        )


def _gauss_newton_of_batch(engine: GradientEngine, batch: Batch) -> tf.Tensor:
    """Return ``Σ_i J_iᵀ S_i J_i``, shape ``(p, p)``: K sets of gradients have it for their mean."""
    sets = expected_gradients(engine, batch)
    total = tf.zeros((engine.model.nb_params,) * 2, engine.model.dtype)
    for gradients in sets:
        rows = gradients.materialize()
        total += tf.matmul(rows, rows, transpose_a=True)
    return total / len(sets)
