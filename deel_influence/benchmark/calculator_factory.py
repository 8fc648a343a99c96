"""What makes the calculators of a benchmark: settings now, model and data later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..calculators.self_influence import SelfInfluenceCalculator


class InfluenceCalculatorFactory(ABC):
    """Makes calculators of one kind. To be implemented by subclasses: `build`.

    The public attributes of a factory are its settings: they are kept beside the results.
    """

    @abstractmethod
    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> SelfInfluenceCalculator:
        """Return a calculator for a trained model.

        Parameters
        ----------
        training_dataset
            The training set, batched, in a fixed order.
        model
            The trained model, compiled with its loss.
        train_info
            What the training procedure returned beside the model.
        """


class FunctionFactory(InfluenceCalculatorFactory):
    """Makes calculators with a function, for methods that have no factory of their own.

    Parameters
    ----------
    function
        ``function(training_dataset, model, train_info)`` returns the calculator, as
        `InfluenceCalculatorFactory.build` does.
    settings
        Whatever tells its results from others, to be kept beside them. The code of ``function``
        and the values that it reads, functions among them, count anyway; what the classes do that
        it makes objects of does not.

    Examples
    --------
    >>> from deel_influence.common import InfluenceModel
    >>> from deel_influence.influence import FirstOrderInfluenceCalculator
    >>> gradient_norm = FunctionFactory(
    ...     lambda dataset, model, info: FirstOrderInfluenceCalculator(
    ...         InfluenceModel(model), dataset, ihvp_calculator="identity"
    ...     )
    ... )
    """

    def __init__(
        self,
        function: Callable[[tf.data.Dataset, keras.Model, Any], SelfInfluenceCalculator],
        **settings: Any,
    ) -> None:
        self.function = function
        self.settings = settings

    def build(
        self, training_dataset: tf.data.Dataset, model: keras.Model, train_info: Any = None
    ) -> SelfInfluenceCalculator:
        return self.function(training_dataset, model, train_info)
