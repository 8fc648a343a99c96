"""Calculators are values: described, made again, saved, and sent; their results are parts."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import InfluenceBlock, SelfInfluenceCalculator
from deel_influence.errors import DatasetOrderError, DataSourceError, SavedCurvatureError
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import (
    EKFACIHVP,
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    IdentityIHVP,
)
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
    PerturbationInfluenceCalculator,
    SecondOrderInfluenceCalculator,
)
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.trac_in import GradientCosine, TracIn
from deel_influence.utils.kernels import Kernel
from tests.calculators.table import CALCULATORS, SELF_CALCULATORS
from tests.calculators.test_contract import QUERIES, TRAIN, N, arrays, fresh


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


def model() -> BaseInfluenceModel:
    return fresh(SELF_CALCULATORS[-1]).model


@pytest.mark.parametrize("case", [*CALCULATORS, *SELF_CALCULATORS], ids=lambda case: case.id)
def test_a_calculator_made_again_and_pickled_gives_the_same_scores(case, tmp_path):
    calculator = fresh(case)
    expected = calculator.score(TRAIN, verbose=0).values
    other = pickle.loads(pickle.dumps(calculator.with_dataset(TRAIN)))
    assert type(other) is type(calculator)
    np.testing.assert_allclose(other.score(TRAIN, verbose=0).values, expected, rtol=2e-3, atol=1e-6)
    json.dumps(other.get_config(), allow_nan=False)
    assert other.get_config() == calculator.get_config()
    try:
        path = calculator.save(tmp_path / "calculator")
    except ValueError:  # what is refused, and how, is another test's business
        return
    loaded = SelfInfluenceCalculator.load(path, calculator.model, TRAIN)
    assert type(loaded) is type(calculator)
    np.testing.assert_allclose(loaded.score(TRAIN, verbose=0).values, expected, rtol=1e-5)


def first_order(wrapped: BaseInfluenceModel, **options) -> FirstOrderInfluenceCalculator:
    strategy = EKFACIHVP(wrapped, TRAIN, damping=0.1, seed=3, verbose=0)
    return FirstOrderInfluenceCalculator(wrapped, TRAIN, strategy, **options)


def test_the_config_tells_the_settings_by_the_names_of_the_arguments():
    config = first_order(model(), normalize="loss", measurement="margin").get_config()
    assert config["normalize"] == "loss"
    assert config["measurement"] == "margin"
    assert config["ihvp_calculator"]["name"] == "ekfac"
    assert config["ihvp_calculator"]["damping"] == 0.1
    assert "model" not in config
    assert "dataset" not in config


def test_a_saved_calculator_scores_a_part_as_the_whole_did(tmp_path):
    wrapped = model()
    calculator = first_order(wrapped, normalize="theta", measurement="margin")
    matrix = calculator.influence_matrix(QUERIES, TRAIN, verbose=0)
    changes = calculator.predict_loss_change(QUERIES, TRAIN, verbose=0)
    path = calculator.save(tmp_path / "calculator")
    part = TRAIN.take(1)
    loaded = SelfInfluenceCalculator.load(path, wrapped, part)
    assert isinstance(loaded, FirstOrderInfluenceCalculator)
    assert loaded.get_config() == calculator.get_config()
    np.testing.assert_array_equal(loaded.influence_matrix(QUERIES, part, verbose=0), matrix[:, :8])
    found = loaded.predict_loss_change(QUERIES, part, verbose=0)
    np.testing.assert_allclose(found, changes[:, :8], rtol=1e-6)


def test_a_method_without_a_fit_is_saved_too(tmp_path):
    wrapped = model()
    path = GradientCosine(wrapped, measurement="logit").save(tmp_path / "cosine.npz")
    loaded = GradientCosine.load(path, wrapped)
    np.testing.assert_array_equal(
        loaded.influence_matrix(QUERIES, TRAIN, verbose=0),
        GradientCosine(wrapped, measurement="logit").influence_matrix(QUERIES, TRAIN, verbose=0),
    )
    with pytest.raises(DataSourceError, match="GradientCosine, which is no known TracIn"):
        TracIn.load(path, wrapped)
    wrapped.model.weights[0].assign_add(wrapped.model.weights[0])
    with pytest.raises(DataSourceError, match="weights"):
        GradientCosine.load(path, wrapped)


def test_a_fit_on_a_sample_is_saved_with_its_sample(tmp_path):
    wrapped = model()
    calculator = FirstOrderInfluenceCalculator(
        wrapped, TRAIN, "ekfac", n_samples_for_hessian=10, seed=0
    )
    path = calculator.save(tmp_path / "calculator")
    loaded = SelfInfluenceCalculator.load(path, wrapped, TRAIN)
    assert loaded.ihvp_calculator.get_config()["n_samples_for_hessian"] == 10
    expected = calculator.score(TRAIN, verbose=0).values
    np.testing.assert_allclose(loaded.score(TRAIN, verbose=0).values, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [SecondOrderInfluenceCalculator, PerturbationInfluenceCalculator])
def test_a_measurement_survives_a_pickle(kind):
    wrapped = model()
    calculator = kind(wrapped, TRAIN, IdentityIHVP(wrapped), measurement="margin")
    other = pickle.loads(pickle.dumps(calculator))
    assert other.query_model is not other.model
    assert other.get_config() == calculator.get_config()


def test_settings_of_a_method_that_hands_its_own_on_are_known():
    class Named(FirstOrderInfluenceCalculator):
        def __init__(self, model, dataset, **settings):
            super().__init__(model, dataset, **settings)

    class Strong(EKFACIHVP):
        def __init__(self, model, train_dataset=None, strength=1.0):
            super().__init__(model, train_dataset, damping=strength, seed=0, verbose=0)

    wrapped = model()
    strategy = Strong(wrapped, TRAIN, 0.3)
    assert strategy.get_config()["damping"] == 0.3
    calculator = Named(wrapped, TRAIN, ihvp_calculator=strategy, normalize="loss")
    assert calculator.get_config()["normalize"] == "loss"
    plain = Named(wrapped, TRAIN, ihvp_calculator="identity", normalize="loss")
    assert plain.with_dataset(TRAIN).normalize == "loss"


def test_settings_may_be_arrays():
    wrapped = model()
    damping = np.linspace(0.1, 0.2, len(wrapped.layout.blocks))
    strategy = ConjugateGradientDescentIHVP(wrapped, train_dataset=TRAIN, damping=damping)
    assert list(strategy.get_config()["damping"]) == damping.tolist()


def test_damaged_files_and_other_kinds_are_refused_by_one_class(tmp_path):
    wrapped = model()
    path = first_order(wrapped).save(tmp_path / "calculator.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    strategy = ExactIHVP(wrapped, TRAIN, damping=0.5).save(tmp_path / "strategy.npz")
    for other in (path, strategy, tmp_path / "nowhere.npz"):
        with pytest.raises(DataSourceError, match="saved calculator"):
            SelfInfluenceCalculator.load(other, wrapped, TRAIN)


def test_what_a_file_of_settings_cannot_hold_is_left_to_pickle(tmp_path):
    wrapped = model()
    last = InfluenceModel(wrapped.model, loss_function=wrapped.loss_function.loss)
    cases = {
        "dataset": NewtonStepInfluenceCalculator(last, TRAIN, damping=0.1),
        "measurement": GradientCosine(wrapped, measurement=lambda y, outputs: outputs[:, 0]),
        "models": TracIn([wrapped, wrapped], 0.1),
    }
    for name, calculator in cases.items():
        with pytest.raises(ValueError, match=f"because of its {name}. Use pickle"):
            calculator.save(tmp_path / "calculator")
    assert not list(tmp_path.iterdir())


def test_every_calculator_says_what_it_answers():
    for case in (*CALCULATORS, *SELF_CALCULATORS):
        calculator = fresh(case)
        methods = {
            "self": "score",
            "pairs": "influence_matrix",
            "groups": "compute_influence_vector_group",
            "loss change": "predict_loss_change",
        }
        has = {kind for kind, name in methods.items() if hasattr(calculator, name)}
        assert calculator.answers - {"measurement"} == has, case.id
    assert "measurement" in GradientCosine.answers
    assert "score" not in dir(SecondOrderInfluenceCalculator)
    assert SecondOrderInfluenceCalculator.answers == {
        "pairs",
        "groups",
        "loss change",
        "measurement",
    }


def test_changes_of_loss_are_asked_for_in_one_way():
    wrapped = model()
    last = InfluenceModel(wrapped.model, loss_function=wrapped.loss_function.loss)
    groups = np.arange(N) % 4 - 1
    for calculator in (
        first_order(wrapped),
        NewtonStepInfluenceCalculator(last, TRAIN, damping=0.5),
        SecondOrderInfluenceCalculator(last, TRAIN, ExactIHVP(last, TRAIN, damping=0.5)),
    ):
        changes = calculator.predict_loss_change(
            QUERIES, TRAIN, groups=groups, id_fn=None, device=None, verbose=0
        )
        assert changes.shape == (9, 3)
    newton = NewtonStepInfluenceCalculator(last, TRAIN, damping=0.5)
    single = newton.predict_loss_change(QUERIES, TRAIN, verbose=0)
    summed = np.stack([single[:, groups == number].sum(axis=1) for number in range(3)], axis=1)
    found = newton.predict_loss_change(QUERIES, TRAIN, groups, verbose=0)
    np.testing.assert_allclose(found, summed, rtol=1e-5, atol=1e-8)


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
            for inputs, scores in scored
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


def test_other_data_are_refused_where_products_go_over_them(tmp_path):
    wrapped = model()
    calculator = FirstOrderInfluenceCalculator(wrapped, TRAIN, "cgd")
    path = calculator.save(tmp_path / "cgd")
    with pytest.raises(SavedCurvatureError, match="the training set of the fit"):
        SelfInfluenceCalculator.load(path, wrapped, TRAIN.take(2))
    loaded = SelfInfluenceCalculator.load(path, wrapped, TRAIN)
    np.testing.assert_allclose(
        loaded.score(TRAIN, verbose=0).values, calculator.score(TRAIN, verbose=0).values, rtol=1e-4
    )
