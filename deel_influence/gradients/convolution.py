"""Per-example gradients of convolution kernels, offset by offset.

The gradient of a kernel entry at offset k is the product of the inputs shifted by k with the
output gradients, summed over positions. One batched matrix product for each of the few offsets:
measured on CPU, that is two to seven times as fast as extracting patches or vectorising the
filter gradient, and works for any number of space axes.

Shifting copies the inputs once for each offset, which is most of the time for large images with
few channels. There the shift is made free: with the batch and the padded space axes merged into
one, it is a slice of the first axis, which TensorFlow does not copy. The output gradients are
padded to the same grid, so that positions that slide off the edge of an image meet zeros.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import tensorflow as tf

from .blocks import FactoredBlock, gram_squared_norms, prefers_gram

CACHE_LINE = 64
"""Bytes to which TensorFlow aligns rows that it slices without copying."""

MAX_GRID_RATIO = 1.2
"""Up to this many grid positions for each output position, sliding beats shifting."""


@dataclass(frozen=True)
class ConvolutionGeometry:
    """What the shifted inputs of a convolution depend on.

    Attributes
    ----------
    kernel_size, strides, dilation
        One integer for each space axis.
    padding
        ``"valid"``, ``"same"`` or ``"causal"``.
    groups
        Number of channel groups.
    """

    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    groups: int = 1

    @property
    def num_offsets(self) -> int:
        """Number of kernel positions."""
        return math.prod(self.kernel_size)

    def pads(self, x: tf.Tensor) -> list[list]:
        """Return the zeros before and after each space axis of ``(b, *space, c)``."""
        if self.padding == "valid":
            return [[0, 0] for _ in self.kernel_size]
        shape = tf.shape(x)
        pads: list[list] = []
        for axis, (k, s, d) in enumerate(
            zip(self.kernel_size, self.strides, self.dilation, strict=True), start=1
        ):
            reach = (k - 1) * d
            if self.padding == "causal":
                pads.append([reach, 0])
                continue
            size = x.shape[axis]
            if size is not None:
                total = max((-(-size // s) - 1) * s + reach + 1 - size, 0)
            else:
                total = tf.maximum((-(-shape[axis] // s) - 1) * s + reach + 1 - shape[axis], 0)
            pads.append([total // 2, total - total // 2])
        return pads

    def shifted(self, x: tf.Tensor, out_space: tuple) -> list[tf.Tensor]:
        """Return, for each kernel offset in row-major order, the inputs that it meets.

        Parameters
        ----------
        x
            Inputs ``(b, *space, c)``.
        out_space
            Sizes of the output's space axes.

        Returns
        -------
        Tensors ``(b, *out_space, c)``.
        """
        phases = self._phases(x)
        views = []
        for offset in itertools.product(*(range(k) for k in self.kernel_size)):
            reach = zip(offset, self.dilation, self.strides, strict=True)
            starts = [divmod(o * d, s) for o, d, s in reach]
            window = [slice(q, q + n) for (q, _), n in zip(starts, out_space, strict=True)]
            phase = phases[tuple(r for _, r in starts)]
            views.append(phase[tuple([slice(None), *window])])
        return views

    def _phases(self, x: tf.Tensor) -> dict[tuple[int, ...], tf.Tensor]:
        """Return the padded inputs, apart by what is left of their positions modulo the strides.

        What an offset meets at every stride is without gaps in one of them. TensorFlow copies
        slices with gaps some three times as slowly.
        """
        grid, pads = [], []
        sizes = zip(out_space_of(x), self.pads(x), self.strides, strict=True)
        for size, (before, after), s in sizes:
            n = -(-(size + before + after) // s)
            grid.append(n)
            pads.append([before, n * s - size - before])
        padded = tf.pad(x, [[0, 0], *pads, [0, 0]])
        if all(s == 1 for s in self.strides):
            return {(0,) * len(grid): padded}
        folded = [part for pair in zip(grid, self.strides, strict=True) for part in pair]
        split = tf.reshape(padded, (tf.shape(x)[0], *folded, x.shape[-1]))
        axes = range(1, len(folded) + 1)
        apart = tf.transpose(split, (*axes[1::2], 0, *axes[::2], len(folded) + 1))
        return {rest: apart[rest] for rest in itertools.product(*map(range, self.strides))}

    def slides(self, x: tf.Tensor, delta: tf.Tensor) -> bool:
        """Tell whether `slid` applies and pays.

        Rows must fill whole cache lines, or TensorFlow copies them after all; and the grid must
        not be much larger than the outputs, whose padding costs multiplications.
        """
        known = x.shape[1:].is_fully_defined() and all(s == 1 for s in self.strides)
        if not known or (int(x.shape[-1]) * x.dtype.size) % CACHE_LINE:
            return False
        grid = math.prod(self._grid(x))
        return self.num_offsets > 1 and grid <= MAX_GRID_RATIO * math.prod(delta.shape[1:-1])

    def slid(self, x: tf.Tensor, delta: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return shifted inputs as slices of one array, and the output gradients on its grid.

        Parameters
        ----------
        x
            Inputs ``(b, *space, c)``.
        delta
            Gradients ``(b, *out_space, o)``.

        Returns
        -------
        For each offset a tensor ``(b, t, c)``, and the gradients ``(b, t, o)``, t the size of the
        padded grid.
        """
        grid = self._grid(x)
        b, t, channels = tf.shape(x)[0], math.prod(grid), int(x.shape[-1])
        # One example of zeros more, for the last one to slide into.
        flat = tf.reshape(tf.pad(x, [[0, 1], *self.pads(x), [0, 0]]), (-1, channels))
        rest = [[0, n - m] for n, m in zip(grid, delta.shape[1:-1], strict=True)]
        deltas = tf.reshape(tf.pad(delta, [[0, 0], *rest, [0, 0]]), (b, t, int(delta.shape[-1])))
        steps = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
        views = []
        for offset in itertools.product(*(range(k) for k in self.kernel_size)):
            start = sum(o * d * n for o, d, n in zip(offset, self.dilation, steps, strict=True))
            views.append(tf.reshape(flat[start : start + b * t], (b, t, channels)))
        return views, deltas

    def _grid(self, x: tf.Tensor) -> list[int]:
        """Return the sizes of the padded space axes, which must be known."""
        sizes = zip(x.shape[1:-1], self.pads(x), strict=True)
        return [size + before + after for size, (before, after) in sizes]


