"""Arrays on disk: whole or not at all, whoever else writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deel_influence.utils.files import save_arrays


def test_writers_of_one_file_do_not_share_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[Path] = []
    save = np.savez

    def recorded(path: Path, **arrays: np.ndarray) -> None:
        names.append(path)
        save(path, **arrays)

    monkeypatch.setattr(np, "savez", recorded)
    for value in range(3):
        save_arrays(tmp_path / "file.npz", numbers=np.full(2, value))
    assert len(set(names)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]
    with np.load(tmp_path / "file.npz") as file:
        np.testing.assert_array_equal(file["numbers"], 2)
