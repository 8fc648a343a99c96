"""What the options of the commands have to know of each method, without loading TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

from .options import Method


@dataclass(frozen=True)
class Traits:
    """How a method goes with the options.

    Attributes
    ----------
    takes_strategy
        Whether it compares gradients in the metric of ``--ihvp``.
    takes_weights
        Whether its scores depend on ``--weights``.
    watches_training
        Whether a trained model is not enough.
    needs_classes
        Whether it scores a classifier only.
    """

    takes_strategy: bool = False
    takes_weights: bool = False
    watches_training: bool = False
    needs_classes: bool = False


_GRADIENTS = Traits(takes_weights=True)
_IN_METRIC = Traits(takes_strategy=True, takes_weights=True)
_CLASSES = Traits(needs_classes=True)
_DYNAMICS = Traits(watches_training=True, needs_classes=True)

TRAITS: dict[Method, Traits] = {
    Method.influence: _IN_METRIC,
    Method.relatif: _IN_METRIC,
    Method.label_issues: _CLASSES,
    Method.newton_step: _GRADIENTS,
    Method.arnoldi: _GRADIENTS,
    Method.tracin: Traits(takes_weights=True, watches_training=True),
    Method.tracin_fast: Traits(watches_training=True),
    Method.grad_dot: _GRADIENTS,
    Method.grad_cos: _GRADIENTS,
    Method.trak: Traits(takes_weights=True, needs_classes=True),
    Method.representer_l2: _CLASSES,
    # Its strategy is fitted on the layer that gives the logits, whatever is watched.
    Method.representer_lje: Traits(takes_strategy=True, needs_classes=True),
    Method.sample_boundary: _CLASSES,
    Method.weights_boundary: Traits(takes_weights=True, needs_classes=True),
    Method.knn_shapley: _CLASSES,
    Method.similarity: Traits(),
    Method.aum: _DYNAMICS,
    Method.forgetting: _DYNAMICS,
    Method.el2n: _DYNAMICS,
    Method.grand: Traits(),
    Method.loss: Traits(),
    Method.entropy: _CLASSES,
    Method.margin: _CLASSES,
}
"""The traits of all methods."""
