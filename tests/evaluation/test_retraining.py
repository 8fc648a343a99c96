"""Retraining: every finished one is on disk, and a run that was killed ends as one that was not."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from deel_influence.errors import DataSourceError, NonFiniteError
from deel_influence.evaluation import GroundTruth, retrain, retrain_shard
from deel_influence.evaluation.retraining import SETTINGS as SETTINGS_KIND

VALUES = np.array([1.0, 2.0, 6.0, 11.0])
KEPT = np.array([[False, True, True, True], [True, True, False, False], [True, False, True, True]])
SEEDS = (0, 3)
SETTINGS = {"values": "four numbers"}


class Mean:
    """A training: the mean of some numbers, shifted by the seed; counts and may be killed."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.calls: list[tuple[tuple[int, ...], int]] = []
        self.killed_at = killed_at

    def __call__(self, positions: np.ndarray, seed: int) -> float:
        if len(self.calls) == self.killed_at:
            raise KeyboardInterrupt
        self.calls.append((tuple(positions.tolist()), seed))
        return VALUES[positions].mean() + 0.1 * seed


def measure(model: float) -> list[float]:
    return [model, model**2]


def run(train: Mean, **options) -> GroundTruth:
    arguments = {"seeds": SEEDS, "settings": SETTINGS, "verbose": 0}
    return retrain(train, measure, KEPT, **{**arguments, **options})


def assert_same(one: GroundTruth, other: GroundTruth) -> None:
    for name in ("kept", "outputs", "full_outputs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.seeds, one.settings) == (other.seeds, other.settings)


def test_every_subset_and_everything_is_trained_on_under_every_seed() -> None:
    train = Mean()
    truth = run(train)
    means = np.array([VALUES[mask].mean() for mask in KEPT])
    for row, seed in enumerate(SEEDS):
        np.testing.assert_allclose(truth.outputs[row, :, 0], means + 0.1 * seed)
        np.testing.assert_allclose(truth.full_outputs[row, 0], VALUES.mean() + 0.1 * seed)
    assert len(train.calls) == 2 * (1 + len(KEPT))
    assert train.calls[:2] == [((0, 1, 2, 3), 0), ((1, 2, 3), 0)]


@pytest.mark.parametrize("killed_at", [0, 4, 7])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, killed_at: int) -> None:
    first, second = Mean(killed_at), Mean()
    with pytest.raises(KeyboardInterrupt):
        run(first, folder=tmp_path)
    assert_same(run(second, folder=tmp_path), run(Mean()))
    assert len(first.calls) + len(second.calls) == 8
    assert not set(first.calls) & set(second.calls)


def test_a_finished_folder_is_only_read(tmp_path: Path) -> None:
    truth = run(Mean(), folder=tmp_path)
    assert_same(run(Mean(killed_at=0), folder=tmp_path), truth)


def test_a_folder_can_be_extended_by_subsets_and_seeds(tmp_path: Path) -> None:
    retrain(Mean(), measure, KEPT[:2], folder=tmp_path, settings=SETTINGS, verbose=0)
    train = Mean()
    assert_same(run(train, folder=tmp_path), run(Mean()))
    assert len(train.calls) == 8 - 3


@pytest.mark.parametrize("num_shards", [1, 3, 11])
def test_shards_do_each_retraining_once_and_retrain_reads_them(
    tmp_path: Path, num_shards: int
) -> None:
    trains = [Mean() for _ in range(num_shards)]
    options = {"folder": tmp_path, "seeds": SEEDS, "settings": SETTINGS}

    def one(shard: int) -> None:
        retrain_shard(trains[shard], measure, KEPT, shard, num_shards, **options)

    for shard in reversed(range(num_shards)):
        one(shard)
    calls = [call for train in trains for call in train.calls]
    assert len(calls) == len(set(calls)) == 8
    assert_same(run(Mean(killed_at=0), folder=tmp_path), run(Mean()))


def test_shards_may_fill_a_folder_at_the_same_time(tmp_path: Path) -> None:
    work = partial(
        retrain_shard, Mean(), measure, KEPT, num_shards=4, folder=tmp_path, seeds=range(5)
    )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    truth = retrain(Mean(killed_at=0), measure, KEPT, folder=tmp_path, seeds=range(5), verbose=0)
    assert_same(truth, retrain(Mean(), measure, KEPT, seeds=range(5), verbose=0))


