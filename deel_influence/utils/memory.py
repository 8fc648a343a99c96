"""How much memory is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")

HELD_SHARE = 0.25
"""Share of the free memory that may hold what could be computed again."""

HELD_BYTES_WITHOUT_LIMIT = 2**30
"""The same where the system does not tell how much memory is free."""


def available_bytes() -> int | None:
    """Return the bytes of memory that can be had now, or None where the system does not tell.

    On Linux that is what the kernel estimates, within the limit of the control group (the
    container) of the process. Other systems have no portable way to ask.
    """
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
