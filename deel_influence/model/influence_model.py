"""A Keras model with its per-example loss and the weights that attribution looks at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import keras
import tensorflow as tf

from ..backend import check_backend
from ..errors import IgnoredTermWarning
from ..types import Batch, BatchProcessor
from .acceptance import check_model
from .batch_derivatives import BatchDerivatives
from .class_weight import with_class_weight
from .cloning import from_pickle, to_pickle
from .losses import PerExampleLoss
from .moments import exact_moments
from .objective import (
    AUTO,
    Penalty,
    compiled_loss,
    compiled_loss_weights,
    divides_by_weights,
    doubts_of_regularizer,
    penalties,
    training_terms,
    warn_of_own_training,
)
from .parameters import ParameterLayout
from .reading import checked_process, default_process_batch
from .selection import LayerKey, resolve_variables, select_weights, watched_places

Resource = TypeVar("Resource")

# Importing Keras may have chosen a back end from its configuration file.
check_backend()


class BaseInfluenceModel(BatchDerivatives):
    """A model, the loss of each example, and the watched weights as one vector ``(p,)``.

    The model always runs in inference mode, and is never modified.

    Parameters
    ----------
    model
        A built Keras model: Sequential, functional or subclassed.
    weights_to_watch
        Trainable variables of the model, in any nest; None means all of them.
    loss_function
        A Keras loss, its name, or a callable ``loss(targets, outputs)``, or a list or dict of
        them for several outputs. Any reduction is set aside. None takes the loss, and the loss
        weights, that the model was compiled with.
    process_batch_for_loss_fn
        Turns what the dataset yields into ``(inputs, targets, sample_weight or None)``. Sparse
        tensors come to it dense; ragged ones it has to pad.
    loss_over_positions
        ``"sum"`` (default) or ``"mean"`` over loss axes beyond the batch, such as time or pixels.
    class_weight
        What `fit` was given as ``class_weight``: factors of the losses by class, of one output.
        They count in the training objective and for training examples, not for queries.
    weight_decay
        The factor λ of a term ``λ/2 ‖θ‖²`` of R over all trainable weights. ``"auto"`` takes the
        weight decay of the optimizer where it is such a term, which is that of SGD; others are
        left out with a warning.
    regularizer_weight
        What R counts beside the mean of the losses. None takes 1, as under the default reduction
        of Keras's losses, and warns where another reduction, or positions, make it another number.

    Raises
    ------
    MissingLossError
        If there is no loss at all.
    UnsupportedModelError
        If the model is not built, or a variable is not a trainable one of the model.

    Warns
    -----
    IgnoredTermWarning
        If the model was compiled with a loss that its own ``compute_loss`` or ``train_step`` may
        not keep to; and where R is needed, for what has no place in it.
    """

    def __init__(
        self,
        model: keras.Model,
        weights_to_watch: Any = None,
        loss_function: Any = None,
        process_batch_for_loss_fn: BatchProcessor = default_process_batch,
        loss_over_positions: str = "sum",
        *,
        class_weight: Mapping[int, float] | None = None,
        weight_decay: float | str = AUTO,
        regularizer_weight: float | None = None,
    ) -> None:
        check_model(model)
        self.model = model
        if weights_to_watch is None:
            weights_to_watch = model.trainable_variables
        self.weights = resolve_variables(model, weights_to_watch)
        self.layout = ParameterLayout(self.weights)
        loss_weights = None
        if loss_function is None:
            loss_function = compiled_loss(model)
            loss_weights = compiled_loss_weights(model)
            warn_of_own_training(model)
        names = getattr(model, "output_names", None)
        self.loss_function = PerExampleLoss(loss_function, loss_weights, loss_over_positions, names)
        self.class_weight = class_weight
        self.unweighted_process = checked_process(process_batch_for_loss_fn)
        self.process_batch_for_loss_fn = with_class_weight(self.unweighted_process, class_weight)
        self.terms = training_terms(model, self.weights, weight_decay, regularizer_weight)
        self._resources: dict[Hashable, Any] = {}
        self._told: set[str] = set()

    def __repr__(self) -> str:
        """Tell the model, the watched layers and the loss."""
        watched = ", ".join(block.name for block in self.layout.blocks)
        return (
            f"<{type(self).__name__} of {self.model.name!r}: {self.nb_params} parameters of "
            f"{watched} watched, {self.loss_function.description}>"
        )

    def __reduce__(self) -> tuple:
        """Pickle and copy the model with its settings; what was compiled is made again."""
        state = self.loss_function, self.class_weight, self.unweighted_process, self.terms
        places = watched_places(self.model, self.weights)
        return _unpickled, (type(self), to_pickle(self.model), places, state)

    def rewrapped(
        self,
        model: keras.Model | None = None,
        weights: Any = None,
        loss_function: PerExampleLoss | None = None,
        process: BatchProcessor | None = None,
    ) -> BaseInfluenceModel:
        """Return another model, other weights, or another loss, wrapped with the same settings.

        Parameters
        ----------
        model
            A Keras model of the same form; None takes this one.
        weights
            Its variables to watch; None takes those of this one.
        loss_function
            None takes the loss of this one.
        process
            How batches are read; None takes that of this one.
        """
        result = object.__new__(BaseInfluenceModel)
        vars(result).update(vars(self))
        result.model = self.model if model is None else model
        if model is not None or weights is not None:  # else they may be frozen by now
            chosen = self.weights if weights is None else weights
            result.weights = resolve_variables(result.model, chosen)
        result.layout = ParameterLayout(result.weights)
        result.loss_function = loss_function or self.loss_function
        if process is not None:
            result.class_weight, result.unweighted_process = None, process
            result.process_batch_for_loss_fn = process
        result._resources, result._told = {}, set()
        return result

    @property
    def nb_params(self) -> int:
        """The number p of watched parameters."""
        return self.layout.size

    @property
    def dtype(self) -> tf.DType:
        """The dtype of gradients and scores: that of the watched variables, at least float32."""
        dtype = tf.as_dtype(self.weights[0].dtype)
        return tf.float32 if dtype in (tf.float16, tf.bfloat16) else dtype

    @property
    def input_rank(self) -> int | None:
        """The rank of the model's input, batch axis included, where one tensor is its input."""
        if self.unweighted_process is not default_process_batch:
            return None
        inputs = getattr(self.model, "inputs", None) or []
        # Keras gives inputs (b,) their missing axis of size one, so that their rank tells nothing.
        if len(inputs) != 1 or tuple(inputs[0].shape[1:]) == (1,):
            return None
        return len(inputs[0].shape)

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of the Keras model."""
        return self.model.layers

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The trainable variables of the Keras model, watched or not."""
        return self.model.trainable_variables

    def __call__(self, inputs: Any) -> Any:
        """Run the model in inference mode."""
        with exact_moments():
            return self.model(inputs, training=False)

    def predict_batch(self, batch: Batch) -> Any:
        """Return the model's outputs for a batch of the dataset, in inference mode."""
        return self(self.process_batch_for_loss_fn(batch)[0])

    def per_example_losses(self, batch: Batch) -> tf.Tensor:
        """Return the losses ``(b,)`` of a batch, sample weights included."""
        inputs, targets, sample_weight = self.process_batch_for_loss_fn(batch)
        outputs = self(inputs)
        self._warn_of_call_losses()
        losses = self.loss_function(targets, outputs, sample_weight)
        return tf.cast(losses, self.dtype)

    @property
    def is_regularized(self) -> bool:
        """Whether R has a part in the watched variables: a regulariser, or weight decay.

        Warns
        -----
        IgnoredTermWarning
            If training had something beside the losses that has no place in R; said once.
        """
        doubts = doubts_of_regularizer(self.model, self.loss_function, self.terms)
        for message in [*self.terms.ignored, *(doubts if self._penalties else [])]:
            self._tell(message)
        return bool(self._penalties) and self.terms.weight > 0

    def regularization(self) -> tf.Tensor:
        """Return ``R(θ)``, a scalar: regularisers and weight decay of the watched variables."""
        if not self.is_regularized:
            return tf.zeros((), self.dtype)
        terms = [tf.cast(term(v.value), self.dtype) for v, term in self._penalties]
        return self.terms.weight * tf.add_n(terms)

    @property
    def _penalties(self) -> list[Penalty]:
        return penalties(self.model, self.weights, self.terms)

    def regularization_gradient(self) -> tf.Tensor:
        """Return ``∇R(θ)``, shape ``(p,)``."""
        values = [v.value for v in self.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            penalty = self.regularization()
        gradients = tape.gradient(penalty, values, unconnected_gradients="zero")
        return self.layout.flatten([tf.cast(g, self.dtype) for g in gradients])

    def shares_of_regularization(self, batch: Batch) -> tf.Tensor:
        """Return what goes of R with each example of a batch, in units of R/n, shape ``(b,)``.

        That is 1, or where Keras divided by the sum of the sample weights, these over their mean.
        """
        _, targets, sample_weight = self.process_batch_for_loss_fn(batch)
        if sample_weight is None or not divides_by_weights(self.model, self.loss_function):
            return tf.ones(tf.shape(tf.nest.flatten(targets)[0])[:1], self.dtype)
        parts = [tf.cast(part, self.dtype) for part in tf.nest.flatten(sample_weight)]
        reduce = {"sum": tf.reduce_sum, "mean": tf.reduce_mean}[self.loss_function.over_positions]
        rows = [reduce(tf.reshape(part, (tf.shape(part)[0], -1)), axis=1) for part in parts]
        return tf.add_n(rows) / (len(rows) * self.terms.weight)

    def resource(self, key: Hashable, make: Callable[[], Resource]) -> Resource:
        """Return what an upper layer built once for this model, building it at first use."""
        if key not in self._resources:
            self._resources[key] = make()
        return self._resources[key]

    def _tell(self, message: str) -> None:
        """Warn of a term that is left out, once for each model."""
        if message not in self._told:
            self._told.add(message)
            warnings.warn(message, IgnoredTermWarning, stacklevel=3)

    def _warn_of_call_losses(self) -> None:
        """Say once that losses added in a call (activity regularisers) are not part of R."""
        regularised = sum(v.regularizer is not None for v in self.model.trainable_variables)
        if len(self.model.losses) > regularised:
            self._tell(
                "The model adds losses in its call (activity regularisers or add_loss). They "
                "belong to a whole batch, not to an example or to the weights, so that "
                "attribution leaves them out."
            )


class InfluenceModel(BaseInfluenceModel):
    """A `BaseInfluenceModel` that watches a layer, or a range of layers.

    Parameters
    ----------
    model
        A built Keras model.
    start_layer
        Name or index of the first watched layer. None means the last layer with weights to run
        that the loss depends on, within a nested model if that is the last. Layers of nested
        models are found by name.
    last_layer
        Name or index of the last watched layer; None means ``start_layer`` alone.
    loss_function, process_batch_for_loss_fn, loss_over_positions
        As for `BaseInfluenceModel`.
    class_weight, weight_decay, regularizer_weight
        As for `BaseInfluenceModel`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(3)])
    >>> InfluenceModel(model, loss_function="mse").nb_params
    27
    >>> InfluenceModel(model, start_layer=0, last_layer=-1, loss_function="mse").nb_params
    67
    """

    def __init__(
        self,
        model: keras.Model,
        start_layer: LayerKey = None,
        last_layer: LayerKey = None,
        loss_function: Any = None,
        process_batch_for_loss_fn: BatchProcessor = default_process_batch,
        loss_over_positions: str = "sum",
        *,
        class_weight: Mapping[int, float] | None = None,
        weight_decay: float | str = AUTO,
        regularizer_weight: float | None = None,
    ) -> None:
        check_model(model)
        super().__init__(
            model,
            select_weights(model, start_layer, last_layer, loss_function or compiled_loss(model)),
            loss_function,
            process_batch_for_loss_fn,
            loss_over_positions,
            class_weight=class_weight,
            weight_decay=weight_decay,
            regularizer_weight=regularizer_weight,
        )


def _unpickled(kind: type, model: tuple, places: list[int], state: tuple) -> BaseInfluenceModel:
    result: BaseInfluenceModel = object.__new__(kind)
    result.loss_function, result.class_weight, result.unweighted_process, result.terms = state
    result.model = from_pickle(*model)
    result.weights = [result.model.weights[place] for place in places]
    result.layout = ParameterLayout(result.weights)
    result.process_batch_for_loss_fn = with_class_weight(state[2], state[1])
    result._resources, result._told = {}, set()
    return result


def check_influence_model(model: Any) -> None:
    """Refuse what is no wrapped model.

    Raises
    ------
    TypeError
        Says how to wrap one.
    """
    if not isinstance(model, BaseInfluenceModel):
        message = (
            "Argument `model` must be an InfluenceModel. Received: "
            f"{type(model).__name__}. Wrap the Keras model: InfluenceModel(model)."
        )
        raise TypeError(message)
