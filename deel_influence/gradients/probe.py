"""Comparison of the layer rules with plain automatic differentiation on a few examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import LayerRuleWarning, UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from ..utils.running import quiet_tensorflow
from .fallback import MODES
from .independence import HALF_PRECISION, check_examples
from .plan import Plan, RuledLayer

NUM_EXAMPLES = 3
NUM_TRIED = 16
# Half precision keeps some three digits, of which a deep network loses one or two.
TOLERANCES = {"float64": 1e-8, "float32": 2e-3}
HALF_TOLERANCE = 0.1


def settle(plan: Plan, batch: Batch) -> Plan:
    """Return the plan in which every rule agrees with automatic differentiation.

    A layer whose rule does not is moved there, with a warning.

    Parameters
    ----------
    plan
        The plan to check.
    batch
        A batch of real data; the first examples that have a gradient are used.

    Returns
    -------
    The plan, settled if there were two such examples, so that the comparison means something.

    Raises
    ------
    DeelInfluenceError
        As `check_examples` raises them: if the examples have no gradients of their own.
    """
    check_examples(plan.model, batch)
    few, reference = _examples_with_gradients(plan.model, batch)
    plan = _readable(plan, few)
    while plan.ruled:
        disagreeing = _disagreeing(plan, few, reference)
        if not disagreeing:
            break
        plan = _without(plan, disagreeing, "does not agree with automatic differentiation")
    if plan.fallback_variables:
        plan = _with_fallback(plan, few, reference)
    settled = bool(np.count_nonzero(np.any(reference, axis=1)) > 1)
    return replace(plan, is_settled=settled)


def _examples_with_gradients(model: BaseInfluenceModel, batch: Batch) -> tuple[Batch, np.ndarray]:
    """Return some examples, with a gradient if possible, and the gradients of each alone."""
    some = tf.nest.map_structure(lambda t: t[:NUM_TRIED], batch)
    reference = _reference(model, tf.nest.map_structure(lambda t: t[:NUM_EXAMPLES], batch))
    if np.all(np.any(reference, axis=1)):
        return tf.nest.map_structure(lambda t: t[:NUM_EXAMPLES], batch), reference
    reference = _reference(model, some)
    # Those with a gradient first; the sort is stable.
    chosen = np.argsort(~np.any(reference, axis=1), kind="stable")[:NUM_EXAMPLES]
    few = tf.nest.map_structure(lambda t: tf.gather(tf.convert_to_tensor(t), chosen), some)
    return few, reference[chosen]


def _reference(model: BaseInfluenceModel, batch: Batch) -> np.ndarray:
    """Return the gradients ``(b, p)`` of the examples, each computed alone."""
    count = int(tf.shape(tf.nest.flatten(batch)[0])[0])
    rows = []
    for i in range(count):
        single = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], batch)
        rows.append(model.batch_gradient_tensor(single).numpy())
    return np.stack(rows)


def _readable(plan: Plan, batch: Batch) -> Plan:
    """Return the plan with the ranks of the inputs of all layers whose calls can be read.

    Others are those that are called inside a loop or a vectorised map (their tensors belong to an
    inner graph), on something other than the batch (positions, say), or not at all.
    """
    count = int(tf.shape(tf.nest.flatten(batch)[0])[0])
    forward = plan.forward(batch, [])
    good, bad = [], []
    for ruled, taps in zip(plan.ruled, forward.taps, strict=True):
        readable = bool(taps) and all(
            _is_of_batch(tap.inputs, count) and _is_of_batch(tap.output, count) for tap in taps
        )
        if readable:
            ranks = tuple(tap.inputs.shape.rank for tap in taps)
            good.append(replace(ruled, input_ranks=ranks))
        else:
            bad.append(ruled)
    _tell_of_dropped(bad, "is not called once per batch of examples")
    return replace(plan, ruled=tuple(good))


def _is_of_batch(tensor: Any, count: int) -> bool:
    if not isinstance(tensor, tf.Tensor) or tf.is_symbolic_tensor(tensor):
        return False
    return tensor.shape.rank > 0 and tensor.shape[0] == count


def _disagreeing(plan: Plan, batch: Batch, reference: np.ndarray) -> list[RuledLayer]:
    """Return the ruled layers whose gradients differ from the reference."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        forward = plan.forward(batch, [tape])
        total = tf.reduce_sum(forward.losses)
    flat = [tap.output for taps in forward.taps for tap in taps]
    deltas = iter(tape.gradient(total, flat, unconnected_gradients="zero"))
    bad = []
    for ruled, taps in zip(plan.ruled, forward.taps, strict=True):
        blocks = plan.blocks_of(ruled, [(tap, next(deltas)) for tap in taps])
        rows = [(placed.parts, placed.block.rows().numpy()) for placed in blocks]
        if not all(_agrees(plan, ruled, parts, value, reference) for parts, value in rows):
            bad.append(ruled)
    return bad


