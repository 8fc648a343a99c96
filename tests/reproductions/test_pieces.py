"""Pieces of a long reproduction are computed once, whatever the number of processes."""

from __future__ import annotations

import importlib
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TASKS = {f"root-{number}": {"number": number} for number in (4, 9, 16)}
EXPECTED = {"root-4": {"root": 2.0}, "root-9": {"root": 3.0}, "root-16": {"root": 4.0}}


@pytest.fixture
def pieces() -> ModuleType:
    return importlib.import_module("pieces")


def root(task: dict[str, Any]) -> dict[str, Any]:
    return {"root": math.sqrt(task["number"])}


def test_what_is_on_disk_is_not_computed_again(pieces, tmp_path):
    assert pieces.compute_pieces(root, TASKS, tmp_path) == EXPECTED
    (tmp_path / "root-9.json").unlink()
    asked = []

    def counted(task: dict[str, Any]) -> dict[str, Any]:
        asked.append(task["number"])
        return root(task)

    assert pieces.compute_pieces(counted, TASKS, tmp_path) == EXPECTED
    assert asked == [9]


def test_an_interrupted_run_leaves_the_pieces_that_were_done(pieces, tmp_path):
    def fails_at_nine(task: dict[str, Any]) -> dict[str, Any]:
        if task["number"] == 9:
            message = "stopped"
            raise KeyboardInterrupt(message)
        return root(task)

    with pytest.raises(KeyboardInterrupt, match="stopped"):
        pieces.compute_pieces(fails_at_nine, TASKS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["root-4.json"]


def test_pieces_of_other_settings_lie_elsewhere(pieces, tmp_path):
    options = pieces.Options("smoke", tmp_path, tmp_path, tmp_path)
    first = pieces.pieces_folder("name", options, {"seeds": 1})
    assert first == pieces.pieces_folder("name", options, {"seeds": 1})
    assert first != pieces.pieces_folder("name", options, {"seeds": 2})
    assert first.parent == tmp_path / "pieces"


def test_pieces_of_other_scripts_or_another_version_lie_elsewhere(pieces, monkeypatch, tmp_path):
    options = pieces.Options("smoke", None, tmp_path, tmp_path)
    script = tmp_path / "script.py"
    script.write_text("EPOCHS = 1")
    monkeypatch.setattr(pieces, "SCRIPTS", tmp_path)
    folders = {pieces.pieces_folder("name", options, {})}
    script.write_text("EPOCHS = 2")
    folders.add(pieces.pieces_folder("name", options, {}))
    monkeypatch.setattr(pieces, "__version__", "another")
    folders.add(pieces.pieces_folder("name", options, {}))
    assert len(folders) == 3


def test_a_run_that_finds_pieces_is_resumed(pieces, tmp_path):
    def asked() -> tuple[pieces.Options, Path]:
        options = pieces.Options("smoke", None, tmp_path, tmp_path)
        return options, pieces.pieces_folder("name", options, {})

    options, folder = asked()
    pieces.compute_pieces(root, TASKS, folder)
    assert not options.resumed
    assert asked()[0].resumed


def test_workers_are_taken_off_the_command_line(pieces, monkeypatch):
    arguments = ["--form", "smoke", "--workers", "3"]
    assert pieces.split_workers(arguments) == (3, ["--form", "smoke"])
    assert pieces.split_workers([]) == (1, [])
    monkeypatch.setenv(pieces.WORKERS_VARIABLE, "5")
    assert pieces.split_workers([]) == (5, [])


def test_processes_give_what_one_gives(pieces, monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = dict(os.environ)
    assert pieces.compute_pieces(root, TASKS, tmp_path, num_workers=2) == EXPECTED
    assert dict(os.environ) == before
