"""How much memory is left, and how much of it may be taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
RESIDENT = Path("/proc/self/statm")

HELD_SHARE = 0.25
"""Share of the free memory that may hold what could be computed again."""

HELD_BYTES_WITHOUT_LIMIT = 2**30
"""The same where the system does not tell how much memory is free."""


@dataclass(frozen=True)
class _Limit:
    """So many bytes more than the process had."""

    count: int
    before: int


_LIMIT: ContextVar[_Limit | None] = ContextVar("memory_limit", default=None)


@contextmanager
def memory_limit(limit: int) -> Iterator[None]:
    """Have what is computed in the body take up to about so many bytes beside what is held now.

    Without it a quarter of the free memory may hold what could be computed again, and chunks of
    queries or of checkpoints take up to 256 MiB. With it these are a quarter of the limit, and
    what needs more than is left of it, such as an exact Hessian, is refused as where memory is
    short. Results are those without it, to rounding; a stored matrix is gone on with under the
    limit under which it was begun. One batch is computed at a time whatever it takes: smaller
    batches take less. The limit holds for the thread that sets it.

    Parameters
    ----------
    limit
        Bytes.

    Raises
    ------
    ValueError
        If it is no positive number of bytes.

    Examples
    --------
    >>> with memory_limit(2**30):
    ...     available_bytes() <= 2**30
    True
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        message = (
            "Argument `limit` must be a number of bytes of at least 1, such as 2**30. Received: "
            f"{limit!r}."
        )
        raise ValueError(message)
    token = _LIMIT.set(_Limit(limit, _resident_bytes()))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def available_bytes() -> int | None:
    """Return the bytes of memory that can be had now, or None where the system does not tell.

    On Linux that is what the kernel estimates, within the limit of the control group (the
    container) of the process. Other systems have no portable way to ask. Nowhere is it more than a
    `memory_limit` leaves.
    """
    limit, free = _LIMIT.get(), _free_bytes()
    if limit is None:
        return free
    left = max(limit.count - max(_resident_bytes() - limit.before, 0), 0)
    return left if free is None else min(free, left)


def working_bytes(usual: int) -> int:
    """Return how many bytes may be worked with at once: as many as usual, if no limit is lower."""
    limit = _LIMIT.get()
    return usual if limit is None else min(usual, int(HELD_SHARE * limit.count))


def _resident_bytes() -> int:
    """Return the bytes that the process has; 0 where the system does not tell."""
    if not RESIDENT.exists():
        return 0
    return int(RESIDENT.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _free_bytes() -> int | None:
    if not MEMINFO.exists():
        return None
    lines = (line.split() for line in MEMINFO.read_text().splitlines())
    free = [int(parts[1]) * 1024 for parts in lines if parts[0] == "MemAvailable:"]
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free.append(int(limit.read_text()) - int(used.read_text()))
    return min(free) if free else None


def bytes_to_hold() -> int:
    """Return how many bytes may be taken now to hold what could be computed again."""
    free = available_bytes()
    return HELD_BYTES_WITHOUT_LIMIT if free is None else int(HELD_SHARE * free)


def bytes_of(nest: Any) -> int:
    """Return the bytes of a nest of tensors or arrays; strings count by their references."""
    parts = [tf.convert_to_tensor(part) for part in tf.nest.flatten(nest, expand_composites=True)]
    return sum(int(np.prod(part.shape)) * part.dtype.size for part in parts)


def human_bytes(count: float) -> str:
    """Return a number of bytes as text with a fitting unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
