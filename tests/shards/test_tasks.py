"""Shards that are computed apart give what the whole gives, in whatever form the data come."""

from __future__ import annotations

import pickle
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_influence.baselines import KNNShapley, LossScore
from deel_influence.errors import NoGradientWarning, ShardError
from deel_influence.ihvp import EKFACIHVP, NystromIHVP
from deel_influence.labels import LabelSuspicion
from deel_influence.shards import (
    SavedCalculator,
    Shard,
    build_index_in_shards,
    fit_in_shards,
    run_tasks,
    score_in_shards,
    split,
)
from deel_influence.utils import with_ids
from tests.shards import program
from tests.shards.program import BATCH, N


@pytest.fixture(scope="module")
def model():
    return program.wrapped()


@pytest.fixture(scope="module")
def calculator(model):
    return program.calculator(model)


def npz(folder):
    x, y = program.arrays()
    np.savez(folder / "data.npz", x=x, y=y)
    return str(folder / "data.npz")


def frame(_):
    x, y = program.arrays()
    index = [f"example {i}" for i in range(N)]
    return pd.DataFrame(x, index=index), pd.Series(y, index=index)


FORMS = {
    "arrays": lambda _: program.arrays(),
    "a path": npz,
    "a function": lambda _: program.train_set,
    "frames with names": frame,
    "a dataset": lambda _: program.train_set(),
}


@pytest.mark.parametrize("form", FORMS)
def test_scores_in_shards_are_those_of_the_whole_to_the_last_bit(form, calculator, tmp_path):
    train_set = FORMS[form](tmp_path)
    names = pd.DataFrame(train_set[0]).index.to_numpy() if form == "frames with names" else range(N)
    expected = calculator.score(program.train_set(), verbose=0)
    found = score_in_shards(calculator, split(train_set, 4, BATCH))
    assert found.values.tobytes() == expected.values.tobytes()
    assert found.ids.tolist() == list(names)


def test_a_pickled_task_gives_the_same_and_all_of_a_process_share_what_it_needs(calculator):
    from deel_influence.shards import ScoreTask
    from deel_influence.shards.sending import Sent

    sent = Sent(calculator)
    shards = split(program.arrays(), 2, BATCH)
    tasks = [ScoreTask(sent, shard, place, 2) for place, shard in enumerate(shards)]
    one, two = (pickle.loads(pickle.dumps(task)) for task in tasks)
    assert one.subject.get() is two.subject.get()
    assert one.subject.get() is not calculator
    merged = two.run().merge(one.run())
    expected = calculator.score(program.train_set(), verbose=0)
    assert merged.values.tobytes() == expected.values.tobytes()


def test_a_calculator_is_sent_by_its_file(calculator, model, tmp_path):
    saved = SavedCalculator(calculator.save(tmp_path / "calculator"), model)
    found = score_in_shards(saved, split(program.arrays(), 3, BATCH))
    expected = calculator.score(program.train_set(), verbose=0)
    np.testing.assert_array_equal(found.values, expected.values)
    index = build_index_in_shards(saved, split(program.arrays(), 2, BATCH), tmp_path / "index")
    np.testing.assert_allclose(index.self_scores().values, expected.values, rtol=1e-6)
    assert index.calculator is None


