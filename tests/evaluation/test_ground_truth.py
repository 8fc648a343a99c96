"""Ground truth: the sign of changes, and a file that comes back as it was or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deel_influence.errors import DataSourceError
from deel_influence.evaluation import GroundTruth, retrain
from deel_influence.evaluation.scores_folder import ScoresFolder
from deel_influence.utils.records import RecordKind

KEPT = np.array([[True, False, True], [False, True, True]])
OUTPUTS = np.array([[[1.0, 2.0], [3.0, 4.0]], [[2.0, 2.0], [5.0, 0.0]]])  # (r, s, m)
FULL = np.array([[1.0, 1.0], [1.0, 3.0]])
SETTINGS = {"data": "digits", "epochs": 3, "rates": (0.1, 0.01)}


def make_truth(**changes) -> GroundTruth:
    arguments = {
        "kept": KEPT,
        "outputs": OUTPUTS,
        "full_outputs": FULL,
        "seeds": (0, 7),
        "settings": SETTINGS,
    }
    return GroundTruth(**{**arguments, **changes})


def test_a_loss_that_rises_is_a_positive_change_in_the_mean_over_seeds() -> None:
    expected = [[(0.0 + 1.0) / 2, (1.0 - 1.0) / 2], [(2.0 + 4.0) / 2, (3.0 - 3.0) / 2]]
    np.testing.assert_allclose(make_truth().changes, expected)


def test_a_margin_that_falls_is_a_positive_change() -> None:
    truth = make_truth(higher_is_better=True)
    np.testing.assert_allclose(truth.changes, -make_truth().changes)


def test_mean_outputs_are_over_seeds() -> None:
    np.testing.assert_allclose(make_truth().mean_outputs, [[1.5, 2.0], [4.0, 2.0]])


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    truth = make_truth(higher_is_better=True)
    path = truth.save(tmp_path / "folder" / "truth")
    assert path.suffix == ".npz"
    loaded = GroundTruth.load(path, SETTINGS)
    for name in ("kept", "outputs", "full_outputs"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(truth, name))
        assert getattr(loaded, name).dtype == getattr(truth, name).dtype
    assert loaded.seeds == (0, 7)
    assert loaded.settings == truth.settings
    assert loaded.higher_is_better


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    path = make_truth().save(tmp_path / "truth.npz")
    other = {"data": "digits", "epochs": 4, "optimizer": "sgd"}
    with pytest.raises(
        ValueError,
        match=r"epochs \(3 there, 4 asked for\); optimizer \(none there, 'sgd' asked for\); rates",
    ):
        GroundTruth.load(path, other)
    assert GroundTruth.load(path).settings["epochs"] == 3


@pytest.mark.parametrize("value", [abs, np.nan, np.inf])
def test_settings_that_json_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"`settings` must hold what JSON can.*by their name"):
        make_truth(settings={"loss": value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": KEPT.astype(int)}, "`kept` must be a mask"),
        ({"kept": KEPT & False}, "keep at least one example"),
        ({"outputs": OUTPUTS[:1]}, r"`outputs` must have the shape \(r, s, m\), r=2, s=2"),
        ({"full_outputs": FULL[:, :1]}, r"`full_outputs` must have the shape \(r, m\), r=2, m=2"),
        ({"outputs": np.where(OUTPUTS == 4.0, np.nan, OUTPUTS)}, "no NaN"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_truth(**changes)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = make_truth().save(tmp_path / "truth.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataSourceError, match=r"cannot be read.*Make the ground truth again"):
        GroundTruth.load(path)
    with pytest.raises(DataSourceError, match="is not there"):
        GroundTruth.load(tmp_path / "nothing")


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    RecordKind("ground truth", "", version=99).write(path, {}, {})
    with pytest.raises(DataSourceError, match="of version 99 and not 1. Make the ground truth"):
        GroundTruth.load(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    retrain(lambda rows, _: rows, lambda rows: [1.0], KEPT, folder=tmp_path, verbose=0)
    retraining = next((tmp_path / "seed_000000").iterdir())
    with pytest.raises(DataSourceError, match="hold a ground truth.* holds a retraining"):
        GroundTruth.load(retraining)


def test_a_truth_may_lie_in_a_folder_of_scores(tmp_path: Path) -> None:
    make_truth().save(tmp_path / "truth.npz")
    assert ScoresFolder(tmp_path, {}).read("mine", None) is None


def test_truths_compare_as_objects_do() -> None:
    first, second = make_truth(), make_truth()
    assert first != second
    assert len({first, second}) == 2
