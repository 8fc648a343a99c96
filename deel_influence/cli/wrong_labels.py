"""Known wrong labels, as a user hands them to the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..utils.records import UNREADABLE, read_arrays
from .errors import CommandError, one_line

KEY = "mislabelled"
"""The name of the mask in an ``.npz`` file."""


def read_wrong_labels(path: Path, ids: np.ndarray) -> np.ndarray:
    """Return which examples the file says to be mislabelled, shape ``(n,)``, bool.

    Parameters
    ----------
    path
        A ``.txt`` file with an id on each line, or a ``.npy`` or ``.npz`` file with a mask.
    ids
        Ids of the n training examples, shape ``(n,)``.

    Raises
    ------
    CommandError
        If the file cannot be read, does not fit the data, or marks none or all of them.
    """
    try:
        mask = _listed(path, ids) if path.suffix == ".txt" else _read_mask(path)
    except CommandError:
        raise
    except UNREADABLE as error:
        message = (
            "--wrong-labels must be a .txt file of ids, or a .npy or .npz file of a mask. "
            f"Received: {str(path)!r}, which fails with: {one_line(error, 300)}"
        )
        raise CommandError(message) from error
    if mask.shape != ids.shape or mask.dtype != bool:
        message = (
            f"--wrong-labels must hold a mask of dtype bool for the {len(ids)} examples of --data. "
            f"Received: {str(path)!r} with shape {mask.shape}, dtype {mask.dtype}."
        )
        raise CommandError(message)
    if not mask.any() or mask.all():
        message = (
            f"--wrong-labels must mark some examples, and not all. Received: {str(path)!r} with "
            f"{int(mask.sum())} of {len(mask)}."
        )
        raise CommandError(message)
    return mask


def _listed(path: Path, ids: np.ndarray) -> np.ndarray:
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    wrong = np.array([line for line in lines if line], str)
    known = ids.astype(str)
    unknown = np.setdiff1d(wrong, known)
    if len(unknown):
        message = (
            f"--wrong-labels must list ids of --data. Received: {str(path)!r} with {len(unknown)} "
            f"others, such as {unknown[0]}. Ids are positions from 0 where the data have none of "
            "their own."
        )
        raise CommandError(message)
    return np.isin(known, wrong)


def _read_mask(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        # Mapped, so that no memory is taken for numbers that the file does not hold.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    content = read_arrays(path)
    if KEY not in content:
        message = (
            f"--wrong-labels must hold an array {KEY!r}. Received: {str(path)!r} with "
            f"{list(content)}."
        )
        raise CommandError(message)
    return content[KEY]
