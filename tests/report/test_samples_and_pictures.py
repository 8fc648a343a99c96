"""Samples are found by position without reading more than needed, and drawn in any range."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deel_influence.report.pictures import (
    MAX_SIDE,
    Picture,
    draw_file,
    draw_pictures,
    is_picture,
    thinned,
    thumbnail,
)
from deel_influence.report.samples import is_table, read_samples
from tests.report.fakes import CountedPasses, batches

POSITIONS = np.array([9, 0, 5])


def pictures(count: int) -> np.ndarray:
    return np.arange(count * 12, dtype=np.float32).reshape(count, 2, 2, 3)


def decode(picture: Picture, kind: str = "png") -> np.ndarray:
    head, _, body = picture.uri.partition(",")
    assert head == f"data:image/{kind};base64"
    return tf.io.decode_image(base64.b64decode(body)).numpy()


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_samples_come_in_the_order_asked_for(batch_size: int) -> None:
    x = pictures(10)
    samples = read_samples(batches(x, np.zeros(10), batch_size=batch_size), POSITIONS, 10)
    np.testing.assert_array_equal(samples.inputs, x[POSITIONS])
    assert samples.moments is None


def test_reading_stops_at_the_last_picture_wanted() -> None:
    counted = CountedPasses(pictures(400), np.zeros(400))
    read_samples(counted.dataset, np.array([6, 1]), 400)
    # tf.data reads some batches ahead, but not most of the hundred.
    assert counted.num_read < 30


def test_the_moments_of_features_are_those_of_the_whole_dataset() -> None:
    x = np.random.default_rng(0).normal(1e4, [1.0, 0.0, 5.0], size=(101, 3))
    samples = read_samples(batches(x, np.zeros(101), batch_size=7), POSITIONS, 101)
    np.testing.assert_array_equal(samples.inputs, x[POSITIONS])
    # Far from zero, a sum of squares would keep no digit of the deviation.
    np.testing.assert_allclose(samples.moments.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(samples.moments.deviation, x.std(axis=0), rtol=1e-9, atol=1e-9)


def test_nests_keep_their_structure() -> None:
    x = {"words": np.array([b"one", b"two"]), "more": (np.arange(2), np.ones((2, 3)))}
    dataset = tf.data.Dataset.from_tensor_slices((x, [0, 1])).batch(2)
    (sample,) = read_samples(dataset, np.array([1]), 2).inputs
    assert sample["words"] == b"two"
    assert sample["more"][0] == 1
    assert sample["more"][1].shape == (3,)


@pytest.mark.parametrize("values", [[[1, 2], [3]], [[4, 5, 6], [7]]])
def test_ragged_inputs_are_padded(values: list) -> None:
    dataset = tf.data.Dataset.from_tensors((tf.ragged.constant(values), [0, 1]))
    (sample,) = read_samples(dataset, np.array([1]), 2).inputs
    assert sample[0] == values[1][0]


@pytest.mark.parametrize("x", [pictures(8), np.zeros((8, 3))], ids=["pictures", "features"])
def test_a_shorter_dataset_than_the_triage_is_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="with 10 examples. Received: a dataset of 8 examples"):
        read_samples(batches(x, np.zeros(8)), POSITIONS, 10)


def test_a_longer_table_than_the_triage_is_refused() -> None:
    with pytest.raises(ValueError, match="with 10 examples. Received: a dataset of 12 examples"):
        read_samples(batches(np.zeros((12, 3)), np.zeros(12)), POSITIONS, 10)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 8, 1), True), ((8, 9, 3), True), ((8, 8, 4), True), ((8, 8), True), ((8, 8, 2), False),
     ((8,), False), ((8, 1), False), ((2, 8, 8, 3), False), ((0, 8, 1), False)],
)  # fmt: skip
def test_pictures_are_told_by_their_shape(shape: tuple, expected: bool) -> None:
    assert is_picture(np.zeros(shape)) is expected


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(0, 255, np.uint8), (0, 16, np.int64), (-1.5, 2.5, np.float64), (0, 1, np.float16)]
)  # fmt: skip
def test_any_range_is_stretched_from_black_to_white(low: float, high: float, dtype: type) -> None:
    picture = np.array([[low, high], [(low + high) / 2, low]]).astype(dtype)[:, :, np.newaxis]
    pixels = decode(draw_pictures([picture])[0])
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels[:, :, 0], [[0, 255], [128, 0]], atol=1)


def test_masks_are_black_and_white() -> None:
    assert (
        decode(draw_pictures([np.eye(4, dtype=bool)])[0])[:, :, 0].tolist()
        == (np.eye(4) * 255).tolist()
    )


def test_the_range_is_common_to_all_pictures() -> None:
    dark, bright = (
        decode(drawn) for drawn in draw_pictures([np.full((4, 4, 1), v) for v in (0, 10)])
    )
    assert dark.max() == 0
    assert bright.min() == 255


def test_pictures_of_one_colour_can_be_drawn() -> None:
    assert decode(draw_pictures([np.full((4, 4, 3), 7)])[0]).shape == (4, 4, 3)


def test_opacity_has_a_range_of_its_own() -> None:
    picture = np.zeros((1, 2, 4), np.uint8)
    picture[0, :, 0] = [0, 20]
    picture[0, :, 3] = [255, 0]
    assert decode(draw_pictures([picture])[0])[0].tolist() == [[0, 0, 0, 255], [255, 0, 0, 0]]


def test_large_pictures_are_shrunk_in_proportion() -> None:
    picture = np.random.default_rng(0).uniform(size=(50, 1000, 3))
    drawn = decode(draw_pictures([picture])[0], "jpeg")
    assert drawn.shape == (round(50 * MAX_SIDE / 1000), MAX_SIDE, 3)


def test_photographs_are_jpeg_and_drawings_png() -> None:
    gradient = np.linspace(0, 255, 200)[:, None, None] * np.linspace(0.2, 1, 200)[:, None]
    photograph = np.broadcast_to(gradient, (200, 200, 3))
    drawing = np.where(np.eye(200, dtype=bool)[:, :, None], photograph[-1, -1], 0.0)
    # Small pictures are enlarged, and transparent ones have no JPEG.
    small = photograph[:80, :80]
    clear = np.concatenate([photograph, photograph[:, :, :1]], axis=2)
    for picture, kind in [(photograph, "jpeg"), (drawing, "png"), (small, "png"), (clear, "png")]:
        drawn = decode(draw_pictures([picture])[0], kind)
        assert drawn.shape == picture.shape


def test_a_photograph_survives_as_the_eye_sees_it() -> None:
    gradient = np.linspace(0, 255, 200)[:, None, None] * np.ones((200, 3))
    drawn = decode(draw_pictures([gradient])[0], "jpeg").astype(int)
    # JPEG of quality 85 is off by a few of 255 levels.
    np.testing.assert_allclose(drawn, np.rint(gradient), atol=6)


def test_files_are_turned_as_the_camera_was(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "a.jpg", exif=turned)
    assert decode(draw_file(tmp_path / "a.jpg")).shape == (40, 20, 3)


def test_scans_of_sixteen_bits_keep_their_levels(tmp_path: Path) -> None:
    levels = np.linspace(1000, 9000, 120 * 200).reshape(120, 200).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    drawn = decode(draw_file(tmp_path / "a.png"), "jpeg").astype(int)
    np.testing.assert_allclose(drawn[::40, 0, 0], [0, 85, 170], atol=6)


def test_a_photograph_whose_opacity_says_nothing_is_jpeg(tmp_path: Path) -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (120, 120, 4)).astype(np.uint8)
    photograph[:, :, 3] = 255
    Image.fromarray(photograph).save(tmp_path / "a.png")
    assert decode(draw_file(tmp_path / "a.png"), "jpeg").shape == (120, 120, 3)


def test_what_to_show_is_asked_for_batch_by_batch() -> None:
    x = pictures(10)
    asked = []

    def names(batch: tuple) -> list[str]:
        asked.append(len(batch[1]))
        return [f"label {label}" for label in batch[1].numpy()]

    dataset = batches(x, np.arange(10), batch_size=3)
    samples = read_samples(dataset, POSITIONS, 10, display=names)
    assert samples.shown == ["label 9", "label 0", "label 5"]
    # Only the batches of what is shown: the first, the second and the last.
    assert asked == [3, 3, 1]


def test_a_function_that_does_not_fit_its_batch_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"`display\(batch\)` must hold one entry .* 1 entries for 4"
    ):
        read_samples(batches(pictures(10)), POSITIONS, 10, display=lambda _: ["one"])


@pytest.mark.parametrize(
    ("x", "names", "expected"),
    [
        (np.zeros((8, 3)), None, True),
        (np.zeros((8, 3), bool), None, True),
        (np.zeros((8, 3), np.int32), None, False),
        (np.zeros((8, 3), np.int32), ["a", "b", "c"], True),
        (np.zeros((8, 300)), None, False),
        (np.zeros((8, 300)), ["a"] * 300, True),
        (np.zeros((8, 3, 2)), ["a", "b", "c"], False),
        (np.array([["a"]]), ["a"], False),
    ],
)
def test_tables_are_told_from_tokens_and_waves(x: np.ndarray, names, expected: bool) -> None:
    assert is_table(x, names) is expected


def test_others_are_read_as_thumbnails_and_the_first_ones_whole() -> None:
    x = np.random.default_rng(0).integers(0, 255, (4, 200, 300, 3)).astype(np.uint8)
    first, other = read_samples(batches(x), np.array([2, 1]), 4, num_large=1).inputs
    np.testing.assert_array_equal(first, x[2])
    np.testing.assert_array_equal(other, x[1, ::3, ::3])
    words = np.array(["a", "b"], object)
    assert thinned(words) is words


@pytest.mark.parametrize(
    ("side", "kind", "shape"), [(20, "png", (20, 10)), (200, "jpeg", (64, 32))]
)
def test_a_thumbnail_is_small_and_a_small_picture_is_its_own(side, kind, shape) -> None:
    (picture,) = draw_pictures([np.random.default_rng(0).uniform(size=(side, side // 2, 3))])
    small = thumbnail(picture)
    assert decode(small, kind).shape == (*shape, 3)
    assert (small is picture) is (side == 20)
