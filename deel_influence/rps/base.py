"""What representer-point methods share: the head, the class of a query, and the kernel."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.queries import ScoreSource
from ..errors import UnsupportedModelError
from ..gradients.passes import Pass, query_and_train_passes
from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..model.measurements import label_indices
from ..model.selection import LayerKey
from ..types import Batch, Data, IdFunction
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.example_ids import POSITION
from .head import Head, find_head
from .likelihood import is_binary

QUERY_CLASSES = ("predicted", "label")


class BaseRepresenterPoint(BaseInfluenceCalculator):
    """Base class of methods that write a logit as a sum over the training examples.

    The score of training example z_i for query z is its part of the logit of *one class* of the
    query, and the parts of all training examples add up to that logit. Positive: z_i supports the
    class (excitatory); negative: it speaks against it (inhibitory).

    A score for an example alone is the size of its part in its own logit, or of its
    representer value: see the subclasses.

    To be implemented by subclasses: `_train_vectors`, `_query_vectors`, `_values_by_class` and
    `_kernel_weights`.

    Parameters
    ----------
    model
        The wrapped model, or a Keras model.
    train_dataset
        The batched training set.
    loss_function
        The loss; None takes that of the wrapped model, or the compiled one.
    target_layer
        Name or index of the Dense layer that gives the logits; None finds it.
    query_class
        Which class of a query is looked at: ``"predicted"``, ``"label"``, or an index. Where one
        logit stands for two classes, the logit of class 0 is minus that of class 1.
    argument
        What the subclass calls the training set; for messages.

    Raises
    ------
    UnsupportedModelError
        If the label's class is asked for, and the examples have no label among several classes.
    BatchError
        While scoring, if that class does not exist.
    """

    _zeros_are_usual = True

    def __init__(
        self,
        model: BaseInfluenceModel | keras.Model,
        train_dataset: Data,
        loss_function: Any = None,
        target_layer: LayerKey = None,
        query_class: str | int = "predicted",
        argument: str = "train_set",
    ) -> None:
        wrapped = _wrapped(model, loss_function)
        check_dataset(train_dataset, argument, wrapped.input_rank)
        first, _ = next(iter(numbered_batches(train_dataset, argument=argument)))
        self.head = find_head(wrapped, first, target_layer)
        super().__init__(self.head.model)
        self.train_dataset = train_dataset
        self._signed = is_binary(self.head)
        num_classes = 2 if self._signed else self.head.num_outputs
        self._num_classes = num_classes
        self.query_class = _check_query_class(query_class, num_classes)
        if self.query_class == "label":
            _check_labelled(self.head)

    @abstractmethod
    def _values_by_class(self, features: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the parts ``(m, c, b)`` of all logits, for the queries' features ``(m, r)``."""

    @abstractmethod
    def _kernel_weights(self) -> tf.Tensor:
        """Return the sum over the training set of what each example gives to W, ``(r, c)``."""

    def influence_by_class(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Return the part of every training example in every logit of every query.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The n training examples, batched.
        id_fn, device, verbose
            As for `score`.

        Returns
        -------
        Array ``(m, n, c)``, in the order of the datasets, which has to be the same on every pass,
        whatever ``id_fn`` is. `query_class` has no part in it.
        """
        queries, train = query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, POSITION, device, verbose
        )
        streamed = self._streamed(train, self._values_by_class)
        source = ScoreSource(self._features, streamed.scored)
        rows = []
        for chunk in self._chunks(source, queries):
            parts = [values for _, _, values in source.scored(chunk)]
            rows.append(np.concatenate(parts, axis=2))
        return np.concatenate(rows).transpose(0, 2, 1)

    def predict_with_kernel(
        self, dataset_to_evaluate: Data, device: str | None = None
    ) -> np.ndarray:
        """Return the logits of the queries as the sum over the training set.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        device
            Where to compute; None leaves it to TensorFlow.

        Returns
        -------
        Array ``(m, c)``: what `influence_by_class` on the training set adds up to, at the cost of
        one pass over it.
        """
        queries = Pass(dataset_to_evaluate, "dataset_to_evaluate", device=device)
        queries.checked(self.engine)
        weights = tf.cast(self._kernel_weights(), tf.float64)
        logits = [
            tf.matmul(tf.cast(features, tf.float64), weights).numpy()
            for _, features in self._computed(queries, self._features, axis=0)
        ]
        return np.concatenate(logits).astype(self.model.dtype.as_numpy_dtype)

    def _features(self, batch: Batch) -> tf.Tensor:
        """Return the inputs of the head, shape ``(b, r)``; traceable."""
        return self.head.features(self.head.forward(batch))

    def _class_weights(self, batch: Batch, logits: tf.Tensor) -> tf.Tensor:
        """Return what picks the logit of the queried class out of all, shape ``(b, c)``."""
        classes = self._classes(batch, logits)
        if self._signed:
            return tf.cast(2 * classes - 1, logits.dtype)[:, None]
        return tf.one_hot(classes, self.head.num_outputs, dtype=logits.dtype)

    def _classes(self, batch: Batch, logits: tf.Tensor) -> tf.Tensor:
        """Return the queried class of each example, int32, shape ``(b,)``."""
        if isinstance(self.query_class, int):
            return tf.fill(tf.shape(logits)[:1], self.query_class)
        if not self._signed and self.head.num_outputs == 1:
            return tf.zeros(tf.shape(logits)[:1], tf.int32)
        if self.query_class == "label":
            targets = self.model.process_batch_for_loss_fn(batch)[1]
            return self._checked_labels(label_indices(tf.convert_to_tensor(targets), logits))
        if self._signed:
            return tf.cast(logits[:, 0] > 0, tf.int32)
        return tf.argmax(logits, axis=1, output_type=tf.int32)

    def _checked_labels(self, labels: tf.Tensor) -> tf.Tensor:
        """Refuse labels of no class, whose score would be zero, the least suspicious of all."""
        exists = (labels >= 0) & (labels < self._num_classes)
        message = f"each label must be a class from 0 to {self._num_classes - 1}"
        check = tf.debugging.Assert(tf.reduce_all(exists), [message])
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(labels)


def _wrapped(model: Any, loss_function: Any) -> BaseInfluenceModel:
    if isinstance(model, keras.Model):
        return BaseInfluenceModel(model, loss_function=loss_function)
    check_influence_model(model)
    if loss_function is None:
        return model
    return BaseInfluenceModel(
        model.model, model.weights, loss_function, model.process_batch_for_loss_fn
    )


def _check_labelled(head: Head) -> None:
    """Refuse a head of several outputs whose examples do not have one label each."""
    if head.num_outputs == 1:
        return
    try:
        ClassReader(head.model).scores(tf.zeros((1, head.num_outputs)))
    except UnsupportedModelError as error:
        message = (
            'Argument `query_class` must be "predicted", or the index of an output, where the '
            "model is no classifier with one label for each example. Received: 'label' with the "
            f"loss {head.model.loss_function.loss!r} on {head.num_outputs} outputs."
        )
        raise UnsupportedModelError(message) from error


def _check_query_class(query_class: Any, num_classes: int) -> str | int:
    if isinstance(query_class, str) and query_class in QUERY_CLASSES:
        return query_class
    whole = isinstance(query_class, (int, np.integer)) and not isinstance(query_class, bool)
    if whole and 0 <= query_class < num_classes:
        return int(query_class)
    message = (
        f"Argument `query_class` must be one of {QUERY_CLASSES}, or the index of a class from 0 "
        f"to {num_classes - 1}. Received: {query_class!r}."
    )
    raise ValueError(message)
