"""Arrays on disk that are there whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and its archives raise on files that are damaged, or none of theirs."""

_HEADER = "header"


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


def save_with_header(path: Path, header: Mapping[str, Any], **arrays: np.ndarray) -> None:
    """Write what JSON can hold, and arrays, to one ``.npz`` file; as `save_arrays` does.

    Parameters
    ----------
    path
        Where to write.
    header
        What JSON can hold.
    arrays
        Arrays by name, none of them called ``header``.
    """
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    save_arrays(path, **{_HEADER: text}, **arrays)


def load_with_header(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `save_with_header` wrote.

    What another file holds may be anything; one of `UNREADABLE` is raised where there is no header.
    """
    # Opened here, because NumPy leaves a file open that it cannot read.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop(_HEADER).tobytes()), arrays
