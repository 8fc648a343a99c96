"""Shards of a source are runs of whole batches, with the ids of the whole, whatever its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from deel_influence.datasets import load_source
from deel_influence.datasets.cutting import shard_of
from deel_influence.utils import ids_of, with_ids

N, BATCH, SHARDS = 23, 3, 3


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    return draws.normal(size=(N, 4)).astype("float32"), draws.integers(0, 3, N)


def npz(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    np.savez(folder / "data.npz", x=x, y=y, ids=np.arange(N) * 7)
    return str(folder / "data.npz")


def parquet(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    frame = pd.DataFrame(x, columns=list("abcd")).assign(label=y)
    frame.to_parquet(folder / "data.parquet")
    return str(folder / "data.parquet")


def csv_with_ids(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    frame = pd.DataFrame(x, columns=list("abcd")).assign(label=y, id=[f"z{i}" for i in range(N)])
    frame.to_csv(folder / "data.csv", index=False)
    return str(folder / "data.csv")


def saved_examples(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    tf.data.Dataset.from_tensor_slices((x, y)).save(str(folder / "examples"))
    return str(folder / "examples")


def saved_batches(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    tf.data.Dataset.from_tensor_slices((x, y)).batch(5).save(str(folder / "batches"))
    return str(folder / "batches")


def images(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
        place = folder / "images" / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        picture = tf.cast(tf.reshape(pixels, (2, 2, 1)) * 50 + 128, tf.uint8)
        tf.io.write_file(str(place / f"{i}.png"), tf.io.encode_png(picture))
    return str(folder / "images")


def tfds_of_several_files(folder: Path, x: np.ndarray, y: np.ndarray) -> str:
    features = {"x": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                "y": tfds.features.ClassLabel(num_classes=3)}  # fmt: skip
    identity = tfds.core.DatasetIdentity(
        name="rows",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(folder / "rows" / "1.0.0"),
        module_name="",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("x", "y"),
        disable_shuffling=True,
    )
    (folder / "rows" / "1.0.0").mkdir(parents=True)
    # More than TensorFlow Datasets takes from a file before it turns to the next.
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=18)
    writer.initialize_splits(["train"])
    writer.add_examples({"train": [{"x": a, "y": b} for a, b in zip(x, y, strict=True)]})
    writer.close_all()
    return "tfds:rows"


KINDS = [npz, parquet, csv_with_ids, saved_examples, saved_batches, images, tfds_of_several_files]


def batches_of(dataset: tf.data.Dataset) -> list[tuple[np.ndarray, ...]]:
    return [tuple(part.numpy() for part in batch) for batch in dataset]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_shards_have_the_batches_and_ids_of_the_whole(kind, arrays, tmp_path):
    whole = load_source(kind(tmp_path, *arrays), BATCH, data_dir=tmp_path)
    shards = [whole.shard(number, SHARDS) for number in range(SHARDS)]
    expected = batches_of(whole.dataset)
    found = [batch for shard in shards for batch in batches_of(shard.dataset)]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for part, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, same)
    ids = np.arange(N) if whole.ids is None else whole.ids
    np.testing.assert_array_equal(np.concatenate([ids_of(shard.dataset) for shard in shards]), ids)
    files = [shard.file_names for shard in shards]
    assert whole.file_names is None or sum(files, ()) == whole.file_names


def test_a_part_of_a_split_is_cut_as_well(prepared_digits):
    whole = load_source("tfds:digits:train[100:160]", 16, data_dir=prepared_digits)
    parts = [whole.shard(number, 2).dataset for number in range(2)]
    found = np.concatenate([y for part in parts for _, y in batches_of(part)])
    np.testing.assert_array_equal(found, np.concatenate([y for _, y in batches_of(whole.dataset)]))


def test_uneven_batches_keep_their_places(arrays):
    pieces = [
        tf.data.Dataset.from_tensors(tuple(a[s] for a in arrays))
        for s in (slice(0, 5), slice(5, 7), slice(7, 16), slice(16, N))
    ]
    dataset = pieces[0]
    for piece in pieces[1:]:
        dataset = dataset.concatenate(piece)
    assert [shard_of(dataset, number, 3)[:2] for number in range(3)] == [(0, 5), (5, 7), (7, N)]


@pytest.mark.parametrize(
    ("place", "words"),
    [((0, 9), "^Argument `num_shards` must be at most the number of batches, 8. Received: 9"),
     ((3, 3), "^Argument `shard` must be below `num_shards`"),
     ((0, 0), "^Argument `num_shards` must be a whole number >= 1")],
)  # fmt: skip
def test_shards_that_cannot_be_are_refused(place, words, arrays):
    dataset = with_ids(tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH), np.arange(N))
    with pytest.raises(ValueError, match=words):
        shard_of(dataset, *place)
