"""A Keras model with its per-example loss and the weights that attribution looks at."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import keras
import tensorflow as tf

from ..backend import check_backend
from ..errors import IgnoredTermWarning, UnsupportedModelError
from ..types import Batch, BatchProcessor, ProcessedBatch
from .losses import PerExampleLoss
from .parameters import ParameterLayout
from .selection import LayerKey, resolve_variables, select_weights

Resource = TypeVar("Resource")

# Importing Keras may have chosen a back end from its configuration file.
check_backend()


def default_process_batch(batch: Batch) -> ProcessedBatch:
    """Read a batch as `keras.Model.fit` does: ``(x, y)`` or ``(x, y, sample_weight)``.

    Raises
    ------
    ValueError
        If the batch is no tuple of two or three parts.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        parts = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else "no tuple"
        message = (
            "A batch must be (x, y) or (x, y, sample_weight). Received: "
            f"{type(batch).__name__} with {parts}. For other forms pass "
            "`process_batch_for_loss_fn=`, a function that returns (x, y, sample_weight or None)."
        )
        raise ValueError(message)
    x, y, *rest = batch
    return x, y, rest[0] if rest else None


class BaseInfluenceModel:
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
        Turns what the dataset yields into ``(inputs, targets, sample_weight or None)``.
    loss_over_positions
        ``"sum"`` (default) or ``"mean"`` over loss axes beyond the batch, such as time or pixels.

    Raises
    ------
    MissingLossError
        If there is no loss at all.
    UnsupportedModelError
        If the model is not built, or a variable is not a trainable one of the model.
    """

    def __init__(
        self,
        model: keras.Model,
        weights_to_watch: Any = None,
        loss_function: Any = None,
        process_batch_for_loss_fn: BatchProcessor = default_process_batch,
        loss_over_positions: str = "sum",
    ) -> None:
        _check_model(model)
        self.model = model
        if weights_to_watch is None:
            weights_to_watch = model.trainable_variables
        self.weights = resolve_variables(model, weights_to_watch)
        self.layout = ParameterLayout(self.weights)
        loss_weights = None
        if loss_function is None:
            loss_function = getattr(model, "loss", None)
            loss_weights = _compiled_loss_weights(model)
        names = getattr(model, "output_names", None)
        self.loss_function = PerExampleLoss(loss_function, loss_weights, loss_over_positions, names)
        self.process_batch_for_loss_fn = process_batch_for_loss_fn
        self._resources: dict[Hashable, Any] = {}
        self._warned_of_call_losses = False

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
        if self.process_batch_for_loss_fn is not default_process_batch:
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

    def regularization(self) -> tf.Tensor:
        """Return ``R(θ)``, a scalar: the regularisers of the watched variables."""
        terms = [v.regularizer(v.value) for v in self.weights if v.regularizer is not None]
        return tf.add_n([tf.cast(t, self.dtype) for t in terms]) if terms else self._zero()

    def regularization_gradient(self) -> tf.Tensor:
        """Return ``∇R(θ)``, shape ``(p,)``."""
        values = [v.value for v in self.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            penalty = self.regularization()
        gradients = tape.gradient(penalty, values, unconnected_gradients="zero")
        return self.layout.flatten([tf.cast(g, self.dtype) for g in gradients])

    def batch_loss_tensor(self, batch: Batch) -> tf.Tensor:
        """Return the losses ``(b,)`` of a batch (the name of Influenciae)."""
        return self.per_example_losses(batch)

    def batch_gradient_tensor(self, batch: Batch) -> tf.Tensor:
        """Return the gradient ``(p,)`` of the summed losses of a batch."""
        values = [v.value for v in self.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            total = tf.reduce_sum(self.per_example_losses(batch))
        gradients = tape.gradient(total, values, unconnected_gradients="zero")
        return self.layout.flatten(
            [tf.cast(tf.convert_to_tensor(g), self.dtype) for g in gradients]
        )

    def batch_jacobian_tensor(self, batch: Batch) -> tf.Tensor:
        """Return the per-example gradients ``(b, p)`` by plain automatic differentiation.

        This is the slow, independent reference; `GradientEngine` gives the same numbers at the
        speed of a training step.
        """
        values = [v.value for v in self.weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            losses = self.per_example_losses(batch)
        rows = tape.jacobian(losses, values, unconnected_gradients="zero")
        return self.layout.flatten_rows(rows)

    def resource(self, key: Hashable, make: Callable[[], Resource]) -> Resource:
        """Return what an upper layer built once for this model, building it at first use."""
        if key not in self._resources:
            self._resources[key] = make()
        return self._resources[key]

    def _zero(self) -> tf.Tensor:
        return tf.zeros((), self.dtype)

    def _warn_of_call_losses(self) -> None:
        """Say once that losses added in a call (activity regularisers) are not part of R."""
        if self._warned_of_call_losses:
            return
        regularised = sum(v.regularizer is not None for v in self.model.trainable_variables)
        if len(self.model.losses) > regularised:
            self._warned_of_call_losses = True
            message = (
                "The model adds losses in its call (activity regularisers or add_loss). They "
                "belong to a whole batch, not to an example or to the weights, so that "
                "attribution leaves them out."
            )
            warnings.warn(message, IgnoredTermWarning, stacklevel=3)


class InfluenceModel(BaseInfluenceModel):
    """A `BaseInfluenceModel` that watches a layer, or a range of layers.

    Parameters
    ----------
    model
        A built Keras model.
    start_layer
        Name or index of the first watched layer; None means the last layer with weights. Layers
        of nested models are found by name.
    last_layer
        Name or index of the last watched layer; None means ``start_layer`` alone.
    loss_function, process_batch_for_loss_fn, loss_over_positions
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
    ) -> None:
        _check_model(model)
        super().__init__(
            model,
            select_weights(model, start_layer, last_layer),
            loss_function,
            process_batch_for_loss_fn,
            loss_over_positions,
        )


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


def _compiled_loss_weights(model: keras.Model) -> Any:
    """Return the loss weights of a compiled model, or None."""
    if not getattr(model, "loss", None):
        return None
    try:
        return model.get_compile_config().get("loss_weights")
    except (TypeError, NotImplementedError) as error:
        # Keras can only tell them together with loss and optimizer, which it cannot write down.
        message = (
            "The model is compiled with a loss, an optimizer or a schedule that Keras cannot "
            f"serialise ({str(error)[:100]}), so that its loss weights cannot be read; they are "
            "taken as one. Give it a get_config method, register a function with "
            "keras.saving.register_keras_serializable, or pass `loss_function=`."
        )
        warnings.warn(message, IgnoredTermWarning, stacklevel=3)
        return None


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        message = f"Argument `model` must be a keras.Model. Received: {type(model).__name__}."
        raise TypeError(message)
    if not model.built:
        message = (
            "The model must be built, so that its weights exist. Received: an unbuilt "
            f"{type(model).__name__}. Call it once on a batch, or give it an Input."
        )
        raise UnsupportedModelError(message)
