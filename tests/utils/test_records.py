"""A record is read as it was written, or refused with its name, the reason and the remedy."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from deel_influence.errors import DataSourceError, SavedCurvatureError
from deel_influence.utils.records import Arrays, RecordKind, Settings, read_arrays

KIND = RecordKind("box of numbers", "Make it again.", version=2, error=SavedCurvatureError)
SETTINGS = {"depth": 3, "rate": 0.5, "names": ["a", "é"], "nested": {"10": 1, "9": None}}
ARRAYS = {"one": np.arange(6.0).reshape(2, 3), "texts": np.array(["x", "yz"]), "none": np.empty(0)}
SUFFIXES = (".npz", ".json")


def read(path: Path, kind: RecordKind = KIND) -> tuple[Settings, Arrays]:
    return kind.read(path, lambda settings, arrays: (settings, arrays))


def written(folder: Path, suffix: str = ".npz") -> Path:
    arrays = None if suffix == ".json" else ARRAYS
    return KIND.write(folder / f"record{suffix}", SETTINGS, arrays)


def check_refused(path: Path, reason: str, kind: RecordKind = KIND) -> None:
    with pytest.raises(SavedCurvatureError, match=reason) as caught:
        read(path, kind)
    assert path.name in str(caught.value)
    assert str(caught.value).endswith("Make it again.")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_settings_and_arrays_come_back(tmp_path: Path, suffix: str) -> None:
    settings, arrays = read(written(tmp_path, suffix))
    assert {name: settings[name] for name in SETTINGS} == SETTINGS
    assert set(arrays) == (set() if suffix == ".json" else set(ARRAYS))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_empty_truncated_and_foreign_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"nothing{suffix}"
    check_refused(path, "is not there")
    content = written(tmp_path, suffix).read_bytes()
    for cut in (0, 1, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:cut])
        check_refused(path, "cannot be read")
    other = RecordKind("tin", "Make it again.", 2, SavedCurvatureError)
    check_refused(written(tmp_path, suffix), "holds a box of numbers", other)
    older = RecordKind("box of numbers", "Make it again.", 1, SavedCurvatureError)
    check_refused(written(tmp_path, suffix), "is of version 2 and not 1", older)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_flipped_bit_changes_anything_in_silence(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix)
    content, expected = path.read_bytes(), read(path)
    draw = np.random.default_rng(0)
    for _ in range(400):
        changed = bytearray(content)
        changed[draw.integers(len(changed))] ^= 1 << int(draw.integers(8))
        path.write_bytes(bytes(changed))
        try:
            found = read(path)
        except SavedCurvatureError:
            continue
        assert found[0] == expected[0]
        for name, array in expected[1].items():
            np.testing.assert_array_equal(found[1][name], array)


ODD_HEADERS = {
    "list": "[1, 2]",
    "null": "null",
    "deep": "[" * 100_000,
    "no JSON": "hello",
    "another program's": json.dumps({"format": 2}),
    "without a checksum": json.dumps({"kind": KIND.name, "version": 2}),
}


@pytest.mark.parametrize("text", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_odd_headers_are_refused(tmp_path: Path, text: str) -> None:
    reason = "cannot be read|did not write|was changed"
    np.savez(tmp_path / "record.npz", header=np.frombuffer(text.encode(), np.uint8))
    check_refused(tmp_path / "record.npz", reason)
    (tmp_path / "record.json").write_text(text)
    check_refused(tmp_path / "record.json", reason)


CHANGES: dict[str, Callable[[Arrays], Arrays]] = {
    "one less": lambda a: {name: array for name, array in a.items() if name != "one"},
    "one more": lambda a: {**a, "more": np.ones(1)},
    "cut": lambda a: {**a, "one": a["one"][:1]},
    "another type": lambda a: {**a, "one": a["one"].astype(np.float32)},
    "another name": lambda a: {("two" if n == "one" else n): array for n, array in a.items()},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_arrays_that_were_changed_are_refused(
    tmp_path: Path, change: Callable[[Arrays], Arrays]
) -> None:
    path = written(tmp_path)
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **change(content))
    check_refused(path, "checksum is another")


@pytest.mark.parametrize("kind", [KeyError, TypeError, ValueError, AttributeError, IndexError])
def test_what_a_reader_meets_in_odd_content_is_an_error_of_the_kind(
    tmp_path: Path, kind: type[Exception]
) -> None:
    def parse(_: Settings, __: Arrays) -> None:
        raise kind

    with pytest.raises(SavedCurvatureError, match=f"odd content .*{kind.__name__}"):
        KIND.read(written(tmp_path), parse)


def test_errors_of_the_library_pass_through_a_reader(tmp_path: Path) -> None:
    def parse(_: Settings, __: Arrays) -> None:
        message = "its own"
        raise DataSourceError(message)

    with pytest.raises(DataSourceError, match=r"^its own$"):
        KIND.read(written(tmp_path), parse)


@pytest.mark.parametrize("shape", [(2**50,), (-1,), (2**40, 2**40)])
def test_no_memory_is_taken_for_numbers_that_a_file_does_not_hold(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    content = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(content, described)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x.npy", content.getvalue())
    with pytest.raises(ValueError, match="declares"):
        read_arrays(tmp_path / "huge.npz")


def test_compressed_records_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "record.npz"
    np.savez_compressed(path, header=np.zeros(10**6, np.uint8))
    check_refused(path, "is compressed")


def test_python_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{}, None], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        read_arrays(tmp_path / "objects.npz")


def test_python_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"numbers or texts. Received: \['odd'\]"):
        KIND.write(tmp_path / "record.npz", {}, {"odd": np.array([{}, None], dtype=object)})
    assert not list(tmp_path.iterdir())
