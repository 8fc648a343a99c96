"""Compiled functions of a batch that are traced once, whatever the size of the last batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import tensorflow as tf

from .derivatives import check_derivatives, derivatives_checked


def relax(spec: Any) -> Any:
    """Return a tensor's type with an unknown size of its first axis."""
    if isinstance(spec, tf.TensorSpec) and spec.shape.rank:
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    return spec


def _as_tensor(value: Any) -> Any:
    return value if tf.is_tensor(value) else tf.convert_to_tensor(value)


def _form(value: Any) -> Any:
    """Return what decides on the trace: the nest, and each tensor's dtype and shape but the first.

    This runs at every call, so it stays clear of the slower type specs where it can.
    """
    if isinstance(value, tf.Tensor):
        return value.dtype, value.shape.rank, tuple(value.shape[1:]) if value.shape.rank else ()
    if isinstance(value, dict):
        return tuple((name, _form(value[name])) for name in sorted(value))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_form(part) for part in value)
    return relax(tf.type_spec_from_value(value))


class Kernel:
    """A function of tensors, compiled once for each form of its arguments.

    The first axis of every tensor argument counts as unknown, so that a partial last batch, or
    more query vectors, need no second trace.

    Parameters
    ----------
    function
        Takes nests of tensors and returns a nest of tensors; Python state must stay out of it.
    jit_compile
        Whether XLA compiles it, once for each shape that comes.
    compiled
        Whether it is compiled at all; a function that cannot be is run as it is.
    state
        Tensors that the function takes in a list before its arguments, at every call the same.
    traces
        Where compiled forms are kept. Kernels whose functions differ in their state alone may have
        one in common.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        jit_compile: bool = False,
        compiled: bool = True,
        state: Sequence[tf.Tensor] | None = None,
        traces: dict[Any, Any] | None = None,
    ) -> None:
        self._function = function
        self.is_compiled = compiled
        self._jit_compile = jit_compile
        self._state = None if state is None else list(state)
        self._state_specs = [tf.TensorSpec(t.shape, t.dtype) for t in self._state or ()]
        # A text, whose hash is kept: calls look it up.
        self._state_form = str(self._state_specs)
        self._concrete: dict[Any, Any] = {} if traces is None else traces

    @property
    def num_traces(self) -> int:
        """How often the function has been traced so far."""
        return len(self._concrete)

    def __call__(self, *arguments: Any, device: str | None = None) -> Any:
        """Run the compiled function, on ``device`` if one is given.

        Raises
        ------
        MissingDerivativeError
            If TensorFlow does not have a derivative that the function takes.
        """
        return self._run(None, arguments, device)

    def checked(
        self, *arguments: Any, device: str | None = None, looked_at: tuple[int, ...] = (0,)
    ) -> tuple[Any, tf.Tensor]:
        """Run the compiled function, and tell whether the result and some arguments are finite.

        The sums of their numbers are what is looked at, so that False may be the overflow of a
        sum. A call and a checked call are compiled apart.

        Parameters
        ----------
        arguments, device
            As for a call.
        looked_at
            Which arguments are looked at, by their positions.
        """
        return self._run(looked_at, arguments, device)

    def _run(self, looked_at: tuple[int, ...] | None, arguments: tuple, device: str | None) -> Any:
        flat = tf.nest.flatten(arguments)
        if not all(isinstance(value, tf.Tensor) for value in flat):
            arguments = tf.nest.map_structure(_as_tensor, arguments)
            flat = tf.nest.flatten(arguments)
        # `tf.device(None)` would leave the scope of a surrounding device.
        placed = nullcontext() if device is None else tf.device(device)
        state = self._state or []
        with placed, derivatives_checked():
            if not self.is_compiled:
                return self._computed(looked_at, arguments, state)
            key = (looked_at, _form(arguments), device, self._state_form)
            if key not in self._concrete:
                self._concrete[key] = self._trace(looked_at, arguments, flat)
            return self._concrete[key](*state, *flat)

    def _computed(self, looked_at: tuple[int, ...] | None, arguments: tuple, state: list) -> Any:
        given = () if self._state is None else (state,)
        result = self._function(*given, *arguments)
        if looked_at is None:
            return result
        parts = [
            tf.math.is_finite(tf.reduce_sum(part))
            for part in tf.nest.flatten(([arguments[place] for place in looked_at], result))
            if isinstance(part, tf.Tensor) and part.dtype.is_floating
        ]
        return result, tf.reduce_all(tf.stack(parts)) if parts else tf.constant(True)

    def _trace(self, looked_at: tuple[int, ...] | None, arguments: Any, flat: list) -> Any:
        first = len(self._state_specs)

        def run(*given: Any) -> Any:
            packed = tf.nest.pack_sequence_as(arguments, given[first:])
            return self._computed(looked_at, packed, list(given[:first]))

        specs = [*self._state_specs, *(relax(tf.type_spec_from_value(value)) for value in flat)]
        # Layers and losses of Keras need no AutoGraph, and `fit` does not convert them either.
        compiled = tf.function(
            run, input_signature=specs, autograph=False, jit_compile=self._jit_compile or None
        )
        concrete = compiled.get_concrete_function()
        check_derivatives(concrete.graph)
        return concrete
