"""Arrays on disk that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np


def npz_path(path: str | Path) -> Path:
    """Return the path with ``.npz`` at its end, added if it is not there."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to an ``.npz`` file under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two threads, or processes of two machines, may write one file at the same time.
    own = f"{os.getpid()}.{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f".{path.name}.{own}.tmp.npz")
    try:
        np.savez(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only if something failed
