"""How much memory is left."""

from __future__ import annotations

import os


def available_bytes() -> int | None:
    """Return the bytes of memory that are free now, or None where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        # Not a POSIX system: there is no portable way to ask.
        return None


def human_bytes(count: float) -> str:
    """Return a number of bytes as text with a fitting unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
