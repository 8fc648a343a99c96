"""Other settings have other descriptions, and the same ones the same."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.benchmark import FunctionFactory, KerasTrainingProcedure
from deel_influence.model.computations import describe_settings as describe
from deel_influence.utils.digests import digest_of_examples
from tests.benchmark.problems import make_model

SCALE = 1.0


def scaled(value: float, factor: float) -> float:
    return factor * value


def scaling(factor: float) -> Callable[[float], float]:
    return lambda value: factor * value


def with_set() -> bool:
    return "a" in {"a", "b", "c"}


def decay(rate: float) -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.ExponentialDecay(rate, 10, 0.5)


class WithoutConfig(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: tf.Tensor) -> float:
        return self.rate


PAIRS = {
    "constants": (lambda x: x + 0.1, lambda x: x + 10.0),
    "names": (lambda x: np.sin(x), lambda x: np.cos(x)),
    "defaults": (lambda x, y=1: x + y, lambda x, y=2: x + y),
    "closures": (scaling(0.1), scaling(10.0)),
    "inner functions": (lambda x: [i + 1 for i in x], lambda x: [i + 2 for i in x]),
    "partials": (functools.partial(scaled, factor=0.1), functools.partial(scaled, factor=10.0)),
    "factories": (FunctionFactory(scaling(0.1)), FunctionFactory(scaling(10.0))),
    "arrays": (np.arange(3.0), np.arange(3.0) + 1),
    "large arrays": (np.arange(99.0), np.arange(99.0) + 1),
    "tensors": (tf.constant([1.0]), tf.constant([2.0])),
    "paths": (Path("a"), Path("b")),
    "schedules": (decay(0.1), decay(0.2)),
    "schedules without a config": (WithoutConfig(0.1), WithoutConfig(0.2)),
    "optimizers": (keras.optimizers.SGD(decay(0.1)), keras.optimizers.SGD(decay(0.2))),
    "infinities": (float("inf"), -float("inf")),
    "types of numbers": (1, True),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_other_settings_have_other_descriptions_that_json_gives_back(one, other):
    texts = [json.dumps(describe(value), allow_nan=False) for value in (one, other)]
    assert texts[0] != texts[1]
    assert json.loads(texts[0]) == describe(one)


def test_the_same_settings_have_the_same_description():
    assert describe(scaling(0.1)) == describe(scaling(0.1))
    # Keras gives the second one another name.
    assert describe(keras.optimizers.SGD(0.1)) == describe(keras.optimizers.SGD(0.1))


def test_a_global_number_that_a_function_uses_belongs_to_its_description(monkeypatch):
    function = lambda x: SCALE * x  # noqa: E731
    before = describe(function)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert describe(function) != before


def test_sets_have_an_order_that_does_not_change_from_process_to_process():
    assert describe({"c", "a", "b"}) == ["a", "b", "c"]
    (constant,) = (c for c in with_set.__code__.co_consts if isinstance(c, frozenset))
    assert describe(constant) == ["a", "b", "c"]


def test_what_is_only_shown_is_no_setting():
    quiet, loud = (KerasTrainingProcedure(make_model, 3, verbose=v) for v in (False, True))
    assert describe(quiet) == describe(loud)
    assert describe(quiet) != describe(KerasTrainingProcedure(make_model, 4))


def test_the_digest_of_a_dataset_changes_with_every_example_and_with_their_order():
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    other = x.copy()
    other[-1, -1] += 1e-6
    order = np.arange(20)[::-1]
    sets = [(x, y), (x, y), (other, y), (x, y + 1), (x[order], y[order])]
    datasets = [tf.data.Dataset.from_tensor_slices(arrays) for arrays in sets]
    first, same, *others = (digest_of_examples(dataset) for dataset in datasets)
    assert first == same
    assert len({first, *others}) == 4
    assert digest_of_examples(datasets[0], False) == digest_of_examples(datasets[-1], False)
