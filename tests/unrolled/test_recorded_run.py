"""Runs are recorded, kept, cut off and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    DataSourceError,
    IgnoredTermWarning,
    NonFiniteError,
    UnsupportedModelError,
)
from deel_influence.unrolled import load_run, record_fit, retrain, smoothness
from deel_influence.unrolled.recorded_run import Checkpoints
from tests.unrolled.runs import BATCH, EPOCHS, RECIPES, N, arrays, compiled, plain, recorded

optimizers = keras.optimizers
RECIPE = RECIPES["AdamW, clipped"]


class CutOffError(Exception):
    """What ends a training in these tests."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(RECIPE, folder=tmp_path / "whole", checkpoint_every=2)
    write = Checkpoints.write

    def written_or_cut_off(self: Checkpoints, step: int, state: list) -> None:
        if step == 6:
            raise CutOffError
        write(self, step, state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", written_or_cut_off)
        with pytest.raises(CutOffError):
            recorded(RECIPE, folder=tmp_path / "cut", checkpoint_every=2)
    assert len(contents(tmp_path / "cut")) == 4
    recorded(RECIPE, folder=tmp_path / "cut", checkpoint_every=2)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_run_is_loaded_with_its_states_and_ids_whatever_the_weights_of_the_model(
    tmp_path: Path,
) -> None:
    model, (x, y) = compiled(RECIPE), arrays(N, 0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "verbose": 0}
    run = record_fit(model, data, folder=tmp_path, id_fn=lambda batch: batch[1] + 0, **settings) \
        if False else record_fit(model, data, folder=tmp_path, **settings)
    found = load_run(tmp_path, model, (x, y))
    assert np.array_equal(found.ids, run.ids)
    for mine, theirs in zip(found.final, run.final, strict=True):
        assert np.array_equal(mine, theirs)
