"""A record on disk is whole, of one run, and gone on with."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.errors import DataSourceError
from deel_influence.training_dynamics import RecordedDynamics, TrainingDynamics
from tests.training_dynamics.runs import classifier, fit, same_record


def test_a_resumed_run_counts_the_epochs_that_were_not_recorded(tmp_path):
    path = tmp_path / "dynamics"
    model = fit(classifier(), TrainingDynamics(epochs=[0, 3], path=path))
    fit(model, resumed := TrainingDynamics(epochs=[0, 3], path=path, resume=True), epochs=1)
    assert resumed.recorded.epochs.tolist() == [0, 3]


def test_a_file_without_a_recorded_epoch_is_resumed(tmp_path):
    path = tmp_path / "dynamics"
    fit(classifier(), TrainingDynamics(epochs=[5], path=path), epochs=1)
    assert TrainingDynamics(path=path, resume=True).recorded.next_epoch == 1


def test_a_run_is_resumed_from_its_file(tmp_path):
    whole = TrainingDynamics()
    fit(classifier(), whole, epochs=4, shuffle=False)
    path = tmp_path / "runs" / "dynamics"
    model = fit(classifier(), TrainingDynamics(path=path), epochs=3, shuffle=False)
    assert [file.name for file in path.parent.iterdir()] == ["dynamics.npz"]
    fit(model, resumed := TrainingDynamics(path=path, resume=True), epochs=1, shuffle=False)
    assert same_record(resumed.recorded, whole.recorded)
    assert same_record(RecordedDynamics.load(path), whole.recorded)
    with pytest.raises(ValueError, match=r"`record` must be that of the run .* Received: \['loss'"):
        TrainingDynamics(record="loss", path=path, resume=True)


def test_a_file_is_loaded_with_what_it_was_recorded_with(tmp_path):
    dynamics = TrainingDynamics()
    fit(classifier(), dynamics, epochs=1)
    path = dynamics.recorded.save(tmp_path / "dynamics")
    with pytest.raises(ValueError, match="`id_fn` must be None, as in that run"):
        RecordedDynamics.load(path, id_fn=lambda batch: batch[1])
    np.savez(tmp_path / "other.npz", keys=np.zeros(3))
    with pytest.raises(DataSourceError, match=r"record of training\. .* did not write"):
        RecordedDynamics.load(tmp_path / "other.npz")


@pytest.mark.parametrize("kept", [0, 20, -20], ids=["empty", "head", "no-end"])
def test_a_damaged_file_is_named(kept, tmp_path):
    path = RecordedDynamics.of_epochs(["loss"], [], 0).save(tmp_path / "dynamics")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataSourceError, match=r"dynamics.npz', which cannot be read .*Delete it"):
        TrainingDynamics("loss", path=path, resume=True)
