"""A builder that is killed at any moment leaves an index that is finished with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import tests.store.builder as program
from deel_influence.store import Index

KILLED_AFTER = 5  # of 15 parts


def builder(path: Path, pause: float) -> subprocess.Popen:
    command = [sys.executable, program.__file__, str(path), str(pause)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, env=environment)


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_killed_and_finished_by_two_at_once(tmp_path):
    killed = builder(tmp_path / "index", 0.05)
    while len(list((tmp_path / "index").glob("part-*"))) < KILLED_AFTER:
        assert killed.poll() is None
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    left = files_of(tmp_path / "index")
    assert KILLED_AFTER < len(left) < 17
    both = [builder(tmp_path / "index", 0) for _ in range(2)]  # which race for the same files
    program.build(tmp_path / "whole")
    assert [process.wait() for process in both] == [0, 0]
    found = files_of(tmp_path / "index")
    assert found == files_of(tmp_path / "whole")
    assert left.items() <= found.items()
    assert Index(tmp_path / "index").check().complete
    assert len(Index(tmp_path / "index")) == program.N
