"""How much alike the model sees two examples."""

from __future__ import annotations

import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..linalg.checks import check_choice
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import LayerKey
from ..types import Batch
from .features import Features

_METRICS = ("cosine", "dot", "euclidean")


class RepresentationSimilarity(BaseInfluenceCalculator):
    """Score a training example by how near its representation is to that of the query [1]_.

    With φ the inputs of a layer, the score is ``cos(φ(z), φ(z_i))``, ``φ(z)ᵀ φ(z_i)`` or
    ``-‖φ(z) - φ(z_i)‖``. It knows of no label: a near example helps if it has the label of the
    query and hurts if it has another, so that the score is never a prediction of a loss. It is a
    cheap baseline, of one forward pass and d numbers for each example.

    Parameters
    ----------
    model
        The wrapped model.
    layer
        Name or index of the layer whose inputs are compared; None takes the last one that has
        trainable weights.
    metric
        ``"cosine"``, ``"dot"`` or ``"euclidean"``.

    Raises
    ------
    ValueError
        If there is no such metric.

    References
    ----------
    .. [1] K. Hanawa, S. Yokoi, S. Hara, K. Inui. Evaluation of Similarity-based Explanations. ICLR
       2021.
    """

    _zeros_are_usual = True

    def __init__(
        self, model: BaseInfluenceModel, layer: LayerKey = None, metric: str = "cosine"
    ) -> None:
        super().__init__(model)
        check_choice("metric", metric, _METRICS)
        self._features = Features(model, layer)
        self._metric = metric

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        features = self._features.of_batch(batch)
        return tf.math.l2_normalize(features, axis=1) if self._metric == "cosine" else features

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self._train_vectors(batch)

    def _pairwise(self, queries: tf.Tensor, train: tf.Tensor) -> tf.Tensor:
        products = tf.matmul(queries, train, transpose_b=True)
        return -_distances(queries, train) if self._metric == "euclidean" else products

    @property
    def has_products(self) -> bool:
        return self._metric != "euclidean"

    def _vector_settings(self) -> tuple:
        return self._metric, self._features.position


def _distances(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return ``‖r_i - c_j‖``, shape ``(m, b)``.

    The squared differences are added up feature by feature: ``‖r‖² + ‖c‖² - 2 rᵀc`` would lose the
    digits of small distances.
    """

    def from_row(row: tf.Tensor) -> tf.Tensor:
        return tf.norm(columns - row, axis=1)

    return tf.map_fn(from_row, rows)
