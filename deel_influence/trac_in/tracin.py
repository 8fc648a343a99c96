"""Influence as the sum over checkpoints of what the steps of training did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..calculators.checkpointed import CheckpointedCalculator
from ..gradients.engine import GradientEngine
from ..gradients.projections.registry import ProjectionLike
from ..model.checkpoints import (
    Checkpoints,
    CopiedCheckpoints,
    LiveCheckpoint,
    WeightSource,
    check_live_model,
)
from ..model.copies import BuildFunction
from ..model.fingerprint import weights_digest
from ..model.influence_model import BaseInfluenceModel
from ..model.manifest import read_checkpoints
from ..model.measurements import Measurement, measured_model
from ..types import Batch
from .features import resolve_features

Model: TypeAlias = BaseInfluenceModel | WeightSource | str | Path
"""A live model, or where the weights of one are."""


@dataclass(frozen=True)
class _Term:
    """One summand: the engines of training examples and of queries, and the learning rate."""

    train: GradientEngine
    query: GradientEngine
    rate: tf.Tensor | tf.Variable


class TracIn(CheckpointedCalculator):
    """Influence ``Σ_t η_t g_t(z)ᵀ g_t(z_i)`` over checkpoints t of training (TracInCP) [1]_.

    g_t is the gradient with the weights of checkpoint t, and η_t the learning rate there. Positive:
    steps on z_i have lowered the loss on z. The self-influence is ``Σ_t η_t ‖g_t(z_i)‖²``, the
    influence vector of an example its gradients times ``√η_t`` side by side, of T·p numbers.

    Live models are scored together, in one pass over the data. With ``model=`` the checkpoints are
    loaded, one at a time, into one copy of it, and ``models`` may hold files.

    Parameters
    ----------
    models
        The checkpoints: `InfluenceModel` objects with the same watched weights, or with ``model=``
        also the paths of files that `keras.Model.load_weights` reads (``.weights.h5``, ``.keras``,
        ``.h5``).
    learning_rates
        The learning rate at each checkpoint, or one for all.
    model
        The wrapped model that files are weights of. It tells the layers, the loss and the watched
        weights, and is left as it is.
    build
        Makes a Keras model with the layers of ``model``, where Keras cannot clone it.
    projection
        A random projection of the gradients, the same at all checkpoints; see
        `resolve_projection`. None compares them whole.
    projection_dim
        How many numbers of each checkpoint's gradient a projection leaves; see
        `resolve_projection`.
    seed
        Fixes the projection.
    measurement
        Another number than the loss that is looked at on the queries; see
        `BaseInfluenceCalculator`.

    References
    ----------
    .. [1] G. Pruthi, F. Liu, S. Kale, M. Sundararajan. Estimating Training Data Influence by
       Tracing Gradient Descent. NeurIPS 2020.
    """

    _made_again = frozenset({"_terms", "_features"})

    def __init__(
        self,
        models: Sequence[Model],
        learning_rates: float | Sequence[float],
        model: BaseInfluenceModel | None = None,
        build: BuildFunction | None = None,
        projection: ProjectionLike = None,
        projection_dim: Any = None,
        seed: int = 0,
        measurement: Measurement = None,
    ) -> None:
        sources = _as_list(models)
        self.learning_rates = checked_rates(learning_rates, len(sources))
        self._live = [] if model is not None else _checked_live(sources)
        super().__init__(_checkpoints(sources, model, build), measurement)
        self._rate = tf.Variable(self.learning_rates[0], trainable=False, dtype=self.model.dtype)
        self._asked = projection, projection_dim, seed
        self._make_terms()

    def _make_terms(self) -> None:
        loaded = _Term(self.engine, self.query_engine, self._rate)
        self._terms = self._live_terms(self.measurement) if self._live else [loaded]
        self._features = resolve_features(*self._asked, self.model, self._engines)

    def _make_again(self) -> None:
        super()._make_again()
        self._make_terms()

    @classmethod
    def from_folder(cls, model: BaseInfluenceModel, folder: str | Path, **settings: Any) -> TracIn:
        """Return the calculator for all checkpoints that a `CheckpointRecorder` wrote.

        Parameters
        ----------
        model
            The wrapped model that was trained, or one with the same layers.
        folder
            The folder of the recorder. The learning rates are those that it noted.
        **settings
            Other arguments of the constructor.

        Raises
        ------
        DataSourceError
            If there are no checkpoints in the folder, or one of them is damaged.
        """
        recorded = read_checkpoints(folder)
        sources = [checkpoint.source for checkpoint in recorded]
        rates = [checkpoint.learning_rate for checkpoint in recorded]
        return cls(sources, rates, model=model, **settings)

    @property
    def models(self) -> list[BaseInfluenceModel]:
        """The live models; none where the checkpoints are loaded into one (`checkpoints`)."""
        return list(self._live)

    @property
    def _engines(self) -> tuple[GradientEngine, ...]:
        return tuple(engine for term in self._terms for engine in (term.train, term.query))

    @property
    def _vector_size(self) -> int:
        return self._features.size * len(self._terms)

    def _enter_checkpoint(self, t: int) -> None:
        super()._enter_checkpoint(t)
        if not self._live:
            self._rate.assign(self.learning_rates[t])

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        return self._scaled_rows(batch, [term.train for term in self._terms])

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self._scaled_rows(batch, [term.query for term in self._terms])

    def _query_factors(self, batch: Batch) -> tf.Tensor:
        gradients = [term.query.gradients(batch) for term in self._terms]
        return tf.concat([self._features.factors(g) for g in gradients], axis=1)

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        parts = tf.split(factors, len(self._terms), axis=1)
        products = [
            term.rate * self._features.products(part, term.train.gradients(batch))
            for term, part in zip(self._terms, parts, strict=True)
        ]
        return tf.add_n(products)

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        scores = []
        for term in self._terms:
            train = term.train.gradients(batch)
            query = train if term.query is term.train else term.query.gradients(batch)
            scores.append(term.rate * self._features.paired(query, train))
        return tf.add_n(scores)

    def _vector_settings(self) -> tuple:
        others = [weights_digest(model.model) for model in self._live[1:]]
        base = super()._vector_settings()
        return (*base, *others, tuple(self.learning_rates), self._features.settings())

    def _scaled_rows(self, batch: Batch, engines: Iterable[GradientEngine]) -> tf.Tensor:
        """Return the features of all terms, each times the root of its learning rate."""
        rows = [
            tf.sqrt(term.rate) * self._features.rows(engine.gradients(batch))
            for term, engine in zip(self._terms, engines, strict=True)
        ]
        return tf.concat(rows, axis=1)

    def _live_terms(self, measurement: Measurement) -> list[_Term]:
        terms = []
        for model, rate in zip(self._live, self.learning_rates, strict=True):
            query = GradientEngine.of(measured_model(model, measurement))
            terms.append(_Term(GradientEngine.of(model), query, tf.constant(rate, model.dtype)))
        return terms


def _checkpoints(
    sources: Sequence[Any], model: BaseInfluenceModel | None, build: BuildFunction | None
) -> Checkpoints:
    if model is None:
        return LiveCheckpoint(sources[0])
    return CopiedCheckpoints(model, sources, build)


def _as_list(models: Any) -> list[Any]:
    if isinstance(models, (str, Path)) or not isinstance(models, Iterable):
        message = (
            "Argument `models` must be a list of InfluenceModel objects or of paths. Received: "
            f"{type(models).__name__}. Put it in a list; for the folder of a CheckpointRecorder "
            "call from_folder."
        )
        raise TypeError(message)
    result = list(models)
    if not result:
        message = "Argument `models` must hold at least one model. Received: none."
        raise ValueError(message)
    return result


def _checked_live(sources: Sequence[Any]) -> list[BaseInfluenceModel]:
    for source in sources:
        check_live_model(source)
    shapes = [model.layout.shapes for model in sources]
    other = next((t for t, found in enumerate(shapes) if found != shapes[0]), None)
    if other is not None:
        message = (
            "Argument `models` must hold models with watched weights of the same shapes: the "
            f"checkpoints of one training. Received: {sources[0].nb_params} parameters in the "
            f"first and {sources[other].nb_params} in number {other} (counting from 0), or the "
            "same number in other shapes. Use one TracIn for each architecture."
        )
        raise ValueError(message)
    return list(sources)


def checked_rates(learning_rates: Any, count: int) -> list[float]:
    """Return a learning rate for each checkpoint.

    Raises
    ------
    ValueError
        If there are not as many, or one is no rate.
    """
    single = np.ndim(learning_rates) == 0
    rates = [float(r) for r in ([learning_rates] * count if single else learning_rates)]
    if len(rates) != count:
        message = (
            "Argument `learning_rates` must be a number, or have one for each model. Received: "
            f"{len(rates)} for {count} models."
        )
        raise ValueError(message)
    wrong = [rate for rate in rates if not (rate >= 0 and math.isfinite(rate))]
    if wrong:
        message = f"Argument `learning_rates` must be finite and not negative. Received: {wrong}."
        raise ValueError(message)
    return rates
