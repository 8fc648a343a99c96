"""Files and folders on disk: whole or not at all, whoever else writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deel_influence.utils.files import replacing

KILLED = """
import sys, time
from deel_influence.utils.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt


def test_writers_of_one_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # which ended last
    assert names(tmp_path) == ["file"]


def test_after_an_exception_the_old_content_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in (["a", "b"], ["c"]):
        with replacing(path) as temporary:
            temporary.mkdir()
            for name in content:
                (temporary / name).write_text(name)
        assert names(path) == content
    assert names(tmp_path) == ["folder"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "file", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_file_that_is_only_to_be_new_leaves_one_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("first", "second"):
        with replacing(path, only_new=True) as temporary:
            temporary.write_text(text)
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_what_killed_writers_left_is_removed_and_what_living_ones_write_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        with replacing(path) as temporary:
            temporary.write_text("whole")
        assert len(names(tmp_path)) == 2  # the other one still lives
        killed.kill()
    assert len(names(tmp_path)) == 2
    with replacing(path) as temporary:
        temporary.write_text("again")
    assert names(tmp_path) == ["file"]


def test_a_folder_that_was_put_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    path, left = tmp_path / "folder", tmp_path / f".folder.{'0' * 32}.tmp" / "replaced"
    left.mkdir(parents=True)
    (left / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


def test_what_another_path_left_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".file.txt.{'0' * 32}.tmp"
    other.mkdir()
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("mine")
    assert other.exists()
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("mine")
    assert names(tmp_path) == ["file", "file.txt"]