def out_space_of(delta: tf.Tensor) -> tuple:
    """Return the sizes of the space axes of ``(b, *space, c)``, static where they are known."""
    dynamic = tf.shape(delta)
    sizes = range(1, delta.shape.rank - 1)
    return tuple(delta.shape[i] if delta.shape[i] is not None else dynamic[i] for i in sizes)


class ConvolutionBlock(FactoredBlock):
    """Gradients of a convolution kernel, and of its bias.

    Parameters
    ----------
    x
        Inputs, channels last, shape ``(b, *space, i)``.
    delta
        Gradients in the pre-activation outputs, channels last, shape ``(b, *out_space, o)``.
    geometry
        The convolution's.
    bias
        Whether a bias follows the kernel.
    """

    def __init__(
        self, x: tf.Tensor, delta: tf.Tensor, geometry: ConvolutionGeometry, bias: bool
    ) -> None:
        self._x, self._delta, self._geometry, self._bias = x, delta, geometry, bias
        self._channels, self._filters = int(x.shape[-1]), int(delta.shape[-1])
        if geometry.groups == 1:
            rows = geometry.num_offsets * self._channels + bias
            self.matrix_shape = (rows, self._filters)

    def patches(self) -> tf.Tensor:
        """Return the inputs that each output position meets, shape ``(b, t, offsets·i)``."""
        views = self._geometry.shifted(self._x, out_space_of(self._delta))
        width = self._geometry.num_offsets * self._channels
        return tf.reshape(tf.concat(views, axis=-1), (tf.shape(self._x)[0], -1, width))

    def positions(self) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, deltas = self.patches(), self._flat_deltas()
        if self._bias:
            inputs = tf.concat([inputs, tf.ones_like(inputs[:, :, :1])], axis=2)
        return inputs, deltas

    def _build_rows(self) -> tf.Tensor:
        deltas = self._flat_deltas()
        size = math.prod(self._kernel_shape)
        kernel = tf.reshape(tf.stack(self._kernel_pieces(), axis=1), (-1, size))
        if not self._bias:
            return kernel
        return tf.concat([kernel, tf.reduce_sum(deltas, axis=1)], axis=1)

    def dot(self, vectors: tf.Tensor) -> tf.Tensor:
        if vectors.shape[0] != 1 or not self._is_plain:
            return super().dot(vectors)
        # δ times the convolution with the vector as its kernel: no product for each example.
        size = math.prod(self._kernel_shape)
        along = self._convolved(tf.reshape(vectors[0, :size], self._kernel_shape))
        if self._bias:
            along = tf.nn.bias_add(along, vectors[0, size:])
        b = tf.shape(along)[0]
        rows, columns = tf.reshape(along, (b, 1, -1)), tf.reshape(self._delta, (b, -1, 1))
        return tf.matmul(rows, columns)[:, 0]

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        if weights.shape[0] != 1 or not self._is_plain:
            return super().weighted_sum(weights)
        # What a training step computes: the backward pass of the convolution in its kernel.
        delta = self._delta * tf.reshape(weights[0], [-1, *[1] * (self._delta.shape.rank - 1)])
        kernel = tf.zeros(self._kernel_shape, delta.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernel)
            outputs = self._convolved(kernel)
        total = tf.reshape(tape.gradient(outputs, kernel, output_gradients=delta), (1, -1))
        if not self._bias:
            return total
        bias = tf.reduce_sum(delta, axis=list(range(delta.shape.rank - 1)))
        return tf.concat([total, bias[None]], axis=1)

    @property
    def _is_plain(self) -> bool:
        """Whether TensorFlow has the convolution and its derivative on every device."""
        return self._geometry.groups == 1 and set(self._geometry.dilation) == {1}

    @property
    def _kernel_shape(self) -> tuple[int, ...]:
        channels = self._channels // self._geometry.groups
        return (*self._geometry.kernel_size, channels, self._filters)

    def _convolved(self, kernel: tf.Tensor) -> tf.Tensor:
        """Return the inputs' convolution with a kernel, without a bias, shaped as the deltas."""
        geometry, x, padding = self._geometry, self._x, self._geometry.padding
        if padding == "causal":
            x, padding = tf.pad(x, [[0, 0], *geometry.pads(x), [0, 0]]), "valid"
        return tf.nn.convolution(
            x,
            kernel,
            strides=geometry.strides,
            padding=padding.upper(),
        )

    def squared_norms(self) -> tf.Tensor:
        positions = math.prod(n if n is not None else 0 for n in self._delta.shape[1:-1])
        if positions and self.matrix_shape and prefers_gram(positions, *self.matrix_shape):
            return gram_squared_norms(self.patches(), self._flat_deltas(), self._bias)
        # Each piece is summed up while it is in the cache; joining them first costs two copies.
        pieces = self._kernel_pieces()
        sums = [tf.reduce_sum(tf.square(p), axis=tuple(range(1, p.shape.rank))) for p in pieces]
        if self._bias:
            bias = tf.reduce_sum(self._flat_deltas(), axis=1)
            sums.append(tf.reduce_sum(tf.square(bias), axis=1))
        return tf.add_n(sums)

    def _kernel_pieces(self) -> list[tf.Tensor]:
        """Return the kernel's gradient at each offset, ``(b, i, o)`` or ``(b, i/g, g, o/g)``."""
        b, groups = tf.shape(self._x)[0], self._geometry.groups
        if self._geometry.slides(self._x, self._delta):
            views, deltas = self._geometry.slid(self._x, self._delta)
        else:
            shifted = self._geometry.shifted(self._x, out_space_of(self._delta))
            views = [tf.reshape(view, (b, -1, self._channels)) for view in shifted]
            deltas = self._flat_deltas()
        if groups == 1:
            return [tf.matmul(view, deltas, transpose_a=True) for view in views]
        split = tf.reshape(deltas, (b, -1, groups, self._filters // groups))
        parts = [tf.reshape(v, (b, -1, groups, self._channels // groups)) for v in views]
        return [tf.einsum("btgi,btgo->bigo", part, split) for part in parts]

    def _flat_deltas(self) -> tf.Tensor:
        return tf.reshape(self._delta, (tf.shape(self._delta)[0], -1, self._filters))


def depthwise_rows(
    x: tf.Tensor, delta: tf.Tensor, geometry: ConvolutionGeometry, multiplier: int
) -> tf.Tensor:
    """Return the gradients of a depthwise kernel ``(*kernel, i, multiplier)``.

    Parameters
    ----------
    x
        Inputs, channels last, shape ``(b, *space, i)``.
    delta
        Gradients in the outputs, shape ``(b, *out_space, i·multiplier)``.
    geometry
        The convolution's.
    multiplier
        Outputs of each channel.

    Returns
    -------
    Rows ``(b, offsets·i·multiplier)``.
    """
    b, channels = tf.shape(x)[0], int(x.shape[-1])
    deltas = tf.reshape(delta, (b, -1, channels, multiplier))
    pieces = []
    for view in geometry.shifted(x, out_space_of(delta)):
        flat = tf.reshape(view, (b, -1, channels, 1))
        pieces.append(tf.reduce_sum(flat * deltas, axis=1))
    size = geometry.num_offsets * channels * multiplier
    return tf.reshape(tf.stack(pieces, axis=1), (b, size))