def test_a_shard_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="below num_shards=2. Received: shard=2"):
        retrain_shard(Mean(), measure, KEPT, 2, 2, folder=tmp_path)


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    run(Mean(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"values \('four numbers' there, 'others' asked for\)"):
        run(Mean(), folder=tmp_path, settings={"values": "others"})
    with pytest.raises(ValueError, match=r"num_examples \(4 there, 5 asked for\)"):
        retrain(Mean(), measure, np.eye(5, dtype=bool), folder=tmp_path, settings=SETTINGS)


def test_a_damaged_file_is_refused_and_named(tmp_path: Path) -> None:
    run(Mean(), folder=tmp_path)
    file = sorted(tmp_path.rglob("*.npz"))[0]
    file.write_bytes(b"half a file")
    with pytest.raises(DataSourceError, match=rf"{file.name}.*Delete it to train again"):
        run(Mean(), folder=tmp_path)


def test_nan_is_refused_with_the_subset_and_not_stored(tmp_path: Path) -> None:
    def diverges(model: float) -> list[float]:
        return [1.0, np.nan if model == VALUES[KEPT[1]].mean() else 1.0]

    with pytest.raises(NonFiniteError, match="for query 1.*after training on subset 1, seed 0"):
        retrain(Mean(), diverges, KEPT, folder=tmp_path, verbose=0)
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_measurements_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(m,\). Received: shape \(\) for all examples"):
        retrain(Mean(), float, KEPT, verbose=0)
    retrain(Mean(), measure, KEPT[:1], folder=tmp_path, verbose=0)
    train = Mean()
    with pytest.raises(ValueError, match="Received: 1 for subset 1, seed 0, and 2 before"):
        retrain(train, lambda model: [model], KEPT, folder=tmp_path, verbose=0)
    # The first that differs ends the run, and is not kept beside the others.
    assert len(train.calls) == 1
    assert len(list(tmp_path.rglob("*.npz"))) == 2


def test_a_measure_may_fill_the_same_array_each_time() -> None:
    buffer = np.zeros(2)

    def fill(model: float) -> np.ndarray:
        buffer[:] = measure(model)
        return buffer

    assert_same(retrain(Mean(), fill, KEPT, verbose=0), retrain(Mean(), measure, KEPT, verbose=0))


class Score:
    """A measure that says itself which direction is better."""

    def __init__(self, higher_is_better: bool | None) -> None:
        self.higher_is_better = higher_is_better

    def __call__(self, model: float) -> list[float]:
        return measure(model)


@pytest.mark.parametrize(
    ("known", "given", "expected"),
    [
        (True, None, True),
        (False, None, False),
        (None, None, False),
        (None, True, True),
        (True, True, True),
    ],
)
def test_the_measure_says_whether_higher_is_better(
    known: bool | None, given: bool | None, expected: bool
) -> None:
    truth = retrain(Mean(), Score(known), KEPT, higher_is_better=given, verbose=0)
    assert truth.higher_is_better is expected


@pytest.mark.parametrize("known", [True, False])
def test_a_measure_is_not_contradicted(known: bool) -> None:
    with pytest.raises(ValueError, match=rf"`higher_is_better`.*measure.higher_is_better={known}"):
        retrain(Mean(), Score(known), KEPT, higher_is_better=not known, verbose=0)


def test_a_folder_of_outputs_of_the_other_direction_is_refused(tmp_path: Path) -> None:
    retrain_shard(Mean(), measure, KEPT, 0, 1, folder=tmp_path, higher_is_better=True)
    with pytest.raises(DataSourceError, match=r"higher_is_better \(True there, False asked for"):
        retrain(Mean(), measure, KEPT, folder=tmp_path, verbose=0)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_be_there_and_differ(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one seed, and each only once"):
        run(Mean(), seeds=seeds)


def test_a_training_in_place_is_preferred() -> None:
    class InPlace(Mean):
        def in_place(self, positions: np.ndarray, seed: int) -> float:
            return -Mean.__call__(self, positions, seed)

    np.testing.assert_array_equal(run(InPlace()).outputs[..., 0], -run(Mean()).outputs[..., 0])


def test_retrainings_of_unknown_settings_are_refused(tmp_path: Path) -> None:
    run(Mean(), folder=tmp_path)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(DataSourceError, match="must hold settings.json beside its retrainings"):
        run(Mean(), folder=tmp_path)


def test_of_two_that_begin_a_folder_at_once_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_second(source: Path, target: Path) -> None:
        SETTINGS_KIND.write(target, {"settings": {"values": "others"}})
        link(source, target)

    monkeypatch.setattr(os, "link", link_second)
    with pytest.raises(DataSourceError, match=r"values \('others' there, 'four numbers' asked for"):
        run(Mean(), folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]


def test_a_file_system_may_have_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    assert_same(run(Mean(), folder=tmp_path), run(Mean()))
    assert_same(run(Mean(killed_at=0), folder=tmp_path), run(Mean()))
