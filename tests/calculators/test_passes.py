"""How data are gone over: how often, in which order, by which kernels; and results as parts."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import InfluenceBlock, SelfInfluenceCalculator
from deel_influence.errors import DatasetOrderError
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import EKFACIHVP, ExactIHVP, IdentityIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator, PerturbationInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.trac_in import GradientCosine
from deel_influence.utils.kernels import Kernel
from tests.calculators.test_contract import QUERIES, TRAIN, N, arrays
from tests.calculators.test_values import model


class Counted:
    """A dataset of batches of 4, which counts how often it is opened and what is read of it."""

    def __init__(self, n: int, seed: int) -> None:
        x, y = arrays(n, seed)
        self.ids = np.arange(n)
        self.num_batches = -(-n // 4)
        self.opened = self.read = 0

        def generate():
            self.opened += 1
            for start in range(0, n, 4):
                self.read += 1
                yield x[start : start + 4], y[start : start + 4]

        signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))
        self.dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)

    def extra(self, passes: int = 1) -> int:
        """Return how many batches more were read since the last call than in so many passes."""
        extra, self.read = self.read - passes * self.num_batches, 0
        return extra


LOOK = 2
"""So many batches are read to see whether the order changes: one, and one fetched ahead."""


def test_no_data_are_read_more_often_than_the_work_takes(tmp_path):
    wrapped = model()
    train, queries = Counted(24, 0), Counted(12, 1)
    strategy = EKFACIHVP(wrapped, train.dataset, damping=0.1, seed=0, verbose=0)
    assert train.extra(2) <= 0
    calculator = FirstOrderInfluenceCalculator(wrapped, train.dataset, strategy)
    assert train.extra(0) == 0
    data = (queries.dataset, train.dataset)

    def all_values(**options):
        for _, values in calculator.estimate_influence_values_in_batches(*data, **options):
            list(values)

    work = [
        lambda: calculator.score(train.dataset, verbose=0),
        lambda: calculator.influence_matrix(*data, verbose=0),
        lambda: calculator.predict_loss_change(*data, verbose=0),
        lambda: list(calculator.influence_blocks(*data, verbose=0)),
        all_values,
        lambda: all_values(save_influence_value_path=tmp_path / "values"),
    ]
    for run in work:
        run()
        assert train.extra() == 0
        # The first time, a look at the first batch tells whether the order stays.
        assert queries.extra() <= LOOK
    assert len(list((tmp_path / "values").iterdir())) == queries.num_batches


def test_a_dataset_that_no_fit_has_read_costs_one_look_more():
    train = Counted(24, 0)
    calculator = GradientCosine(model(), measurement="logit")
    calculator.score(train.dataset, verbose=0)
    assert 0 < train.extra() <= LOOK
    calculator.score(train.dataset, verbose=0)
    assert train.extra() == 0


def test_values_of_batches_do_not_depend_on_what_fits_in_memory(monkeypatch):
    calculator = GradientCosine(model(), measurement="logit")
    expected = calculator.influence_matrix(QUERIES, TRAIN, verbose=0)
    # Inputs and scores fit, scores alone (9 · 23 · 4 bytes), and neither.
    for room in (2**30, 900, 0):
        monkeypatch.setattr(
            "deel_influence.calculators.blocks.bytes_to_hold", lambda room=room: room
        )
        found = [
            (inputs, scores)
            for _, scored in calculator.estimate_influence_values_in_batches(QUERIES, TRAIN)
            for (inputs, _), scores in scored
        ]
        assert [len(x) for x, _ in found[:3]] == [8, 8, 7]
        rows = [np.concatenate([s for _, s in found[i : i + 3]], axis=1) for i in (0, 3, 6)]
        np.testing.assert_allclose(np.concatenate(rows), expected, rtol=1e-5)


def test_inputs_that_are_read_again_are_those_that_were_scored(monkeypatch):
    x, y = arrays(N, 0)
    count = iter(range(100))

    def generate():
        # The first batch stays, and the others change places.
        rows = np.arange(N)
        rows[8:] = np.roll(rows[8:], next(count))
        for start in range(0, N, 8):
            yield x[rows[start : start + 8]], y[rows[start : start + 8]]

    signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))
    train = tf.data.Dataset.from_generator(generate, output_signature=signature)
    monkeypatch.setattr("deel_influence.calculators.blocks.bytes_to_hold", lambda: 900)
    calculator = GradientCosine(model(), measurement="logit")
    (_, scored), *_ = calculator.estimate_influence_values_in_batches(QUERIES, train)
    with pytest.raises(DatasetOrderError, match="the same batches on every pass.*batch 1"):
        list(scored)


def blocks() -> list[InfluenceBlock]:
    values = np.arange(20.0).reshape(4, 5)
    rows, columns = np.array([7, 1, 3, 5]), np.array([20, 10, 50, 40, 30])
    halves = (slice(0, 2), slice(2, 5))
    return [InfluenceBlock(rows, columns[part], values[:, part]) for part in halves]


def test_blocks_merge_in_any_order_and_by_either_side():
    one, two = blocks()
    for merged in (one.merge(two), two.merge(one)):
        assert merged.query_ids.tolist() == [1, 3, 5, 7]
        assert merged.train_ids.tolist() == [10, 20, 30, 40, 50]
        assert merged.values[3].tolist() == [1, 0, 4, 3, 2]
    whole = one.merge(two)
    top, rest = (
        InfluenceBlock(whole.query_ids[part], whole.train_ids, whole.values[part])
        for part in (slice(0, 1), slice(1, 4))
    )
    np.testing.assert_array_equal(rest.merge(top).values, whole.values)


def test_blocks_that_overlap_or_make_no_rectangle_are_refused(tmp_path):
    one, two = blocks()
    smaller = InfluenceBlock(two.query_ids[:3], two.train_ids, two.values[:3])
    for other in (one, smaller):
        with pytest.raises(ValueError, match="Score shards with `id_fn=`"):
            one.merge(other)
    with pytest.raises(ValueError, match="a row for each of `query_ids`"):
        InfluenceBlock(one.query_ids, one.train_ids, one.values.T)
    loaded = InfluenceBlock.load(one.save(tmp_path / "block.npz"))
    np.testing.assert_array_equal(loaded.values, one.values)


def test_blocks_of_shards_are_the_matrix_of_the_whole():
    numbered = TRAIN.unbatch().enumerate().map(lambda i, example: (*example, i)).batch(8)
    plain = model()
    wrapped = BaseInfluenceModel(
        plain.model,
        loss_function=plain.loss_function.loss,
        process_batch_for_loss_fn=lambda batch: (*batch[:2], None),
    )
    calculator = GradientCosine(wrapped, measurement="logit")
    queries = numbered.take(1)

    def id_fn(batch):
        return batch[2]

    (whole,) = calculator.influence_blocks(queries, numbered, id_fn, verbose=0)
    shards = [numbered.take(1), numbered.skip(1)]
    parts = [next(calculator.influence_blocks(queries, s, id_fn, verbose=0)) for s in shards]
    np.testing.assert_array_equal(parts[1].merge(parts[0]).values, whole.values)


def test_a_kernel_is_not_mistaken_for_one_around_other_values():
    engine = GradientEngine.of(model())

    def scaled(factor: float):
        return lambda values: factor * values

    two, three = engine.kernel("k", scaled(2.0)), engine.kernel("k", scaled(3.0))
    ones = tf.ones(2)
    assert (two(ones) + three(ones)).numpy().tolist() == [5.0, 5.0]
    assert engine.kernel("k", scaled(3.0)) is three
    with pytest.raises(ValueError, match="must be new for another function"):
        engine.kernel("k", lambda values: values)


def test_kernels_around_tensors_and_themselves_are_told_apart():
    engine = GradientEngine.of(model())
    one, two = tf.constant([1.0, 2.0]), (np.ones(2), np.zeros(2))

    def around(held):
        def again(values):
            return values if again is None else values * held[0]

        return again

    for held in (one, two):
        first = engine.kernel("around", around(held))
        assert engine.kernel("around", around(held)) is first


def test_gradients_of_a_fit_and_of_a_product_are_one_kernel():
    wrapped = model()
    constant = TRAIN.map(lambda x, y: (x * [1.0, 1.0, 1.0, 0.0], y))
    strategy = ExactIHVP(wrapped, constant, damping=0.0, curvature="gauss_newton", verbose=0)
    assert strategy.compute_hvp(constant).shape == (N, wrapped.nb_params)


def test_the_check_of_numbers_is_part_of_what_is_compiled():
    kernel = Kernel(lambda values: 1 / values)
    _, finite = kernel.checked(np.ones(3))
    assert bool(finite)
    for bad in (0.0, np.nan):
        _, finite = kernel.checked(np.array([1.0, bad, 1.0]))
        assert not bool(finite)
    assert kernel.num_traces == 1


def test_a_dataset_that_changes_its_order_is_refused_in_its_first_pass():
    shuffled = TRAIN.unbatch().shuffle(N, seed=1).batch(8)
    calculator = GradientCosine(model(), measurement="logit")
    for _ in range(2):
        with pytest.raises(DatasetOrderError, match="same order on every pass"):
            calculator.score(shuffled, verbose=0)


def test_what_a_fit_has_read_without_order_is_still_looked_at():
    wrapped = model()
    shuffled = TRAIN.unbatch().shuffle(N, seed=1).batch(8)
    calculator = PerturbationInfluenceCalculator(wrapped, shuffled, "ekfac")
    with pytest.raises(DatasetOrderError, match="same order on every pass"):
        calculator.influence_tensor(QUERIES, shuffled, id_fn=lambda batch: batch[1])


def test_a_group_may_come_in_any_order():
    wrapped = model()
    calculator = FirstOrderInfluenceCalculator(wrapped, TRAIN, IdentityIHVP(wrapped))
    vector = calculator.compute_influence_vector_group(TRAIN)
    shuffled = TRAIN.unbatch().shuffle(N, seed=1).batch(8)
    np.testing.assert_allclose(
        calculator.compute_influence_vector_group(shuffled), vector, rtol=1e-4, atol=1e-5
    )


def test_hooks_that_run_as_python_are_named_by_their_names():
    class Host(SelfInfluenceCalculator):
        _eager_hooks = frozenset({"_self_scores"})

        def _self_scores(self, batch):
            return tf.constant(np.linalg.norm(batch[0].numpy(), axis=1))

    scores = Host(model()).score(TRAIN, verbose=0)
    np.testing.assert_allclose(scores.values, np.linalg.norm(arrays(N, 0)[0], axis=1), rtol=1e-6)
