"""Every tutorial runs, and finds what it says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

TUTORIALS = sorted((Path(__file__).resolve().parents[1] / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda p: p.stem)
def test_the_tutorial_runs(tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("Agg")
    runpy.run_path(str(tutorial), run_name="__main__")
    plt.close("all")
