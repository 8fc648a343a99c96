"""Comparison of the layer rules with plain automatic differentiation on a few examples."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import LayerRuleWarning, UnsupportedModelError
from ..types import Batch
from ..utils.running import quiet_tensorflow
from .engine import GradientEngine, RuledLayer
from .fallback import MODES
from .independence import HALF_PRECISION, check_examples

NUM_EXAMPLES = 3
NUM_TRIED = 16
# Half precision keeps some three digits, of which a deep network loses one or two.
TOLERANCES = {"float64": 1e-8, "float32": 2e-3}
HALF_TOLERANCE = 0.1


def probe_rules(engine: GradientEngine, batch: Batch) -> bool:
    """Move every layer whose rule disagrees to automatic differentiation, with a warning.

    Parameters
    ----------
    engine
        The engine to check.
    batch
        A batch of real data; the first examples that have a gradient are used.

    Returns
    -------
    Whether there were two such examples, so that the comparison means something.

    Raises
    ------
    DeelInfluenceError
        As `check_examples` raises them: if the examples have no gradients of their own.
    """
    check_examples(engine.model, batch)
    few, reference = _examples_with_gradients(engine, batch)
    _drop(engine, _unreadable(engine, few), "is not called once per batch of examples")
    while engine.ruled:
        disagreeing = _disagreeing(engine, few, reference)
        if not disagreeing:
            break
        _drop(engine, disagreeing, "does not agree with automatic differentiation")
    if engine.fallback_variables:
        _check_fallback(engine, few, reference)
    return bool(np.count_nonzero(np.any(reference, axis=1)) > 1)


def _examples_with_gradients(engine: GradientEngine, batch: Batch) -> tuple[Batch, np.ndarray]:
    """Return some examples, with a gradient if possible, and the gradients of each alone."""
    some = tf.nest.map_structure(lambda t: t[:NUM_TRIED], batch)
    reference = _reference(engine, tf.nest.map_structure(lambda t: t[:NUM_EXAMPLES], batch))
    if np.all(np.any(reference, axis=1)):
        return tf.nest.map_structure(lambda t: t[:NUM_EXAMPLES], batch), reference
    reference = _reference(engine, some)
    # Those with a gradient first; the sort is stable.
    chosen = np.argsort(~np.any(reference, axis=1), kind="stable")[:NUM_EXAMPLES]
    few = tf.nest.map_structure(lambda t: tf.gather(tf.convert_to_tensor(t), chosen), some)
    return few, reference[chosen]


def _reference(engine: GradientEngine, batch: Batch) -> np.ndarray:
    """Return the gradients ``(b, p)`` of the examples, each computed alone."""
    count = int(tf.shape(tf.nest.flatten(batch)[0])[0])
    rows = []
    for i in range(count):
        single = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], batch)
        rows.append(engine.model.batch_gradient_tensor(single).numpy())
    return np.stack(rows)


def _unreadable(engine: GradientEngine, batch: Batch) -> list[RuledLayer]:
    """Return the ruled layers whose calls cannot be read.

    That is a call inside a loop or a vectorised map (its tensors belong to an inner graph), on
    something other than the batch (positions, say), or no call at all.
    """
    count = int(tf.shape(tf.nest.flatten(batch)[0])[0])
    forward = engine.forward(batch, [])
    bad = []
    for ruled, taps in zip(engine.ruled, forward.taps, strict=True):
        readable = bool(taps) and all(
            _is_of_batch(tap.inputs, count) and _is_of_batch(tap.output, count) for tap in taps
        )
        if readable:
            engine.note_calls(ruled, taps)
        else:
            bad.append(ruled)
    return bad


def _is_of_batch(tensor: Any, count: int) -> bool:
    if not isinstance(tensor, tf.Tensor) or tf.is_symbolic_tensor(tensor):
        return False
    return tensor.shape.rank > 0 and tensor.shape[0] == count


def _disagreeing(engine: GradientEngine, batch: Batch, reference: np.ndarray) -> list[RuledLayer]:
    """Return the ruled layers whose gradients differ from the reference."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        forward = engine.forward(batch, [tape])
        total = tf.reduce_sum(forward.losses)
    flat = [tap.output for taps in forward.taps for tap in taps]
    deltas = iter(tape.gradient(total, flat, unconnected_gradients="zero"))
    bad = []
    for ruled, taps in zip(engine.ruled, forward.taps, strict=True):
        blocks = engine.blocks_of(ruled, [(tap, next(deltas)) for tap in taps])
        rows = [(placed.parts, placed.block.rows().numpy()) for placed in blocks]
        if not all(_agrees(engine, ruled, parts, value, reference) for parts, value in rows):
            bad.append(ruled)
    return bad


def _agrees(
    engine: GradientEngine,
    ruled: RuledLayer | None,
    parts: tuple[int, ...],
    rows: np.ndarray,
    reference: np.ndarray,
) -> bool:
    slots = [engine.model.layout.slots[part] for part in parts]
    expected = np.concatenate([reference[:, start:end] for start, end in slots], axis=1)
    if rows.shape != expected.shape:
        return False
    # Non-finite gradients say nothing about the rule; the scores' own check reports them.
    if not np.all(np.isfinite(expected)):
        return True
    scale = max(np.linalg.norm(expected), 1e-6 * np.linalg.norm(reference))
    return bool(np.linalg.norm(rows - expected) <= _tolerance(engine, ruled) * scale)


def _tolerance(engine: GradientEngine, ruled: RuledLayer | None) -> float:
    layers = [ruled.layer] if ruled else engine.model.layers
    if any(layer.compute_dtype in HALF_PRECISION for layer in layers):
        return HALF_TOLERANCE
    return TOLERANCES[engine.model.dtype.name]


def _check_fallback(engine: GradientEngine, batch: Batch, reference: np.ndarray) -> None:
    """Choose the fastest way of going through the examples that works and is exact.

    Raises
    ------
    UnsupportedModelError
        If none gives the gradients of the examples computed alone.
    """
    reasons = []
    for mode in MODES:
        engine.fallback_mode = mode
        try:
            with quiet_tensorflow():
                agrees = _fallback_agrees(engine, batch, reference)
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
    if engine.fallback_mode == "sequential":
        names = [v.path for v in engine.fallback_variables]
        message = (
            f"Automatic differentiation cannot be vectorised ({'; '.join(reasons)}) for the "
            f"variables {names}; it takes one example after the other, which is slow. Watching "
            "only other layers avoids it."
        )
        warnings.warn(message, LayerRuleWarning, stacklevel=2)


def _fallback_agrees(engine: GradientEngine, batch: Batch, reference: np.ndarray) -> bool:
    compute = tf.function(lambda: engine.fallback_rows(batch), autograph=False)
    position = engine.model.layout.position
    return all(
        _agrees(engine, None, (position(variable),), rows.numpy(), reference)
        for variable, rows in zip(engine.fallback_variables, compute(), strict=True)
    )


def _drop(engine: GradientEngine, ruled: list[RuledLayer], reason: str) -> None:
    if not ruled:
        return
    layers: list[keras.layers.Layer] = [item.layer for item in ruled]
    engine.drop_rules(layers)
    names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in layers)
    message = (
        f"The fast gradient rule of layer {names} {reason} in this model; automatic "
        "differentiation serves it instead, exact but slower."
    )
    warnings.warn(message, LayerRuleWarning, stacklevel=2)
