"""Which positions of a sequence are padding, as far as Keras's masks and the loss tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..model.keras_internals import keras_mask
from ..model.loss_weights import position_weights, weighs_positions
from ..types import Batch
from .capture import Forward, Tap


@dataclass(frozen=True)
class KnownMasks:
    """The masks of a forward pass: true where there is something, false at padding.

    Attributes
    ----------
    of_layers
        The masks that came to the layers of the model, bool, shapes ``(b, ...)``.
    of_loss
        Which positions have a weight in the loss or are masked, bool, shape ``(b, ...)``; one
        mask where positions may have none, else no mask.
    """

    of_layers: tuple[tf.Tensor, ...] = ()
    of_loss: tuple[tf.Tensor, ...] = ()


NO_MASKS = KnownMasks()


def known_masks(model: BaseInfluenceModel, batch: Batch, forward: Forward) -> KnownMasks:
    """Return the masks of a forward pass of a batch."""
    of_layers = tuple(forward.masks)
    if not weighs_positions(model, batch, forward.outputs):
        return KnownMasks(of_layers)
    counted = position_weights(model, batch, forward.outputs) != 0
    mask = keras_mask(forward.outputs)
    if mask is not None:
        # What Keras masks is known already, and to the layers that it concerns.
        axes = [1] * (counted.shape.rank - mask.shape.rank)
        counted |= ~tf.reshape(tf.cast(mask, tf.bool), (*tf.unstack(tf.shape(mask)), *axes))
    return KnownMasks(of_layers, (counted,))


def padding_of(
    uses: Sequence[tuple[Tap, tf.Tensor]], width: int, known: KnownMasks
) -> tf.Tensor | None:
    """Return which positions of a layer may be padding, bool, shape ``(b, t)``.

    A mask on the inputs of a layer tells. Many masks do not come as far: attention takes them off
    its inputs, and a layer that is distributed over time is called step by step. There, every
    mask of the model with as many positions tells, so that the answer may go too far: positions
    that receive a gradient are none of the padding.

    Parameters
    ----------
    uses
        The calls of the layer in order, with the gradients in their outputs.
    width
        The number s of output gradients at a position.
    known
        The masks of the forward pass.

    Returns
    -------
    None where nothing tells.
    """
    sizes = [_num_positions(delta, width) for _, delta in uses]
    parts = [
        _of_use(tap, delta, size, known) for (tap, delta), size in zip(uses, sizes, strict=True)
    ]
    whole = []
    if len(uses) > 1:
        lost = all(tap.mask is None for tap, _ in uses)
        masks = (*(known.of_layers if lost else ()), *known.of_loss)
        whole = _padding_of_size(masks, sum(sizes))
    if not whole and all(part is None for part in parts):
        return None
    nothing = [
        tf.zeros((tf.shape(delta)[0], size), tf.bool)
        for (_, delta), size in zip(uses, sizes, strict=True)
    ]
    told = [
        other if part is None else part | other for part, other in zip(parts, nothing, strict=True)
    ]
    return _any_of([tf.concat(told, axis=1), *whole])


def _of_use(
    tap: Tap, delta: tf.Tensor, size: int | tf.Tensor, known: KnownMasks
) -> tf.Tensor | None:
    """Return which positions of one call may be padding, bool, shape ``(b, size)``, or None."""
    if delta.shape.rank < 3:
        return None
    told = _padding_of_size(known.of_loss, size)
    if tap.mask is None:
        told += _padding_of_size(known.of_layers, size)
    elif tap.mask.shape.rank > 1:
        # It may lack the last of the layer's positions, which share their entry.
        told.append(_spread(tap.mask, size))
    return _any_of(told) if told else None


def _padding_of_size(masks: Sequence[tf.Tensor], size: int | tf.Tensor) -> list[tf.Tensor]:
    """Return where masks of so many positions have padding, bool, shapes ``(b, size)``."""
    return [
        _spread(mask, size) & (_num_positions(mask) == size)
        for mask in masks
        if _may_be(_num_positions(mask), size)
    ]


def _may_be(count: int | tf.Tensor, size: int | tf.Tensor) -> bool:
    known = isinstance(count, int) and isinstance(size, int)
    return not known or count == size


def _spread(mask: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """Return where a mask has padding, each entry for equally many positions, ``(b, size)``.

    Nowhere if that does not come out even.
    """
    count = _num_positions(mask)
    entries = tf.range(size) * count // size
    padding = tf.gather(~tf.reshape(mask, (tf.shape(mask)[0], count)), entries, axis=1)
    return padding & (size % count == 0)


def _num_positions(tensor: tf.Tensor, width: int = 1) -> int | tf.Tensor:
    """Return the size of an example of ``(b, ...)`` over ``width``; an int where it is known."""
    shape = tensor.shape[1:]
    if shape.is_fully_defined():
        return int(shape.num_elements()) // width
    return tf.reduce_prod(tf.shape(tensor)[1:]) // width


def _any_of(paddings: Sequence[tf.Tensor]) -> tf.Tensor:
    total = paddings[0]
    for padding in paddings[1:]:
        total |= padding
    return total
