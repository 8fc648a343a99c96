"""A builder that is killed at any moment leaves a folder that is finished with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tests.store.builder as program
from deel_influence.calculators import StoredMatrix
from deel_influence.store import Index

KILLED_AFTER = {"index": 5, "matrix": 20}
FILES = {"index": 1 + 16, "matrix": 1 + 2 * 16}  # the last part of a row is empty


def builder(path: Path, pause: float, what: str) -> subprocess.Popen:
    command = [sys.executable, program.__file__, str(path), str(pause), what]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, env=environment)


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


@pytest.mark.parametrize("what", FILES)
def test_killed_and_finished_by_two_at_once(what, tmp_path):
    folder = tmp_path / "built"
    killed = builder(folder, 0.05, what)
    while len(list(folder.glob("part-*"))) < KILLED_AFTER[what]:
        assert killed.poll() is None
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    left = files_of(folder)
    assert KILLED_AFTER[what] < len(left) < FILES[what]
    both = [builder(folder, 0, what) for _ in range(2)]  # which race for the same files
    whole = builder(tmp_path / "whole", 0, what)
    assert [process.wait() for process in (*both, whole)] == [0, 0, 0]
    found = files_of(folder)
    assert len(found) == FILES[what]
    assert found == files_of(tmp_path / "whole")
    assert left.items() <= found.items()
    if what == "matrix":
        assert np.shape(StoredMatrix.load(folder)) == (2 * program.BATCH, program.N)
        return
    assert Index(folder).check().complete
    assert len(Index(folder)) == program.N
