"""What is measured on the queries after each retraining."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import NonFiniteError
from ..linalg.checks import check_count
from ..model.computations import describe
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement, measured_model
from ..utils.kernels import Kernel
from .in_memory_data import InMemoryData


class QueryOutputs:
    """Measure a model on each query: its loss, its margin, or another number.

    The function is compiled once for a model object, so that one whose weights change between
    calls is measured fast.

    Parameters
    ----------
    inputs
        The m queries, as the model takes them, shape ``(m, ...)``.
    labels
        Their labels, shape ``(m,)`` or as the loss takes them.
    measurement
        ``"loss"``; ``"margin"``, the log-odds of the label's class; ``"logit"``, the output for
        it; or a function of targets and outputs that returns ``(b,)``. Of margins and logits,
        higher is better.
    loss
        A Keras loss, its name, or a callable; None takes the one that the model was compiled with.
    batch_size
        Queries in a batch.

    Raises
    ------
    ValueError
        If there are no queries, or not as many labels.

    Examples
    --------
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.array([[1.0], [2.0]])])
    >>> measure = QueryOutputs([[1.0, 1.0], [0.0, 1.0]], [3.0, 0.0], loss="mse")
    >>> measure(model)
    array([0., 4.])
    """

    def __init__(
        self,
        inputs: Any,
        labels: Any,
        measurement: Measurement = "loss",
        loss: Any = None,
        batch_size: int = 1024,
    ) -> None:
        self._data = InMemoryData((inputs, labels), ("inputs", "labels"))
        self.num_queries = self._data.num_examples
        self.measurement = measurement
        self._loss = loss
        self.batch_size = check_count("batch_size", batch_size)
        self._model: keras.Model | None = None
        self._kernel: Kernel | None = None

    @property
    def higher_is_better(self) -> bool | None:
        """Whether a larger number is a better one: of margins and logits, not of losses.

        None for a function, of which it is not known.
        """
        if callable(self.measurement):
            return None
        return self.measurement in ("margin", "logit")

    def fingerprint(self) -> dict[str, Any]:
        """Return what the outputs depend on beside the model, as JSON can hold it."""
        settings = {"measurement": self.measurement, "loss": self._loss}
        described = {name: describe(value) for name, value in settings.items()}
        return {"data": self._data.digest(), **described}

    def __call__(self, model: keras.Model) -> np.ndarray:
        """Return the outputs ``(m,)``, float64.

        Raises
        ------
        NonFiniteError
            If one is NaN or infinite.
        """
        kernel = self._kernel_of(model)
        starts = range(0, self.num_queries, self.batch_size)
        batches = (self._data.slice(start, start + self.batch_size) for start in starts)
        parts = [kernel(batch).numpy() for batch in batches]
        outputs = np.concatenate(parts).astype(np.float64)
        check_finite_outputs(outputs)
        return outputs

    def _kernel_of(self, model: keras.Model) -> Kernel:
        if self._kernel is None or self._model is not model:
            wrapped = BaseInfluenceModel(model, loss_function=self._loss)
            measured = measured_model(wrapped, self.measurement)
            self._model, self._kernel = model, Kernel(measured.per_example_losses)
        return self._kernel


def check_finite_outputs(outputs: np.ndarray) -> None:
    """Refuse outputs ``(m,)`` of a model of which one is no finite number.

    Raises
    ------
    NonFiniteError
        Names the first query.
    """
    finite = np.isfinite(outputs)
    if finite.all():
        return
    message = (
        f"The outputs of a model must be finite. Received: {int((~finite).sum())} of "
        f"{len(outputs)} that are NaN or infinite, the first for query {np.argmin(finite)}. Lower "
        "the learning rate, or check the training."
    )
    raise NonFiniteError(message)
