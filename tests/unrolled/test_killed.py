"""A training whose process is killed goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.unrolled.runs import RECIPES, recorded

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys
from pathlib import Path
from deel_influence.unrolled.recorded_run import Checkpoints
from tests.unrolled.runs import RECIPES, recorded

write = Checkpoints.write

def written_or_killed(self, step, state):
    if step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, step, state)

Checkpoints.write = written_or_killed
recorded(RECIPES["AdamW, clipped"], folder=Path(sys.argv[1]), checkpoint_every=2)
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    found = []
    for name in ("killed", "whole"):
        folder = tmp_path / name
        recorded(RECIPES["AdamW, clipped"], folder=folder, checkpoint_every=2)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) == 7  # the run, states 0, 2, 4, 6 and 8, and the last, 9