def test_a_shard_without_a_part_is_read_once(calculator, tmp_path):
    reads = []

    def opened():
        def noted(x, y):
            tf.py_function(lambda: reads.append(1), [], [])
            return x, y

        return tf.data.Dataset.from_tensor_slices(program.arrays()).batch(N // 6).map(noted)

    counts = []
    for folder in (None, tmp_path, tmp_path):
        score_in_shards(calculator, [Shard(opened)], path=folder)
        counts.append(len(reads))
        reads.clear()
    # Whoever scores opens the data once more for the first batch, and may read the next ahead.
    assert max(counts[:2]) < 2 * 6
    assert counts[2] == 6  # for the digest alone


def test_finished_shards_are_read_and_others_computed_anew(calculator, tmp_path, monkeypatch):
    x, y = program.arrays()
    expected = score_in_shards(calculator, split((x, y), 3, BATCH), path=tmp_path)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(files) == 3
    computed = []
    kept = type(calculator).scored_batches

    def counted(self, data, *args, **kwargs):
        for found in kept(self, data, *args, **kwargs):
            computed.extend(found[1].tolist())
            yield found

    monkeypatch.setattr(type(calculator), "scored_batches", counted)
    sorted(tmp_path.iterdir())[1].unlink()
    again = score_in_shards(calculator, split((x, y), 3, BATCH), path=tmp_path)
    assert computed == list(range(20, 40))
    np.testing.assert_array_equal(again.values, expected.values)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files
    computed.clear()
    y[45] = (y[45] + 1) % 3  # a label of the third shard
    score_in_shards(calculator, split((x, y), 3, BATCH), path=tmp_path)
    assert computed == list(range(40, 60))
    computed.clear()
    other = LossScore(calculator.model)
    found = score_in_shards(other, split((x, y), 3, BATCH), path=tmp_path)
    np.testing.assert_array_equal(found.values, other.score(tf.data.Dataset.from_tensor_slices(
        (x, y)).batch(BATCH), verbose=0).values)  # fmt: skip


def test_an_index_in_shards_has_the_vectors_of_the_whole(calculator, tmp_path):
    shards = split(program.arrays(), 3, BATCH)
    index = build_index_in_shards(calculator, shards, tmp_path / "three", part_size=8)
    whole = build_index_in_shards(calculator, shards[:0] + [Shard(program.train_set())],
                                  tmp_path / "one", part_size=8)  # fmt: skip
    assert index.check().complete
    queries = tf.data.Dataset.from_tensor_slices(program.arrays()).take(5).batch(5)
    assert index.ids.tolist() == list(range(N))
    np.testing.assert_array_equal(index.scores(queries).values, whole.scores(queries).values)


def test_a_fit_in_shards_equals_that_of_the_whole_and_is_kept(model, tmp_path):
    settings = {"damping": 0.1, "seed": 0}
    shards = split(program.arrays(), 3, BATCH)
    with ThreadPoolExecutor(2) as executor:
        fit = fit_in_shards("ekfac", model, shards, executor, tmp_path, **settings)
    assert len(list(tmp_path.iterdir())) == 2 * 3  # its two stages
    vectors = np.random.default_rng(1).normal(size=(3, model.nb_params)).astype("float32")
    again = fit_in_shards(EKFACIHVP, model, shards, path=tmp_path, **settings)
    np.testing.assert_array_equal(again.solve(vectors), fit.solve(vectors))
    assert len(list(tmp_path.iterdir())) == 2 * 3
    whole = EKFACIHVP(model, program.train_set(), **settings, verbose=0)
    np.testing.assert_allclose(fit.solve(vectors), whole.solve(vectors), rtol=1e-3, atol=1e-4)


class Forgetful:
    """An executor that loses what it was given some times, as a worker that dies does."""

    def __init__(self, losses: int) -> None:
        self.losses, self.submitted = losses, 0

    def submit(self, function, *arguments) -> Future:
        self.submitted += 1
        future = Future()
        if self.losses:
            self.losses -= 1
            future.set_exception(RuntimeError("the worker went away"))
        else:
            future.set_result(function(*pickle.loads(pickle.dumps(arguments))))
        return future


def test_a_lost_shard_is_computed_again_and_not_for_ever(calculator):
    shards = split(program.arrays(), 3, BATCH)
    expected = calculator.score(program.train_set(), verbose=0)
    executor = Forgetful(losses=2)
    found = score_in_shards(calculator, shards, executor)
    assert found.values.tobytes() == expected.values.tobytes()
    assert executor.submitted == 3 + 2
    with pytest.raises(ShardError, match="lost task 0 of 3 2 times.*the worker went away"):
        score_in_shards(calculator, shards, Forgetful(losses=99), retries=1)


def test_what_a_task_raises_is_raised_at_once_with_its_place(calculator):
    executor = Forgetful(losses=0)
    with pytest.raises(ValueError, match="^Argument `data` is of no use here") as raised:
        score_in_shards(calculator, split(program.failing, 3), executor)
    assert executor.submitted == 3
    assert "in failing" in str(raised.value.__cause__)


REFUSED = {
    "scores of the whole": (
        lambda model: LabelSuspicion(model), lambda: split(program.arrays(), 2, BATCH),
        "^Argument `calculator` must be one that scores each example on its own. Received: Label"),
    "neighbours in the whole": (
        lambda model: KNNShapley(model), lambda: split(program.arrays(), 2, BATCH), "KNNShapley"),
    "an id twice": (
        program.calculator, lambda: [Shard(program.train_set)] * 2,
        "^Argument `id_fn` must give every example an id of its own"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_put_together_is_refused(case, model):
    make, shards, words = case
    with pytest.raises(ValueError, match=words):
        score_in_shards(make(model), shards())


def test_more_shards_than_batches_are_refused():
    with pytest.raises(ValueError, match="^Argument `num_shards` must be at most the number of"):
        split(program.arrays(), 16, BATCH)
    with pytest.raises(ValueError, match="^Argument `num_shards` must be at most the number of"):
        split(program.train_set, 16)[0].open()
    with pytest.raises(ValueError, match="^Argument `num_shards` must be a whole number"):
        split("data.npz", 0)


def test_other_strategies_and_odd_numbers_are_refused(model):
    with pytest.raises(ValueError, match="^Argument `parts` needs a strategy that adds up"):
        fit_in_shards(NystromIHVP, model, split(program.arrays(), 2, BATCH))
    with pytest.raises(ValueError, match="^Argument `retries` must be a whole number"):
        list(run_tasks([], None, -1))
    with pytest.raises(TypeError, match="^Argument `executor` must have `submit"):
        list(run_tasks([], "dask"))


def test_scores_that_are_all_zero_are_told_of_once(model):
    x, y = program.arrays()
    shards = split((x, y, np.zeros(N, "float32")), 3, BATCH)
    with pytest.warns(NoGradientWarning, match="All 60 scores") as told:
        score_in_shards(program.calculator(model, "identity"), shards)
    assert len(told) == 1


def test_ids_of_ones_own_are_those_of_the_whole(calculator):
    shards = [Shard(partial(with_ids, piece, [f"{i}" for i in range(s.start, s.stop)]),
                    batch_size=BATCH)
              for s in (slice(0, 20), slice(20, N))
              for piece in [tuple(a[s] for a in program.arrays())]]  # fmt: skip
    assert score_in_shards(calculator, shards).ids.tolist() == [str(i) for i in range(N)]
