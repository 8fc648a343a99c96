"""The digits: scikit-learn's, in its order, and without a network."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from deel_influence import datasets
from deel_influence.datasets.digits.digits_dataset_builder import Digits
from deel_influence.datasets.digits.loading import load_digits_arrays, load_digits_dataset
from deel_influence.errors import DataSourceError, MissingExtraError


def test_the_digits_are_scikit_learns_in_its_order(prepared_digits):
    images, labels = load_digits_arrays(prepared_digits)
    truth = load_digits()
    assert images.dtype == np.uint8
    assert images.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(np.rint(images[..., 0] * (16 / 255)), truth.images)
    np.testing.assert_array_equal(labels, truth.target)


def test_the_name_digits_is_known_to_tfds_load(prepared_digits):
    dataset = tfds.load("digits", split="train", data_dir=prepared_digits)
    ids = [example["id"] for example in dataset.as_numpy_iterator()]
    np.testing.assert_array_equal(ids, np.arange(1797))


def test_the_packages_give_the_builder_on_demand_and_no_other_name():
    assert datasets.Digits is datasets.digits.Digits is Digits
    for package in (datasets, datasets.digits):
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no .*'Letters'"):
            package.Letters  # noqa: B018 - the name is what is asked for


def test_a_part_of_the_split_keeps_its_ids(prepared_digits):
    dataset = tfds.load("digits", split="train[100:103]", data_dir=prepared_digits)
    assert [int(example["id"]) for example in dataset] == [100, 101, 102]


def test_description_citation_and_class_names_come_with_the_package(prepared_digits):
    info = Digits(data_dir=prepared_digits).info
    assert "43 people" in info.description
    assert "Alpaydin" in info.citation
    assert info.features["label"].names == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("batch_size", [100, 256, 1797, 5000])
def test_batches_hold_every_digit_once_and_in_order(prepared_digits, batch_size):
    batches = list(load_digits_dataset(prepared_digits, batch_size).as_numpy_iterator())
    assert [len(y) for _, y in batches[:-1]] == [batch_size] * (len(batches) - 1)
    labels = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(labels, load_digits().target)


def test_without_scikit_learn_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "deel-influence\[demo\]"'):
        load_digits_arrays(tmp_path)


def test_prepared_digits_need_no_scikit_learn(prepared_digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(load_digits_arrays(prepared_digits)[0]) == 1797


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataSourceError, match=r"must be prepared in .*file.*TFDS_DATA_DIR"):
        load_digits_arrays(tmp_path / "file")
