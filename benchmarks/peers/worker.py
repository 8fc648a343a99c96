"""Do one work with one library, in a process of its own, and write what came and what it took.

``python worker.py LIBRARY FUNCTION PROBLEM FOLDER OUT.npz [--repeats N] [--seconds S]``
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from problems import load_problem

MODULE = "with_{}"


def memory(field: str) -> float:
    """Return a field of the process's memory in MB: ``VmRSS`` now, ``VmHWM`` at its highest."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def forget_highest_memory() -> None:
    """Let the highest memory count from now on, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def timed(function: Any) -> tuple[float, Any]:
    """Return the seconds of a call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(
    make: Any, problem: Any, repeats: int, seconds: float
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the last result, and what was measured.

    A part of a result that is a function is called when the times have been taken.

    After the first call others follow, ``repeats`` at most, while they, and one more like the last
    of them, fit in ``seconds``.
    """
    forget_highest_memory()
    before = memory("VmRSS")
    setup, call = timed(lambda: make(problem))
    cold, result = timed(call)
    warm: list[float] = []
    last = cold
    while len(warm) < repeats and sum(warm) + last <= seconds:
        last, result = timed(call)
        warm.append(last)
    measured = {
        "setup": setup,
        "cold": cold,
        "warm": statistics.median(warm) if warm else None,
        "repeats": len(warm),
        "memory_mb": memory("VmHWM") - before,
    }
    result = {name: value() if callable(value) else value for name, value in result.items()}
    return result, measured


def main() -> None:
    """Read the arguments, and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("library", "function", "problem"):
        parser.add_argument(name)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    problem = load_problem(args.problem, args.folder)
    library = importlib.import_module(MODULE.format(args.library))
    make = getattr(library, args.function)
    result, measured = measure(make, problem, args.repeats, args.seconds)
    measured["version"] = library.VERSION
    np.savez(args.out, measured=json.dumps(measured), **result)


if __name__ == "__main__":
    main()
