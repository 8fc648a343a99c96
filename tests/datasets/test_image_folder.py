"""Folders of images: order, shapes, names, and files that are no images."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.baselines.loss import LossScore
from deel_influence.datasets.reading import READ_ERRORS, reading_error
from deel_influence.datasets.sources import load_source
from deel_influence.errors import DataSourceError
from deel_influence.model.influence_model import InfluenceModel

CLASSES = {"cat": 3, "ape": 4, "dog": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of 6x5 pixels, written in no particular order."""
    generator = np.random.default_rng(0)
    for name, count in CLASSES.items():
        for number in reversed(range(count)):
            write_image(tmp_path / name / f"{number}.png", generator.integers(0, 256, (6, 5, 3)))
    (tmp_path / "ape" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tf.io.encode_png(pixels.astype(np.uint8)).numpy())


def test_images_and_labels_are_those_of_keras(folder):
    ours = load_source(str(folder), batch_size=4, image_shape=(6, 5, 3))
    theirs = keras.utils.image_dataset_from_directory(
        folder, shuffle=False, batch_size=4, image_size=(6, 5), verbose=False
    )
    for (x, y), (expected_x, expected_y) in zip(ours.dataset, theirs, strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)
    assert ours.class_names == tuple(theirs.class_names)
    assert list(ours.file_names) == theirs.file_paths


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, (6, 5, 3)),
        ((None, None, None), (6, 5, 3)),
        ((4, 8, 3), (4, 8, 3)),
        ((None, None, 1), (6, 5, 1)),
    ],
)
def test_images_have_the_asked_shape_or_that_of_the_first(folder, asked, given):
    write_image(folder / "dog" / "large.png", np.zeros((20, 30, 3)))
    source = load_source(str(folder), image_shape=asked)
    assert source.dataset.element_spec[0].shape[1:] == given
    assert next(iter(source.dataset))[0].shape == (10, *given)


def test_pixels_are_not_rescaled(folder):
    write_image(folder / "ape" / "0.png", np.full((6, 5, 3), 200))
    assert np.all(next(iter(load_source(str(folder)).dataset))[0][0] == 200.0)


def test_a_folder_without_images_in_sub_folders_is_refused(tmp_path):
    write_image(tmp_path / "photo.png", np.zeros((2, 2, 3)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSourceError, match=r"1 sub-folders and no image.*sub-folder of its own"):
        load_source(str(tmp_path))


def test_a_first_file_that_is_no_image_is_named(folder):
    (folder / "ape" / "0.png").write_bytes(b"")
    with pytest.raises(DataSourceError, match=r"ape/0\.png.*cannot be decoded.*remove"):
        load_source(str(folder))


def test_a_later_truncated_image_is_named_when_reading_fails(folder):
    path = folder / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    source = load_source(str(folder))
    with pytest.raises(READ_ERRORS) as raised:
        list(source.dataset)
    assert str(path) in str(reading_error(source, raised.value))


def test_scoring_a_folder_with_a_truncated_image_names_the_file(folder):
    path = folder / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    layers = [keras.Input((6, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    calculator = LossScore(InfluenceModel(keras.Sequential(layers), loss_function=loss))
    with pytest.raises(DataSourceError, match=r"cat/1\.png.*cannot be decoded.*remove"):
        calculator.score(load_source(str(folder), batch_size=2))


def test_another_failure_is_told_as_it_is(folder):
    error = tf.errors.InvalidArgumentError(None, None, "a label out of range")
    assert "a label out of range" in str(reading_error(load_source(str(folder)), error))
