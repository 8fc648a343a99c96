"""What a call takes, counted and not timed: traces, passes over the data, numbers read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import BaseInfluenceCalculator
from deel_influence.errors import DeelInfluenceError, NonFiniteError
from deel_influence.gradients.engine import GradientEngine
from deel_influence.ihvp import EKFACIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.trac_in import GradientDot, TracIn
from deel_influence.trak import TRAK
from deel_influence.utils.kernels import Kernel
from tests.calculators.test_contract import arrays
from tests.calculators.test_passes import Counted
from tests.calculators.test_values import model

SHORT, LONG = Counted(16, 0), Counted(40, 0)
QUERIES = Counted(8, 1)
MORE = LONG.num_batches - SHORT.num_batches

METHODS: dict[str, Callable[[], BaseInfluenceCalculator]] = {
    "ekfac": lambda: FirstOrderInfluenceCalculator(model(), SHORT.dataset, "ekfac"),
    "identity": lambda: FirstOrderInfluenceCalculator(model(), SHORT.dataset, "identity"),
    "tracin": lambda: TracIn([model(), model()], [0.1, 0.2], measurement="logit"),
    "gradient dot": lambda: GradientDot(model(), measurement="logit"),
    "trak": lambda: TRAK(model(), LONG.dataset, projection_dim=4, damping=0.1, verbose=0),
}

# One for each kind of batch: training examples alone, or queries as well.
TRACES = {"score": 1, "influence_matrix": 2, "find_top_k": 2, "compute_influence_values": 1}

# Whether all is finite, which waits for the batch, and what then lies ready to be read.
READS = {"score": 2, "influence_matrix": 2, "find_top_k": 2, "compute_influence_values": 1}

made = cache(lambda method: METHODS[method]())


def work(calculator: BaseInfluenceCalculator, call: str, train: tf.data.Dataset) -> None:
    if call in ("influence_matrix", "find_top_k"):
        getattr(calculator, call)(QUERIES.dataset, train, verbose=0)
    elif call == "score":
        calculator.score(train, verbose=0)
    else:
        list(calculator.compute_influence_values(train))


@pytest.fixture
def traces(monkeypatch) -> list[Kernel]:
    """Note each time that a kernel is compiled."""
    found: list[Kernel] = []
    plain = Kernel._trace
    monkeypatch.setattr(Kernel, "_trace", lambda self, *a: found.append(self) or plain(self, *a))
    return found


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Note each time that numbers of a tensor are read in Python."""
    found: list[str] = []
    kind = type(tf.constant(0.0))
    for name in ("numpy", "__bool__", "__array__", "__int__", "__float__", "__index__"):
        plain = getattr(kind, name)

        def counting(self, *args, name=name, plain=plain, **options):
            found.append(name)
            return plain(self, *args, **options)

        monkeypatch.setattr(kind, name, counting)
    return found


@pytest.mark.parametrize("call", READS)
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_waited_for_once(method, call, reads):
    calculator = made(method)
    counts = []
    for train in (SHORT, SHORT, LONG, LONG):  # each once before, when its order is looked at
        reads.clear()
        work(calculator, call, train.dataset)
        counts.append(len(reads))
    by_content = method == "trak"  # which of the examples its fit has seen
    assert counts[3] - counts[1] == (READS[call] + by_content) * MORE


@pytest.mark.parametrize("call", TRACES)
@pytest.mark.parametrize("method", METHODS)
def test_each_kind_of_batch_is_compiled_for_once(method, call, traces):
    calculator = METHODS[method]()
    traces.clear()
    work(calculator, call, SHORT.dataset)
    assert len(traces) == TRACES[call]
    work(calculator, call, LONG.dataset)
    by_content = method == "trak"  # the fit has seen these examples, and not the others
    assert len(traces) == TRACES[call] + by_content


@pytest.mark.parametrize("call", TRACES)
@pytest.mark.parametrize("method", METHODS)
def test_the_data_are_opened_once(method, call):
    calculator = made(method)
    work(calculator, call, LONG.dataset)  # when their order is looked at
    before = LONG.opened, QUERIES.opened
    work(calculator, call, LONG.dataset)
    opened = LONG.opened - before[0], QUERIES.opened - before[1]
    assert opened == (1, TRACES[call] - 1)


def test_a_fit_reads_no_more_numbers_of_more_batches_that_can_be_joined(reads):
    wrapped, counts = model(), []
    for train in (SHORT, SHORT, LONG):  # the first settles how gradients are found
        reads.clear()
        EKFACIHVP(wrapped, train.dataset, damping=0.1, seed=0, verbose=0)
        counts.append(len(reads))
    assert GradientEngine.of(wrapped).plan.is_flat
    assert counts[2] == counts[1]


def test_what_is_wrong_with_a_batch_that_was_joined_is_told_of_that_batch():
    x, y = arrays(24, 0)
    x[18] = np.nan
    spoilt = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    with pytest.raises(NonFiniteError, match=r"batch 4 .* first for example 18"):
        EKFACIHVP(model(), spoilt, damping=0.1, seed=0, verbose=0)
    y[18], x[18] = 99, 0.0
    spoilt = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    with pytest.raises(DeelInfluenceError, match=r"[Bb]atch 4 .*16 to 19"):
        EKFACIHVP(model(), spoilt, damping=0.1, seed=0, fisher="empirical", verbose=0)


def test_networks_whose_layers_give_more_than_a_vector_are_not_flat():
    layers = keras.layers
    image = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(3)]
    )
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype("float32")
    y = np.arange(6) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    flat = {}
    for name, kind, net, inputs in (
        ("dense", BaseInfluenceModel, dense, x[:, :, 0, 0]),
        ("last layer", InfluenceModel, dense, x[:, :, 0, 0]),
        ("image", BaseInfluenceModel, image, x),
        ("last of image", InfluenceModel, image, x),
    ):
        engine = GradientEngine(kind(net, loss_function=loss))
        engine.prepare((tf.constant(inputs), tf.constant(y)))
        flat[name] = engine.plan.is_flat
    assert flat == {"dense": True, "last layer": True, "image": False, "last of image": False}
