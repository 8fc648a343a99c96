"""Inverse-Hessian-vector products: a curvature, a solver and a damping."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

import deel_influence

from ..curvature.sums import PartialFit
from ..errors import SavedCurvatureError
from ..gradients.batch_gradients import BatchGradients, gram
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..gradients.rows import rows_kernel
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Data
from ..utils.datasets import (
    check_dataset,
    count_examples,
    numbered_batches,
    sample_examples,
)
from ..utils.digests import dataset_digest, settings_digest
from ..utils.files import npz_path
from ..utils.portable import SharedDataset
from ..utils.running import run
from ..utils.separable import Separable
from .damping import AUTO, damping_vector, resolve_damping
from .kept_factors import KeptFactors
from .parts import SETTINGS_OF_THE_FINISH, FitOfParts
from .persistence import REGISTERED, STRATEGY, loaded, unpickled


class InverseHessianVectorProduct(FitOfParts, KeptFactors, Separable, ABC):
    """Products with ``H⁻¹`` and ``H``, for whole batches of vectors; rows are vectors.

    A strategy is one subclass with two hooks, `_solve` and `_multiply`. One that can score
    without materialising gradients overrides `self_influence` too, and `query_factors`, `scores`
    and `products` where the queries have a form of their own. One that is fitted keeps its
    settings in `config` and what it learned in `_state`, and takes both back in `_restore`; that
    makes `with_dataset`, `save` and `load` work.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set, over which the curvature is taken; None where the strategy
        needs none.
    config
        The other arguments that the strategy was made with, by name, see `settings_in`; values
        that JSON can hold.

    Attributes
    ----------
    seed_was_drawn
        Whether the seed in `config` was drawn here, because none was given.
    """

    name: ClassVar[str]
    """What `ihvp_calculator=` calls the strategy."""

    settings: ClassVar[tuple[str, ...]] = ()
    """Which of ``n_samples_for_hessian`` and ``seed`` it takes."""

    traceable: ClassVar[bool] = True
    """Whether its products may be part of a compiled function; else they go over the data."""

    needs_data: ClassVar[bool] = False
    """Whether a product goes over the training set, which a loaded strategy is then given."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note the strategy under its name, so that `load` finds it."""
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            REGISTERED[cls.name] = cls

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        check_influence_model(model)
        self._parts = train_dataset if isinstance(train_dataset, PartialFit) else None
        if self._parts is not None:
            train_dataset = None
        if train_dataset is not None:
            check_dataset(train_dataset, "train_dataset", model.input_rank)
        self.model = model
        self.train_dataset = train_dataset
        self.engine = GradientEngine.of(model)
        self.config = dict(config or {})
        self.seed_was_drawn = self.config.get("seed", 0) is None
        if self.seed_was_drawn:
            # A seed of its own, so that copies and loaded strategies draw the same. From NumPy's
            # global generator, so that keras.utils.set_random_seed fixes it.
            several = self._parts is not None  # which have to have one seed
            self.config["seed"] = 0 if several else int(np.random.randint(2**31 - 1))
        self._model_fingerprint = model_fingerprint(model)
        if self._parts is not None:
            settings = {n: v for n, v in self.config.items() if n not in SETTINGS_OF_THE_FINISH}
            self._parts.origin = [type(self).__name__, settings, self._model_fingerprint]
        self._num_train_examples: int | None = None

    @abstractmethod
    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of vectors ``(b, p)``. To be implemented by subclasses."""

    @abstractmethod
    def _multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H v`` for every row of vectors ``(b, p)``. To be implemented by subclasses."""

    def _state(self) -> dict[str, np.ndarray]:
        """Return the arrays that the fit gave. May be overridden."""
        return {}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027 - nothing to do
        """Take back what `_state` returned, in place of a fit. May be overridden."""

    @classmethod
    def accepted_settings(cls) -> set[str]:
        """Return the names of the arguments that the strategy takes."""
        return set(inspect.signature(cls.__init__).parameters) - {"self"}

    @property
    def num_train_examples(self) -> int | None:
        """The number n of examples in the training set of the fit; None where there was none.

        Fits that do not count them have one more pass over the data at first use.
        """
        if self._num_train_examples is None and self.train_dataset is not None:
            self._num_train_examples = count_examples(self.train_dataset)
        return self._num_train_examples

    def _note_size(self, num_examples: int) -> None:
        """Remember how many examples a pass of the fit had, if it had them all."""
        if self.config.get("n_samples_for_hessian") is None:
            self._num_train_examples = num_examples

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, beside model and data, that make such a strategy again."""
        return dict(self.config)

    def with_dataset(self, dataset: Data) -> InverseHessianVectorProduct:
        """Return a strategy with all the settings of this one, fitted on other data."""
        return type(self)(self.model, train_dataset=dataset, **self.get_config())

    def save(self, path: str | Path) -> Path:
        """Write the fitted strategy to one ``.npz`` file, which appears whole or not at all.

        The file holds arrays and a JSON header (library version, strategy, settings, fingerprint
        of weights, loss and watched layers), and no code.

        Returns
        -------
        The path of the file, with its suffix.
        """
        return STRATEGY.write(npz_path(path), self.saved_header(), self._state())

    def saved_header(self) -> dict[str, Any]:
        """Return what a file tells of the fit besides its arrays."""
        self.check_unchanged()
        data = dataset_digest(self.train_dataset) if self.needs_data else None
        if data is not None:  # one pass tells both
            self._num_train_examples = data["examples"]
        return {
            "library": deel_influence.__version__,
            "strategy": self.name,
            "config": self.get_config(),
            "model": self._model_fingerprint,
            "num_train_examples": self.num_train_examples,
            "data": data,
        }

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
    ) -> InverseHessianVectorProduct:
        """Read what `save` wrote; on the base class, any strategy.

        Parameters
        ----------
        path
            The file.
        model
            The wrapped model, with the weights, loss and watched layers of the fit.
        train_dataset
            The training set, for strategies whose products go over it (`needs_data`).

        Raises
        ------
        SavedCurvatureError
            If the file is missing, corrupt, of another strategy, or fitted on another model; for
            strategies whose products go over the data, also on other data.
        """
        return loaded(cls, path, model, train_dataset)

    @classmethod
    def restored(
        cls,
        model: BaseInfluenceModel,
        train_dataset: Data | None,
        config: Mapping[str, Any],
        state: Mapping[str, np.ndarray],
        num_train_examples: int | None = None,
    ) -> InverseHessianVectorProduct:
        """Return a strategy from its settings and what `state` gave, without a fit."""
        strategy = cls.__new__(cls)
        InverseHessianVectorProduct.__init__(strategy, model, train_dataset, config)
        strategy._restore(state)
        strategy._num_train_examples = num_train_examples
        return strategy

    def __reduce__(self) -> tuple:
        """Pickle and copy the fit; a pickle holds no data, and is refused where H goes over them.

        Raises
        ------
        TypeError
            If products go over the training set (`needs_data`), and this is a pickle.
        """
        refusal = (
            f"A {type(self).__name__} goes over its training set, which no pickle holds. Use "
            "`save`, and `load` with `train_dataset=`."
        )
        data = SharedDataset(self.train_dataset, refusal if self.needs_data else None)
        # A copy that has the data can count them when it is asked to.
        size = self._num_train_examples if self.needs_data else self.num_train_examples
        return unpickled, (type(self), self.model, data, self.get_config(), self._state(), size)

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that the fit gave, by name."""
        return self._state()

    def check_unchanged(self) -> None:
        """Refuse to go on where the model has changed since the fit.

        Raises
        ------
        SavedCurvatureError
            If weights or loss are others.
        """
        if model_fingerprint(self.model) == self._model_fingerprint:
            return
        message = (
            f"The model of a fitted {type(self).__name__} must not change. Received: other weights "
            "than at the fit. Fit again: strategy.with_dataset(train_dataset)."
        )
        raise SavedCurvatureError(message)

    def fingerprint(self) -> tuple:
        """Return what tells this fit from others: settings and data, or a product with H."""
        if self.needs_data:  # whose products may differ in their last digits
            return settings_digest(self.config), dataset_digest(self.train_dataset)["digest"]
        vector = tf.linspace(tf.ones((), self.model.dtype), 2.0, self.model.nb_params)
        return tuple(np.asarray(self._multiply(vector[None]))[0].tolist())

    def solve(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of ``vectors``, shape ``(b, p)``.

        Raises
        ------
        ValueError
            If the rows do not have p entries.
        """
        return self._solve(self._checked(vectors))

    def multiply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H v`` for every row of ``vectors``, shape ``(b, p)``.

        Raises
        ------
        ValueError
            If the rows do not have p entries.
        """
        return self._multiply(self._checked(vectors))

    def damping_diagonal(self) -> np.ndarray:
        """Return what is added to H for each parameter, float64, shape ``(p,)``.

        May be overridden. Strategies with a rule of their own keep what it gave for each layer in
        ``damping_values``.

        Raises
        ------
        ValueError
            If the strategy chose the damping itself and does not tell it.
        """
        layout = self.model.layout
        values = getattr(self, "damping_values", None)
        if values is None:
            damping = self.config.get("damping", 0.0)
            if damping == AUTO:
                message = (
                    f"Argument `damping` of {type(self).__name__} must be a number where it has to "
                    f"be told from the curvature. Received: {AUTO!r}. Pass `damping=` a number."
                )
                raise ValueError(message)
            values = resolve_damping(damping, layout, lambda: 0.0)
        return damping_vector(values, layout)

    def self_influence(self, gradients: BatchGradients) -> tf.Tensor:
        """Return ``g_iᵀ H⁻¹ g_i`` for the examples of a batch, shape ``(b,)``."""
        rows = gradients.materialize()
        return tf.reduce_sum(rows * self._solve(rows), axis=1)

    def gram(self, sets: Sequence[BatchGradients]) -> tf.Tensor:
        """Return ``g_ikᵀ H⁻¹ g_il`` of K sets of gradients of a batch, shape ``(b, K, K)``."""
        return gram(sets, self._solve)

    def query_factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return what `scores` needs of the queries, one row for each: here ``H⁻¹ g``, ``(m, p)``.

        H is symmetric, so that it may be inverted on the side of the queries, which are fewer.
        """
        return self._solve(gradients.materialize())

    def scores(self, factors: tf.Tensor, gradients: BatchGradients) -> tf.Tensor:
        """Return ``g(z)ᵀ H⁻¹ g_i`` for query factors and a training batch, shape ``(m, b)``."""
        return tf.transpose(gradients.dot(factors))

    def products(self, factors: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``g(z)ᵀ H⁻¹ v`` for query factors and vectors ``(k, p)``, shape ``(m, k)``."""
        return tf.matmul(factors, vectors, transpose_b=True)

    def compute_ihvp(self, group: Data, use_gradient: bool = True) -> tf.Tensor:
        """Return ``H⁻¹ g_i`` for the examples of a dataset.

        Parameters
        ----------
        group
            A batched dataset of examples or, without ``use_gradient``, of vectors ``(b, p)``.
        use_gradient
            Whether gradients are taken first.

        Returns
        -------
        Rows ``(n, p)``, one for each example.
        """
        return self._over(group, use_gradient, "solve")

    def compute_hvp(self, group: Data, use_gradient: bool = True) -> tf.Tensor:
        """Return ``H g_i`` for the examples of a dataset; the arguments of `compute_ihvp`."""
        return self._over(group, use_gradient, "multiply")

    def _fit_dataset(self) -> Any:
        """Return the training set, or the sample of it, or parts, that the settings ask for.

        Raises
        ------
        ValueError
            If there is no training set.
        """
        if self._parts is not None:
            return self._parts
        if self.train_dataset is None:
            raise self._missing_data()
        size = self.config.get("n_samples_for_hessian")
        if size is None:
            return self.train_dataset
        return sample_examples(self.train_dataset, size, self.config.get("seed"))

    def _missing_data(self) -> ValueError:
        message = (
            f"Argument `train_dataset` of {type(self).__name__} must be the batched training set. "
            "Received: None."
        )
        return ValueError(message)

    def _over(self, group: tf.data.Dataset, use_gradient: bool, product: str) -> tf.Tensor:
        check_dataset(group, "group", self.model.input_rank if use_gradient else None)
        apply = {"solve": self._solve, "multiply": self._multiply}[product]
        if not use_gradient:
            vectors = (tf.nest.flatten(batch)[0] for batch, _ in numbered_batches(group))
            return tf.concat([apply(self._checked(rows)) for rows in vectors], axis=0)
        items = Pass(group, "group", in_order=False).items(self.engine)
        rows = (run(rows_kernel(self.engine), item, (item.batch,), axis=0) for item in items)
        return tf.concat([apply(part) for part in rows], axis=0)

    def _checked(self, vectors: tf.Tensor) -> tf.Tensor:
        vectors = tf.cast(tf.convert_to_tensor(vectors), self.model.dtype)
        if vectors.shape.rank != 2 or vectors.shape[1] != self.model.nb_params:
            message = (
                f"Argument `vectors` must have shape (b, p) with p = {self.model.nb_params}, one "
                f"vector in each row. Received: shape {vectors.shape}."
            )
            raise ValueError(message)
        return vectors
