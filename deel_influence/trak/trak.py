"""Attribution of a model's output by random projections of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..calculators.checkpointed import CheckpointedCalculator
from ..calculators.queries import Queries, ScoredBatches, ScoreSource
from ..errors import SavedCurvatureError
from ..gradients.batch_gradients import BatchGradients
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..gradients.projections.base import Projection
from ..gradients.projections.inverse import check_moments_fit
from ..gradients.projections.loaded import LoadedProjection
from ..gradients.projections.registry import PROJECTIONS, ProjectionLike, resolve_projection
from ..model.checkpoints import (
    Checkpoints,
    CopiedCheckpoints,
    LiveCheckpoint,
    WeightSource,
    check_live_model,
)
from ..model.copies import BuildFunction
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch, Data, IdFunction
from ..utils.datasets import Item, check_dataset
from ..utils.kernels import Kernel
from ..utils.memory import bytes_to_hold
from ..utils.running import run
from ..utils.separable import Separated
from .kernel import check_kernel_damping, kernel_inverse
from .known_rows import KnownRows
from .outputs import slope_along_output

Model: TypeAlias = BaseInfluenceModel | WeightSource | str | Path
"""A live model, or where the weights of one are."""

OutputFunction: TypeAlias = str | Callable[[Any, Any], tf.Tensor]
"""``"margin"``, or ``function(targets, outputs) -> (b,)``."""


class TRAK(CheckpointedCalculator):
    """Score ``φ(z)ᵀ (ΦᵀΦ + damping · I)⁻¹ φ(z_i) · Q_i`` of training example z_i for query z [1]_.

    ``φ(z) = P ∇f(z)`` is the projected gradient of the model's output function f, by default the
    margin ``log(π_y / (1 - π_y))`` of the label's class y, and Φ has a row for each of the n
    training examples. ``Q_i = -∂ℓ/∂f`` says how hard the loss pulls at the output, for the margin
    ``1 - π_y``. Of several checkpoints, each with a P and a Φ of its own, the mean of the products
    is taken times the mean of the Q_i: errors of the projections average out.

    Positive: z_i raises the output on z, that is the margin of its label, and so helps z, as
    everywhere in this library. There is no 1/n: a score is about the change of the output when z_i
    is left out, with its sign turned. The self-influence of z_i is its score for itself, and its
    influence vector ``φ(z_i) · Q_i`` of all checkpoints side by side, ``(b, T·k)``.

    Parameters
    ----------
    models
        The trained model, or several checkpoints or trainings of it. With ``model=`` these may be
        the paths of files that `keras.Model.load_weights` reads.
    train_set
        The batched training set, n examples, for Φ.
    projection
        The projection P: ``"rademacher"``, ``"gaussian"``, ``"sjlt"`` (which large models need),
        ``"mask"``, ``"logra"``, ``"factgrass"``, a `Projection` or its `get_config`. It is
        that of the first checkpoint; each other has the same kind and settings, and a seed of its
        own, see `checkpoint_seed`.
    projection_dim
        The number k of features; see `resolve_projection`. More keep inner products better, and
        must stay well below n.
    damping
        Added to the diagonal of ΦᵀΦ, a sum over n examples: n times what `damping` is elsewhere.
        ``"auto"`` is a tenth of the mean eigenvalue of ΦᵀΦ.
    seed
        Fixes the projections.
    output_function
        f: ``"margin"``, or a function of targets and outputs that returns a number for each
        example, such as the prediction of a regression. Q_i is then the slope of the loss along
        the gradient of f in the outputs.
    model
        The wrapped model that files are weights of. It is left as it is.
    build
        Makes a Keras model with the layers of ``model``, where Keras cannot clone it, which
        several checkpoints need.
    verbose
        As in Keras.

    Raises
    ------
    ValueError
        If ΦᵀΦ is singular, or an argument out of its range.
    CurvatureSizeError
        If ``(k, k)`` matrices do not fit in the free memory.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry. TRAK: Attributing Model
       Behavior at Scale. ICML 2023.
    """

    separable = True

    _made_again = frozenset({"_known"})

    def __init__(
        self,
        models: BaseInfluenceModel | Sequence[Model] | Checkpoints,
        train_set: Data,
        projection: ProjectionLike = "rademacher",
        projection_dim: Any = None,
        damping: float | str = 0.0,
        seed: int = 0,
        output_function: OutputFunction = "margin",
        model: BaseInfluenceModel | None = None,
        build: BuildFunction | None = None,
        verbose: str | int = "auto",
    ) -> None:
        self.output_function = _checked_output(output_function)
        self.damping = check_kernel_damping(damping)
        super().__init__(_checkpoints(models, model, build), self.output_function)
        check_dataset(train_set, "train_set", self.model.input_rank)
        self.projection = _resolved(projection, projection_dim, seed, self.model)
        self._loaded = LoadedProjection(self.projection, self.model)
        k = self.projection.size
        check_moments_fit(k)
        self._inverses: list[np.ndarray] = []
        self._known: list[KnownRows] = []
        self._inverse = tf.Variable(tf.zeros((k, k), tf.float64), trainable=False)
        self._inverse_is_of: int | None = None
        self._fitted_on: tuple[str, ...] | None = None
        self._fit(train_set, verbose)
        self._fitted_on = self.checkpoints.fingerprints()

    def projection_of(self, t: int) -> Projection:
        """Return the projection of checkpoint ``t``, counting from 0."""
        seed = checkpoint_seed(self.projection.seed, t)
        return self.projection if t == 0 else self.projection.with_seed(seed, self.model)

    def _make_again(self) -> None:
        super()._make_again()
        self._known = []

    @property
    def _engines(self) -> tuple[GradientEngine, ...]:
        return (self.query_engine,)

    @property
    def _vector_size(self) -> int:
        return self.projection.size + 1

    def _enter_checkpoint(self, t: int) -> None:
        super()._enter_checkpoint(t)
        self._loaded.load(checkpoint_seed(self.projection.seed, t))
        if t < len(self._inverses) and self._inverse_is_of != t:
            self._inverse.assign(self._inverses[t])
            self._inverse_is_of = t

    def _kernel(self, hook: Callable[..., Any], *form: Hashable) -> Kernel:
        return super()._kernel(hook, *form, self._loaded.trace)

    def _separated(self) -> Separated | None:
        projection = self._loaded.current
        if callable(self.output_function) or not projection.tensors:
            return None
        form = type(projection), projection.form, self.output_function
        return Separated(form, (self._inverse, projection.tensors), self._over)

    def _over(self, tensors: tuple[tf.Tensor, tuple[tf.Tensor, ...]]) -> TRAK:
        inverse, drawn = tensors
        return self._altered(_inverse=inverse, _loaded=self._loaded.over(drawn))

    def _stream(self, data: Pass) -> Iterator[Item]:
        if self._fitted_on not in (None, self.checkpoints.fingerprints()):
            message = (
                "The models of a TRAK must not change. Received: other weights than when the "
                "kernel was computed. Make the calculator again."
            )
            raise SavedCurvatureError(message)
        return super()._stream(data)

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        return self._inverted(self._features(self.query_engine.gradients(batch)))

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        """Return features, and Q in the last column, ``(b, k + 1)``: Q is averaged later."""
        gradients = self.query_engine.gradients(batch)
        pull = self._pull(batch, gradients)
        return tf.concat([self._features(gradients), pull[:, None]], axis=1)

    def _sums_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return ``φ(z)ᵀ (ΦᵀΦ)⁻¹ φ(z_i)``, and Q in the last row, ``(m + 1, b)``."""
        return self._sums_of_vectors(factors, self._train_vectors(batch))

    def _sums_of_vectors(self, factors: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        products = tf.matmul(factors, vectors[:, :-1], transpose_b=True)
        return tf.concat([products, vectors[None, :, -1]], axis=0)

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        product, pull = tf.unstack(self._self_sums(batch))
        return product * pull

    def _self_sums(self, batch: Batch) -> tf.Tensor:
        """Return ``φ(z_i)ᵀ (ΦᵀΦ)⁻¹ φ(z_i)``, and Q in the last row, ``(2, b)``."""
        return self._self_sums_of_vectors(self._train_vectors(batch))

    def _self_sums_of_vectors(self, vectors: tf.Tensor) -> tf.Tensor:
        features = vectors[:, :-1]
        products = tf.reduce_sum(features * self._inverted(features), axis=1)
        return tf.stack([products, vectors[:, -1]])

    def scored_batches(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        data = Pass(train_set, "train_set", "Self-influence", id_fn, device, verbose)
        for item, sums in self._computed(data.checked(self.engine), self._self_sums):
            product, pull = tf.unstack(self._mean_of(sums))
            yield item.batch, item.ids, product * pull

    def _streamed(self, train: Pass, hook: Callable[..., tf.Tensor] | None = None) -> ScoreSource:
        source = super()._streamed(train, hook or self._sums_of_batch)

        def scored(chunk: Queries) -> ScoredBatches:
            for batch, ids, sums in source.scored(chunk):
                yield batch, ids, self._mean_of(sums[:-1]) * self._mean_of(sums[-1:])

        return ScoreSource(source.query_hook, scored)

    def _vectors(self, data: Pass) -> Iterator[tuple[Item, tf.Tensor]]:
        shape = (-1, self.checkpoints.count, self.projection.size + 1)
        for item, rows in super()._vectors(data):
            parts = tf.reshape(rows, shape)
            pull = tf.reduce_mean(parts[:, :, -1:], axis=1, keepdims=True)
            vectors = self._mean_of(parts[:, :, :-1] * pull)
            yield item, tf.reshape(vectors, (item.size, -1))

    def _vector_settings(self) -> tuple:
        seeds = [checkpoint_seed(self.projection.seed, t) for t in range(self.checkpoints.count)]
        configs = [{**self.projection.get_config(), "seed": seed} for seed in seeds]
        settings = [sorted(config.items()) for config in configs]
        code = getattr(self.output_function, "__code__", None)
        f = self.output_function if code is None else (code.co_name, code.co_code, code.co_names)
        return (*super()._vector_settings(), *settings, f)

    def _mean_of(self, sums: Any) -> Any:
        """Return means over the checkpoints, from sums over them."""
        return sums / self.checkpoints.count

    def _features(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``φ`` of the checkpoint that is loaded, shape ``(b, k)``."""
        return self._loaded.current.project(gradients)

    def _inverted(self, features: tf.Tensor) -> tf.Tensor:
        """Return ``(ΦᵀΦ)⁻¹ φ`` of the checkpoint that is loaded, shape ``(b, k)``."""
        products = tf.matmul(tf.cast(features, tf.float64), self._inverse)
        return tf.cast(products, features.dtype)

    def _pull(self, batch: Batch, gradients: BatchGradients) -> tf.Tensor:
        """Return ``Q = -∂ℓ/∂f`` of a batch, shape ``(b,)``; the gradients are those of f."""
        if self.output_function != "margin":
            return slope_along_output(self.model, self.query_model, batch)
        sample_weight = self.model.process_batch_for_loss_fn(batch)[2]
        pull = tf.sigmoid(-gradients.losses)  # 1 - π_y, of the log-odds of π_y
        if sample_weight is None:
            return pull
        return pull * tf.reshape(tf.cast(sample_weight, pull.dtype), (-1,))

    def _vectors_and_moments(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the vectors ``(b, k + 1)`` of a batch, and its ``ΦᵀΦ``, float64, ``(k, k)``."""
        vectors = self._train_vectors(batch)
        features = tf.cast(vectors[:, :-1], tf.float64)
        return vectors, tf.matmul(features, features, transpose_a=True)

    def _result(
        self,
        t: int,
        hook: Callable[..., Any],
        item: Item,
        arguments: tuple,
        device: str | None,
        axis: int | None,
    ) -> tf.Tensor:
        """Take the vectors of the fit for the examples that it has seen."""
        rest: dict[str, Callable[..., Any]] = {
            "_sums_of_batch": self._sums_of_vectors,
            "_self_sums": self._self_sums_of_vectors,
        }
        seen = hook.__name__ in rest and t < len(self._known)
        vectors = self._known[t].of(item.batch) if seen else None
        if vectors is None:
            return super()._result(t, hook, item, arguments, device, axis)
        return run(self._kernel(rest[hook.__name__]), item, (*arguments, vectors), device, axis)

    def _fit(self, train_set: tf.data.Dataset, verbose: str | int) -> None:
        """Compute ``(ΦᵀΦ + damping · I)⁻¹`` of each checkpoint, in a pass over the data each."""
        count = self.checkpoints.count
        data = Pass(train_set, verbose=verbose, in_order=False)
        with self._lock:
            self.checkpoints.verify(next(self._stream(replace(data, verbose=0))).batch)
            for t in range(count):
                self._enter_checkpoint(t)
                total, n = tf.zeros_like(self._inverse), 0
                known = KnownRows(bytes_to_hold() // count)
                shown = replace(data, description=f"Features, checkpoint {t + 1} of {count}")
                computed = self._computed(shown, self._vectors_and_moments, axis=None)
                for item, (vectors, moments) in computed:
                    known.note(item.batch, vectors)
                    total += moments
                    n += item.size
                self._known.append(known)
                self._inverses.append(kernel_inverse(total.numpy(), self.damping, n))


def checkpoint_seed(seed: int, t: int) -> int:
    """Return the seed of the projection of checkpoint ``t``, counting from 0.

    The first has ``seed`` itself. Each other has the first word of NumPy's
    ``SeedSequence(seed, spawn_key=(t,))``.
    """
    if t == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(t,)).generate_state(1)[0])


def _checkpoints(models: Any, model: BaseInfluenceModel | None, build: Any) -> Checkpoints:
    if isinstance(models, Checkpoints):
        return models
    several = isinstance(models, Iterable) and not isinstance(models, str)
    sources = list(models) if several else [models]
    if not sources:
        message = "Argument `models` must hold at least one model. Received: none."
        raise ValueError(message)
    if model is not None:
        return CopiedCheckpoints(model, sources, build)
    for source in sources:
        check_live_model(source)
    if len(sources) == 1:
        return LiveCheckpoint(sources[0])
    return CopiedCheckpoints(sources[0], sources, build)


def _resolved(
    projection: ProjectionLike, projection_dim: Any, seed: int, model: BaseInfluenceModel
) -> Projection:
    found = resolve_projection(projection, projection_dim, seed, model)
    if found is None:
        message = (
            f"Argument `projection` of TRAK must be one of {sorted(PROJECTIONS)} or a Projection. "
            "Received: None. A `projection_dim` of p or more keeps gradients as they are."
        )
        raise ValueError(message)
    return found


def _checked_output(output_function: Any) -> OutputFunction:
    if callable(output_function) or output_function in ("margin", "logit"):
        return output_function
    message = (
        "Argument `output_function` must be 'margin', 'logit' or a function of targets and "
        f"outputs. Received: {output_function!r}."
    )
    raise ValueError(message)
