"""Calculators that attribute to groups of training examples."""

from __future__ import annotations

from abc import ABC, abstractmethod

import tensorflow as tf

from ..types import Data


class BaseGroupInfluenceCalculator(ABC):
    """What a method for groups offers.

    To be implemented by subclasses: both methods.
    """

    @abstractmethod
    def compute_influence_vector_group(self, group: Data) -> tf.Tensor:
        """Return the influence vector of a whole group.

        Parameters
        ----------
        group
            The group's training examples, batched.

        Returns
        -------
        One row, shape ``(1, p)``.
        """

    @abstractmethod
    def estimate_influence_values_group(
        self, group_train: Data, group_to_evaluate: Data | None = None
    ) -> tf.Tensor:
        """Return the influence of one group on another.

        Parameters
        ----------
        group_train
            The group of training examples, batched.
        group_to_evaluate
            The examples whose summed loss is looked at; None takes ``group_train``. The two need
            not be of equal size.

        Returns
        -------
        A scalar.
        """
