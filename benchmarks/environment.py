"""What a benchmark ran on, and how it times."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def environment() -> dict[str, Any]:
    """Return versions and machine, as JSON stores them."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "devices": [device.name for device in tf.config.list_logical_devices()],
    }


def seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median time of a call, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def interleaved_seconds(
    functions: dict[str, Callable[[], Any]], repeats: int = 5
) -> dict[str, float]:
    """Return the median time of each function, measured in turns.

    Taking turns spreads what else the machine does over all of them, so that ratios hold.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result beside its environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment(), **result}, indent=2) + "\n")
    print(f"wrote {path}")