def _agrees(
    plan: Plan,
    ruled: RuledLayer | None,
    parts: tuple[int, ...],
    rows: np.ndarray,
    reference: np.ndarray,
) -> bool:
    slots = [plan.model.layout.slots[part] for part in parts]
    expected = np.concatenate([reference[:, start:end] for start, end in slots], axis=1)
    if rows.shape != expected.shape:
        return False
    # Non-finite gradients say nothing about the rule; the scores' own check reports them.
    if not np.all(np.isfinite(expected)):
        return True
    scale = max(np.linalg.norm(expected), 1e-6 * np.linalg.norm(reference))
    return bool(np.linalg.norm(rows - expected) <= _tolerance(plan, ruled) * scale)


def _tolerance(plan: Plan, ruled: RuledLayer | None) -> float:
    layers = [ruled.layer] if ruled else plan.model.layers
    if any(layer.compute_dtype in HALF_PRECISION for layer in layers):
        return HALF_TOLERANCE
    return TOLERANCES[plan.model.dtype.name]


def _with_fallback(plan: Plan, batch: Batch, reference: np.ndarray) -> Plan:
    """Choose the fastest way of going through the examples that works and is exact.

    Raises
    ------
    UnsupportedModelError
        If none gives the gradients of the examples computed alone.
    """
    reasons = []
    for mode in MODES:
        plan = replace(plan, fallback_mode=mode)
        try:
            with quiet_tensorflow():
                agrees = _fallback_agrees(plan, batch, reference)
        # What TensorFlow cannot vectorise it reports with various exceptions; the reason goes
        # into the warning below.
        except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
            reasons.append(f"{mode}: {type(error).__name__}")
            continue
        if agrees:
            break
        reasons.append(f"{mode}: other gradients")
    else:
        message = (
            "The per-example gradients of the model could not be confirmed against the gradients "
            f"of single examples ({'; '.join(reasons)}). Is the model random in inference mode?"
        )
        raise UnsupportedModelError(message)
    if plan.fallback_mode == "sequential":
        names = [v.path for v in plan.fallback_variables]
        message = (
            f"Automatic differentiation cannot be vectorised ({'; '.join(reasons)}) for the "
            f"variables {names}; it takes one example after the other, which is slow. Watching "
            "only other layers avoids it."
        )
        warnings.warn(message, LayerRuleWarning, stacklevel=2)
    return plan


def _fallback_agrees(plan: Plan, batch: Batch, reference: np.ndarray) -> bool:
    compute = tf.function(lambda: plan.fallback_rows(batch), autograph=False)
    position = plan.model.layout.position
    return all(
        _agrees(plan, None, (position(variable),), rows.numpy(), reference)
        for variable, rows in zip(plan.fallback_variables, compute(), strict=True)
    )


def _without(plan: Plan, dropped: Sequence[RuledLayer], reason: str) -> Plan:
    _tell_of_dropped(dropped, reason)
    return plan.without(ruled.layer for ruled in dropped)


def _tell_of_dropped(dropped: Sequence[RuledLayer], reason: str) -> None:
    if not dropped:
        return
    layers = [ruled.layer for ruled in dropped]
    names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in layers)
    message = (
        f"The fast gradient rule of layer {names} {reason} in this model; automatic "
        "differentiation serves it instead, exact but slower."
    )
    warnings.warn(message, LayerRuleWarning, stacklevel=2)
