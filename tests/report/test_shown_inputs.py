"""Each kind of input is shown as what it is, and what the caller shows takes its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from deel_influence.errors import DataSourceError
from deel_influence.report.page import write_report
from tests.report.fakes import make_triage
from tests.report.page_reader import Element, read_page

LABELS = np.array([0, 1, 0, 1])
TRIAGE = make_triage(LABELS, [4.0, 3.0, 2.0, 1.0])
GENERATOR = np.random.default_rng(0)
PHOTOS = GENERATOR.uniform(size=(4, 8, 8, 3))
TOKENS = np.array([[7, 2041, 9, 0, 0, 0, 0, 0]] * 4, np.int32)
WAVES = np.sin(np.linspace(0, 60, 16_000))[None].repeat(4, axis=0).astype(np.float32)
LONG = "word " * 200 + "end"


def examples(folder: Path, x: Any, **kwargs: Any) -> list[Element]:
    dataset = tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(3)
    page = read_page(write_report(folder, TRIAGE, dataset, **kwargs))
    return page.find_all("tr", class_="example")


def facts(example: Element) -> str:
    return " ".join(part.text for part in example.find_all("ul", class_="facts"))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_texts_are_shown_whatever_their_shape(tmp_path: Path, shape: tuple) -> None:
    x = np.array(["a b", "c", "d", "é"]).reshape(shape)
    assert [facts(one) for one in examples(tmp_path, x)] == ["a b", "c", "d", "é"]


def test_a_long_text_can_be_opened_in_full(tmp_path: Path) -> None:
    (text,) = examples(tmp_path, np.array([LONG] * 4))[0].find_all("details", class_="text")
    (start,) = text.find_all("summary")
    assert len(start.text) < 300
    assert text.text.replace("…", "").split() == LONG.split()


def test_tokens_of_texts_are_joined(tmp_path: Path) -> None:
    assert facts(examples(tmp_path, np.array([["a", "fine", "film"]] * 4))[0]) == "a fine film"


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_columns_are_names_with_values(tmp_path: Path, shape: tuple) -> None:
    x = {"age": np.full(shape, 20.5), "job": np.full(shape, "clerk"), "visits": np.full(shape, 3)}
    assert facts(examples(tmp_path, x)[0]) == "age 20.5 job clerk visits 3"


def test_a_picture_beside_numbers_is_drawn(tmp_path: Path) -> None:
    (first, *_) = examples(tmp_path, {"image": PHOTOS, "age": np.full((4, 1), 41.0)})
    assert len(first.find_all("img")) == 1
    assert facts(first) == "age 41"


def test_several_pictures_are_all_drawn(tmp_path: Path) -> None:
    assert len(examples(tmp_path, (PHOTOS, PHOTOS[:, :, :, 0]))[0].find_all("img")) == 2


def test_tokens_are_identifiers_and_their_padding_is_counted(tmp_path: Path) -> None:
    assert facts(examples(tmp_path, TOKENS)[0]) == "7 2041 9 0 (× 5)"


@pytest.mark.parametrize(
    "x",
    [WAVES, WAVES[:, :, None], (WAVES * 1000).astype(np.int16), WAVES[:, :4000].reshape(4, -1, 2)],
    ids=["float", "with an axis", "integers", "two channels"],
)
def test_waves_are_drawn(tmp_path: Path, x: np.ndarray) -> None:
    (wave,) = examples(tmp_path, x)[0].find_all("svg", class_="wave")
    (path,) = wave.find_all("path")
    lines = [line.split("L") for line in path.attributes["d"].split("M")[1:]]
    assert len(lines) == (x.shape[2] if x.ndim == 3 else 1)
    points = np.array([point.split() for line in lines for point in line], float)
    assert 240 <= len(points) <= 2 * 240 * len(lines)
    # The drawing fills its frame: a sine goes through all heights.
    np.testing.assert_allclose([points[:, 1].min(), points[:, 1].max()], [1, 47], atol=0.1)
    assert (points[:, 0] >= 0).all()
    assert (points[:, 0] <= 240).all()


def test_a_wave_goes_up_where_the_values_do(tmp_path: Path) -> None:
    ramp = np.linspace(-1, 1, 300)[None].repeat(4, axis=0)
    path = examples(tmp_path, ramp)[0].find_all("path")[0].attributes["d"]
    heights = [float(point.split()[1]) for point in path.strip("M").split("L")]
    # Down is up in a drawing; the values of one column of pixels come from both its ends.
    assert heights[0] > heights[len(heights) // 2] > heights[-1]


def test_other_inputs_are_described(tmp_path: Path) -> None:
    x = {"cube": np.zeros((4, 5, 2, 2), np.float32), "pair": (np.arange(4), np.ones((4, 3)))}
    text = "cube 5 × 2 × 2 float32, from 0 to 0 pair/0 0 pair/1 1 1 1"
    assert facts(examples(tmp_path, x)[0]) == text


FRAME = pd.DataFrame({"age": [30, 41, 22, 19], "job": ["clerk", None, "nurse", "smith"]})
TEXTS = ["one", "two", "three", "four"]
DISPLAYS = {
    "list": (TEXTS, "one"),
    "array of texts": (np.array(TEXTS), "one"),
    "tensor of texts": (tf.constant(TEXTS), "one"),
    "series": (pd.Series(TEXTS, index=[9, 8, 7, 6]), "one"),
    "data frame": (FRAME, "age 30 job clerk"),
    "dict": ({"text": TEXTS, "n": range(4)}, "text one n 0"),
    "records": ([{"a": 1}, {"b": 2}, {}, {"a": 3, "b": 4}], "a 1 b –"),
    "words": ([["a", "b"], ["c"], [], ["d"]], "a b"),
    "files": ([Path(f"sounds/{i}.wav") for i in range(4)], "sounds/0.wav"),
    "names of pictures in a column": ({"file": [f"{i}.png" for i in range(4)]}, "file 0.png"),
    "function": (lambda batch: [f"label {y}" for y in batch[1].numpy()], "label 0"),
}


@pytest.mark.parametrize("case", DISPLAYS.values(), ids=DISPLAYS)
def test_what_the_caller_shows_takes_the_place_of_the_input(tmp_path: Path, case: tuple) -> None:
    display, expected = case
    assert facts(examples(tmp_path, TOKENS, display=display)[0]) == expected


def test_what_is_missing_in_a_column_is_a_dash(tmp_path: Path) -> None:
    assert facts(examples(tmp_path, TOKENS, display=FRAME)[1]) == "age 41 job –"


def test_pictures_of_files_are_drawn_and_named(tmp_path: Path) -> None:
    paths = [tmp_path / "photos" / "cat" / f"{i}.png" for i in range(4)]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    for number, display in enumerate((paths, [str(path) for path in paths])):
        first = examples(tmp_path / str(number), PHOTOS, display=display)[0]
        assert len(first.find_all("img")) == 1
        assert facts(first) == "cat/0.png"


def test_an_array_of_pictures_is_drawn(tmp_path: Path) -> None:
    first = examples(tmp_path, TOKENS, display={"scan": PHOTOS, "note": TEXTS})[0]
    assert len(first.find_all("img")) == 1
    assert facts(first) == "note one"


def test_a_picture_may_be_missing(tmp_path: Path) -> None:
    rows = examples(tmp_path, TOKENS, display={"scan": [None, *PHOTOS[1:]], "note": TEXTS})
    assert [len(row.find_all("img")) for row in rows] == [0, 1, 1, 1]
    assert facts(rows[0]) == "note one"


def test_pictures_of_the_input_stay_beside_texts(tmp_path: Path) -> None:
    first = examples(tmp_path, PHOTOS, display=TEXTS)[0]
    assert len(first.find_all("img")) == 1
    assert facts(first) == "one"


def test_features_with_names_stay_beside_texts(tmp_path: Path) -> None:
    x = GENERATOR.normal(size=(4, 2))
    first = examples(tmp_path, x, display=TEXTS, feature_names=["a", "b"])[0]
    assert len(first.find_all("td", class_="feature")) == 2
    assert facts(first) == "one"
    assert examples(tmp_path / "b", x, display=TEXTS)[0].find_all("td", class_="feature") == []


def test_a_picture_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for path in (broken, tmp_path / "missing.png"):
        with pytest.raises(DataSourceError, match=f"`display` must name pictures.*{path.name}"):
            examples(tmp_path / "page", PHOTOS, display=[path] * 4)


def test_names_of_pictures_that_are_not_there_are_no_texts(tmp_path: Path) -> None:
    names = ["a.png", "b.PNG", "c.jpg", "d.png"]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    names[0] = str(tmp_path / "a.png")
    for display in (names, np.array(names)):
        with pytest.raises(DataSourceError, match=r"`display` must name.*'b\.PNG', which is"):
            examples(tmp_path / "page", TOKENS, display=display)
    rows = examples(tmp_path / "mixed", TOKENS, display=["no picture", *names[1:]])
    assert facts(rows[1]) == "b.PNG"


@pytest.mark.parametrize(
    ("display", "received"),
    [
        (TEXTS[:3], "`display` .*3 entries for 4 examples"),
        ({"a": TEXTS, "b": TEXTS[:2]}, r"`display\['b'\]` .*2 entries for 4"),
        ({}, "an empty dict"),
        ("one text", "Received: str"),
        (7, "Received: int"),
        (iter(TEXTS), "Received: list_iterator"),
    ],
    ids=["short", "short column", "empty", "text", "number", "iterator"],
)
def test_what_cannot_be_shown_is_refused(tmp_path: Path, display: Any, received: str) -> None:
    with pytest.raises(ValueError, match=f"Argument .*must hold one entry.*{received}|{received}"):
        examples(tmp_path, TOKENS, display=display)
