"""Representer points of a head that is fitted again with an L2 regulariser."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import ConvergenceWarning
from ..gradients.passes import Pass
from ..linalg.checks import check_count, check_positive
from ..model.fingerprint import check_unchanged_since, model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import LayerKey
from ..types import Batch, Data
from ..utils.datasets import Item
from ..utils.kernels import Kernel
from ..utils.running import run
from .base import BaseRepresenterPoint
from .likelihood import LogitLoss
from .refit import HeadObjective, Part, Refit, refit


@dataclass(frozen=True)
class _FittedHead:
    """A head at the minimum of its regularised loss.

    Attributes
    ----------
    loss
        The loss and the targets.
    fit
        Its weights, and how well they are fitted.
    regularization, num_examples
        λ and n.
    """

    loss: LogitLoss
    fit: Refit
    regularization: float
    num_examples: int

    def alpha(self, batch: Batch, features: tf.Tensor) -> tf.Tensor:
        """Return ``-(1 / (2λn)) ∂ℓ_i/∂logits_i``, float64, shape ``(b, c)``; traceable.

        It is a small difference divided by a small number, which float32 would not leave right.
        """
        targets, importance = self.loss.targets(batch, features)
        logits = tf.matmul(tf.cast(features, tf.float64), self.fit.weights)
        scale = -2 * self.regularization * self.num_examples
        return self.loss.derivative(logits, targets, importance) / scale


class RepresenterPointL2(BaseRepresenterPoint):
    """Representer values ``α_i`` of a head at a stationary point of its regularised loss [1]_.

    The last Dense layer is fitted again, on a copy, to the minimum of ``(1/n) Σ ℓ_i + λ ‖W‖²``
    over the features f of the model. There

        W = Σ_i α_i f_iᵀ,    α_i = -(1 / (2λn)) ∂ℓ_i/∂logits_i,

    so that ``logits(z) = Σ_i α_i (f_i · f)``, and the score of z_i for class c of z is
    ``α_ic (f_i · f)``. Positive: z_i supports that class. A bias counts as the weight of a
    feature of one, and is regularised with the rest.

    The score of an example alone is its largest ``|α_ic|``, that of the class of its label, by
    which the authors look for wrong labels. There, α is always that of a head that has learnt the
    labels: in the values of one that has learnt the model's predictions, they have no part.

    The features of the training set and its targets, n·(r + c) numbers, are held in memory while
    the head is fitted; after that, everything is streamed.

    Parameters
    ----------
    model
        The wrapped model, or a Keras model.
    train_set
        The batched training set, n examples.
    loss_function
        The loss; None takes that of the wrapped model, or the compiled one.
    lambda_regularization
        λ; its default is the authors'. A large one makes the head differ from the model's, a
        small one leaves few examples with all the weight.
    scaling_factor
        Without effect: Newton steps have no learning rate.
    epochs
        Bound on the Newton steps; some ten are enough.
    target_layer
        Name or index of the Dense layer that gives the logits; None finds it.
    targets
        ``"model"``: the head learns what the model predicts, as in the paper, and the values
        explain this model. ``"labels"``: it learns the labels. Scores of examples alone are the
        same either way; with ``"model"`` a second head is fitted when they are first asked for.
    query_class
        Which class of a query is looked at: ``"predicted"``, ``"label"``, or an index. An index
        holds for examples alone as well.
    tolerance
        The fit has converged where ``‖∇‖ <= tolerance · ‖2λW‖``, that is, where the sum above
        gives W to this relative error.

    Attributes
    ----------
    residual_gradient_norm
        ``‖∇‖`` of the regularised loss at the fitted head.
    relative_residual
        ``‖∇‖ / ‖2λW‖``.
    num_steps
        Newton steps taken.
    converged
        Whether the tolerance was reached; a `ConvergenceWarning` is given if not.
    head_weights
        The fitted W, the bias in its last row, float64, shape ``(r, c)``.

    Raises
    ------
    SavedCurvatureError
        While scoring, if the model has been trained further since the fit.

    References
    ----------
    .. [1] C.-K. Yeh, J. S. Kim, I. E. H. Yen, P. Ravikumar. Representer Point Selection for
       Explaining Deep Neural Networks. NeurIPS 2018.
    """

    def __init__(
        self,
        model: BaseInfluenceModel | keras.Model,
        train_set: Data,
        loss_function: Any = None,
        lambda_regularization: float = 0.003,
        scaling_factor: float = 0.1,  # noqa: ARG002 - kept for users of Influenciae
        epochs: int = 100,
        target_layer: LayerKey = None,
        targets: str = "model",
        query_class: str | int = "predicted",
        tolerance: float = 1e-9,
    ) -> None:
        self.lambda_regularization = check_positive("lambda_regularization", lambda_regularization)
        check_count("epochs", epochs)
        check_positive("tolerance", tolerance)
        super().__init__(model, train_set, loss_function, target_layer, query_class)
        self.targets = targets
        self._fitted_on = model_fingerprint(self.model)
        self._limits = tolerance, epochs
        self._fitted = self._fit(targets)
        self.num_train_examples, fit = self._fitted.num_examples, self._fitted.fit
        self.head_weights = fit.weights.numpy()
        self.residual_gradient_norm = fit.gradient_norm
        self.relative_residual = fit.relative_residual
        self.num_steps, self.converged = fit.num_steps, fit.converged

    def representer_values(self, train_set: Data, device: str | None = None) -> np.ndarray:
        """Return ``α_i`` of the examples of a dataset, shape ``(n, c)``."""
        data = Pass(train_set, device=device).checked(self.engine)
        r = self.head.num_features
        return np.concatenate([rows.numpy()[:, r:] for _, rows in self._vectors(data)])

    def scored_batches(
        self, *args: Any, **kwargs: Any
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        _ = self._fitted_to_labels  # before the scores are traced, which a fit cannot be
        yield from super().scored_batches(*args, **kwargs)

    def _packed(self) -> dict[str, Any]:
        _ = self._fitted_to_labels  # which takes the data
        return super()._packed()

    def _stream(self, data: Pass) -> Iterator[Item]:
        check_unchanged_since(self._fitted_on, self.model, type(self).__name__)
        return super()._stream(data)

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        """Return ``(f_i, α_i)`` side by side, shape ``(b, r + c)``."""
        features = self._features(batch)
        alpha = self._fitted.alpha(batch, features)
        return tf.concat([features, tf.cast(alpha, features.dtype)], axis=1)

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        """Return the features and what picks the class, side by side, shape ``(b, r + c)``."""
        forward = self.head.forward(batch)
        chosen = self._class_weights(batch, self.head.logits(forward))
        return tf.concat([self.head.features(forward), chosen], axis=1)

    def _pairwise(self, queries: tf.Tensor, train: tf.Tensor) -> tf.Tensor:
        r = self.head.num_features
        kernel = tf.matmul(queries[:, :r], train[:, :r], transpose_b=True)
        return kernel * tf.matmul(queries[:, r:], train[:, r:], transpose_b=True)

    def _values_by_class(self, features: tf.Tensor, batch: Batch) -> tf.Tensor:
        train, r = self._train_vectors(batch), self.head.num_features
        kernel = tf.matmul(features, train[:, :r], transpose_b=True)
        return kernel[:, None] * tf.transpose(train[:, r:])[None]

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        forward = self.head.forward(batch)
        features = self.head.features(forward)
        alpha = tf.cast(self._fitted_to_labels.alpha(batch, features), features.dtype)
        if self.query_class == "predicted":
            # What is predicted has no part in whether a label is wrong. The largest value is that
            # of the label's class: those of the others add up to it, with the sign reversed.
            return tf.reduce_max(tf.abs(alpha), axis=1)
        chosen = self._class_weights(batch, self.head.logits(forward))
        return tf.abs(tf.reduce_sum(chosen * alpha, axis=1))

    def _kernel_weights(self) -> tf.Tensor:
        return self._summed(Pass(self.train_dataset, in_order=False), self._weighted_features)

    def _weighted_features(self, batch: Batch) -> tf.Tensor:
        """Return ``Σ f_i α_iᵀ`` over a batch, float64, shape ``(r, c)``."""
        features = self._features(batch)
        alpha = self._fitted.alpha(batch, features)
        return tf.matmul(tf.cast(features, tf.float64), alpha, transpose_a=True)

    def _vector_settings(self) -> tuple:
        fitted = hashlib.sha256(self.head_weights.tobytes()).hexdigest()
        return self.lambda_regularization, self.num_train_examples, self.targets, fitted

    @cached_property
    def _fitted_to_labels(self) -> _FittedHead:
        return self._fitted if self.targets == "labels" else self._fit("labels")

    def _fit(self, targets: str) -> _FittedHead:
        loss, (tolerance, epochs) = LogitLoss(self.head, targets), self._limits
        objective = HeadObjective(loss, self._read_parts(loss), self.lambda_regularization)
        fit = refit(objective, self.head.weights(), tolerance, epochs)
        if not fit.converged:
            warnings.warn(_not_converged(fit, tolerance), ConvergenceWarning, stacklevel=3)
        return _FittedHead(loss, fit, self.lambda_regularization, objective.num_examples)

    def _read_parts(self, loss: LogitLoss) -> list[Part]:
        """Return what the fit needs of each batch of the training set."""

        def part_of(batch: Batch) -> tuple[tf.Tensor, Any, tf.Tensor]:
            features = self._features(batch)
            return features, *loss.targets(batch, features)

        kernel, data = Kernel(part_of), Pass(self.train_dataset, in_order=False)
        items = self._stream(data)
        return [Part(*run(kernel, item, (item.batch,), axis=0)) for item in items]


def _not_converged(fit: Refit, tolerance: float) -> str:
    return (
        f"RepresenterPointL2: the head is at no stationary point. Its gradient is "
        f"{fit.gradient_norm:.2g}, {fit.relative_residual:.2g} of the regulariser's, "
        f"after {fit.num_steps} steps, where {tolerance:g} was asked for, and the kernel "
        "misses the head's logits by as much. Raise `epochs`, `lambda_regularization` or "
        "`tolerance`; a loss that is not smooth and convex in the logits may have no such "
        "point."
    )
