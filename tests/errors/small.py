"""The small problem that all rows of the tables begin with, and what a row has to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deel_influence.calculators.scores import Scores
from deel_influence.common import ExactIHVP, InfluenceModel
from deel_influence.errors import DeelInfluenceError
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.report import Triage, run_triage

N, D, C = 12, 4, 3
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % C
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batches(*parts: Any, size: int = 6) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(parts or (X, Y)).batch(size)


def network(*layers: keras.layers.Layer, inputs: Any = None, loss: Any = CE) -> keras.Model:
    keras.utils.set_random_seed(1)
    first = keras.Input((D,)) if inputs is None else inputs
    hidden = keras.layers.Dense(5, activation="tanh", name="hidden")
    model = keras.Sequential([first, *(layers or (hidden, keras.layers.Dense(C, name="logits")))])
    model.compile(loss=loss)
    return model


class Small:
    """A network, its data and what is made of them, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def keras(self) -> keras.Model:
        return network()

    @cached_property
    def model(self) -> InfluenceModel:
        return InfluenceModel(self.keras)

    @cached_property
    def data(self) -> tf.data.Dataset:
        return batches()

    @cached_property
    def calculator(self) -> FirstOrderInfluenceCalculator:
        calculator = FirstOrderInfluenceCalculator(self.model, self.data, "identity")
        calculator.score(self.data, verbose=0)  # whatever runs first, it has seen good data
        return calculator

    @cached_property
    def strategy(self) -> Path:
        return ExactIHVP(self.model, self.data, damping=0.1).save(self.folder / "exact.npz")

    @cached_property
    def triage(self) -> Triage:
        return run_triage(self.model, self.calculator, self.data, verbose=0)

    def score(self, data: Any = None, **options: Any) -> Scores:
        """Score data with the network wrapped by other options, or data alone by the usual ones."""
        if not options:
            return self.calculator.score(data, verbose=0)
        model = InfluenceModel(self.keras, **options)
        data = self.data if data is None else data
        return FirstOrderInfluenceCalculator(model, data, "identity").score(data, verbose=0)

    def measure(self, measurement: Any) -> np.ndarray:
        """Score pairs by what a measurement says of the queries."""
        options = {"measurement": measurement}
        calculator = FirstOrderInfluenceCalculator(self.model, self.data, "identity", **options)
        return calculator.influence_matrix(self.data, self.data, verbose=0)

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def arrays(self, name: str = "data.npz", **arrays: Any) -> Path:
        path = self.folder / name
        np.savez(path, **arrays)
        return path


@dataclass(frozen=True)
class Row:
    """What is done, the class of the error, and words of its message.

    Attributes
    ----------
    act
        Takes the small problem, and raises.
    kind
        The class.
    words
        All of them are in the message, in any case of letters.
    """

    act: Callable[[Small], Any]
    kind: type[Exception]
    words: tuple[str, ...]


def row(act: Callable[[Small], Any], kind: type[Exception], *words: str) -> Row:
    return Row(act, kind, words)


def check_row(case: Row, small: Small) -> None:
    """Check that what is done is refused in one line that names rule, received and remedy."""
    error = None
    try:
        case.act(small)
    except Exception as found:
        error = found
    assert error is not None, "nothing was refused"
    message = str(error)
    assert type(error) is case.kind, f"{type(error).__name__}: {message[:300]}"
    own = isinstance(error, DeelInfluenceError)
    assert own or message.startswith("Argument `"), message
    assert len(message.splitlines()) == 1, message
    assert "eceived" in message, message
    missing = [word for word in case.words if word.lower() not in message.lower()]
    assert not missing, f"{missing} not in: {message}"
