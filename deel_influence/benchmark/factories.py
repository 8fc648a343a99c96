"""Factories of the methods that users of Influenciae know."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any

import keras
import tensorflow as tf

from ..boundary_based.sample_boundary import SampleBoundaryCalculator
from ..boundary_based.weights_boundary import WeightsBoundaryCalculator
from ..errors import IgnoredArgumentWarning
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.factories import InverseHessianVectorProductFactory
from ..ihvp.registry import IHVPCalculator
from ..influence.arnoldi import ArnoldiInfluenceCalculator
from ..influence.first_order import FirstOrderInfluenceCalculator
from ..model.influence_model import BaseInfluenceModel, InfluenceModel
from ..model.selection import LayerKey
from ..rps.l2 import RepresenterPointL2
from ..rps.lje import RepresenterPointLJE
from ..trac_in.tracin import TracIn
from ..utils.datasets import sample_examples
from .calculator_factory import InfluenceCalculatorFactory

# What is drawn beside the noise and the training is drawn alike in all runs.
_SEED = 0


class CurvatureFactory(InfluenceCalculatorFactory):
    """Base class of factories of methods with an inverse Hessian.

    Parameters
    ----------
    ihvp_mode
        The name of a strategy: ``"exact"``, ``"cgd"``, ``"lissa"``, ``"ekfac"``, ...
    start_layer
        Name or index of the watched layer; None means the last one with weights.
    dataset_hessian_size
        How many examples to draw for the curvature; None, or a negative number, takes all.
    n_opt_iters
        Steps of strategies that iterate, such as ``"cgd"`` and ``"lissa"``; None leaves them to
        the tolerance.
    feature_extractor
        Without effect: the frozen part of the model is found without being named.
    loss_function
        The loss; None takes the one that the model was compiled with.
    ihvp_settings
        Other arguments of the strategy, such as ``damping``.

    Raises
    ------
    ValueError
        For an unknown strategy, or settings that it does not take.

    Warns
    -----
    IgnoredArgumentWarning
        If a number of steps is given for a strategy that takes none.
    """

    def __init__(
        self,
        ihvp_mode: str = "exact",
        start_layer: LayerKey = None,
        dataset_hessian_size: int | None = None,
        n_opt_iters: int | None = None,
        feature_extractor: Any = None,  # noqa: ARG002 - kept for users of Influenciae
        loss_function: Any = None,
        **ihvp_settings: Any,
    ) -> None:
        self.ihvp_mode = ihvp_mode
        self.start_layer = start_layer
        self.dataset_hessian_size = dataset_hessian_size
        self.loss_function = loss_function
        self.ihvp_settings = dict(ihvp_settings)
        strategy = IHVPCalculator.from_string(ihvp_mode).value
        if n_opt_iters is not None and "n_opt_iters" in strategy.accepted_settings():
            self.ihvp_settings["n_opt_iters"] = n_opt_iters
        elif n_opt_iters is not None:
            message = (
                f"Argument `n_opt_iters` has no effect on the strategy {strategy.name!r}, which "
                f"takes no steps. Received: {n_opt_iters!r}. Leave it out."
            )
            warnings.warn(message, IgnoredArgumentWarning, stacklevel=2)
        _check_settings(strategy, self.ihvp_settings)

    def _strategy_factory(self) -> InverseHessianVectorProductFactory:
        return _SampledStrategyFactory(
            self.ihvp_mode, self.dataset_hessian_size, **self.ihvp_settings
        )

    def _influence_model(self, model: keras.Model) -> BaseInfluenceModel:
        return InfluenceModel(model, self.start_layer, loss_function=self.loss_function)


class FirstOrderFactory(CurvatureFactory):
    """Makes `FirstOrderInfluenceCalculator` objects; the parameters of `CurvatureFactory`."""

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> FirstOrderInfluenceCalculator:
        return FirstOrderInfluenceCalculator(
            self._influence_model(model), training_dataset, self._strategy_factory()
        )


class RPSLJEFactory(CurvatureFactory):
    """Makes `RepresenterPointLJE` objects; the parameters of `CurvatureFactory`.

    The watched layer is the Dense layer that gives the logits. An example is scored by its part
    in the logit of its own label.
    """

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> RepresenterPointLJE:
        return RepresenterPointLJE(
            self._influence_model(model),
            training_dataset,
            self._strategy_factory(),
            target_layer=self.start_layer,
            query_class="label",
        )


@dataclass(eq=False, repr=False)
class ArnoldiCalculatorFactory(InfluenceCalculatorFactory):
    """Makes `ArnoldiInfluenceCalculator` objects.

    Attributes
    ----------
    subspace_dim, force_hermitian, k_largest_eig_vals
        As for `ArnoldiInfluenceCalculator`.
    start_layer
        Name or index of the watched layer; None means the last one with weights.
    dataset_hessian_size
        How many examples to draw for the curvature; None, or a negative number, takes all.
    loss_function
        The loss; None takes the one that the model was compiled with.
    dtype
        None, or the dtype of the model.
    """

    subspace_dim: int = 200
    force_hermitian: bool = True
    k_largest_eig_vals: int = 100
    start_layer: LayerKey = None
    dataset_hessian_size: int | None = None
    loss_function: Any = None
    dtype: Any = None

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> ArnoldiInfluenceCalculator:
        return ArnoldiInfluenceCalculator(
            InfluenceModel(model, self.start_layer, loss_function=self.loss_function),
            _sample(training_dataset, self.dataset_hessian_size),
            self.subspace_dim,
            self.force_hermitian,
            self.k_largest_eig_vals,
            self.dtype,
            seed=_SEED,
        )


@dataclass(eq=False, repr=False)
class TracInFactory(InfluenceCalculatorFactory):
    """Makes `TracIn` objects of the models that the training kept on its way.

    Attributes
    ----------
    loss_function
        The loss; None takes the one that the models were compiled with.
    start_layer, last_layer
        The watched layers, as for `InfluenceModel`.
    """

    loss_function: Any = None
    start_layer: LayerKey = None
    last_layer: LayerKey = None

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> TracIn:
        """Return a calculator; ``train_info`` begins with the models and the learning rates.

        Raises
        ------
        ValueError
            If the training kept no models.
        """
        if train_info is None or not len(train_info[0]):
            message = (
                "Argument `train_info` must hold the models that the training passed through, "
                "which TracIn needs. Received: none. Give the training procedure "
                "`epochs_to_save=`, epochs counted from 0 that it reaches."
            )
            raise ValueError(message)
        models, learning_rates = train_info[:2]
        wrapped = [
            InfluenceModel(m, self.start_layer, self.last_layer, self.loss_function) for m in models
        ]
        return TracIn(wrapped, learning_rates)


@dataclass(eq=False, repr=False)
class RPSL2Factory(InfluenceCalculatorFactory):
    """Makes `RepresenterPointL2` objects, whose head learns the labels of the training set.

    An example is scored by the size of its representer value for its own label.

    Attributes
    ----------
    loss_function
        The loss; None takes the one that the model was compiled with.
    lambda_regularization
        Weight λ of the regulariser of the head.
    scaling_factor
        Without effect: Newton steps have no learning rate.
    layer_index
        Without effect: the layer that gives the logits is found.
    epochs
        Bound on the Newton steps.
    """

    loss_function: Any = None
    lambda_regularization: float = 0.003
    scaling_factor: InitVar[float] = 0.1
    layer_index: InitVar[LayerKey] = None
    epochs: int = 100

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> RepresenterPointL2:
        return RepresenterPointL2(
            model,
            training_dataset,
            self.loss_function,
            self.lambda_regularization,
            epochs=self.epochs,
            targets="labels",
            query_class="label",
        )


@dataclass(eq=False, repr=False)
class WeightsBoundaryCalculatorFactory(InfluenceCalculatorFactory):
    """Makes `WeightsBoundaryCalculator` objects.

    Attributes
    ----------
    step_nbr, norm_type, eps
        As for `WeightsBoundaryCalculator`.
    """

    step_nbr: int = 100
    norm_type: Any = 2
    eps: float = 1e-6

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> WeightsBoundaryCalculator:
        return WeightsBoundaryCalculator(model, self.step_nbr, self.norm_type, self.eps)


@dataclass(eq=False, repr=False)
class SampleBoundaryCalculatorFactory(InfluenceCalculatorFactory):
    """Makes `SampleBoundaryCalculator` objects.

    Attributes
    ----------
    step_nbr, eps
        As for `SampleBoundaryCalculator`.
    """

    step_nbr: int = 100
    eps: float = 1e-6

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> SampleBoundaryCalculator:
        return SampleBoundaryCalculator(model, self.step_nbr, self.eps)


class _SampledStrategyFactory(InverseHessianVectorProductFactory):
    """Makes strategies by name, fitted on some of the examples."""

    def __init__(self, ihvp_mode: str, num_examples: int | None, **settings: Any) -> None:
        strategy = IHVPCalculator.from_string(ihvp_mode).value
        seeded = {"seed": _SEED} if "seed" in strategy.accepted_settings() else {}
        super().__init__(**{**seeded, **settings})
        self._strategy = strategy
        self._num_examples = num_examples

    def build(
        self, model_influence: BaseInfluenceModel, dataset: tf.data.Dataset
    ) -> InverseHessianVectorProduct:
        sample = _sample(dataset, self._num_examples)
        return self._strategy(model_influence, train_dataset=sample, **self._settings)


def _check_settings(
    strategy: type[InverseHessianVectorProduct], settings: Mapping[str, Any]
) -> None:
    """Refuse what the strategy would refuse, before anything is trained."""
    accepted = strategy.accepted_settings() - {"model", "train_dataset"}
    if unknown := sorted(set(settings) - accepted):
        message = (
            f"Argument `settings` must fit the strategy: {strategy.name!r} takes "
            f"{sorted(accepted)}. "
            f"Received: {unknown}. Leave them out, or choose another strategy."
        )
        raise ValueError(message)


def _sample(dataset: tf.data.Dataset, num_examples: int | None) -> tf.data.Dataset:
    """Draw so many examples of a batched dataset; all for None or a negative number."""
    if num_examples is None or num_examples < 0:
        return dataset
    return sample_examples(dataset, num_examples, _SEED)
