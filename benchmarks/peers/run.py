"""Measure works beside other libraries, on the same weights and examples, each result checked.

    python benchmarks/peers/run.py [--only NAME...] [--merge] [--peers PYTHON] [--limit SECONDS]
        [--faster] [--threads N]

Every pair of a work and a library has a process of its own. Writes
``benchmarks/results/peers.json`` and the tables of ``docs/peers.md``. The environment with the
other libraries is made by ``make_environment.py``; ``make bench-peers`` does both, and runs the
other libraries a second time, on one thread, as PyTorch's threads may stand in each other's way.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import peers_page
from agreement import MEASURES
from problems import load_problem
from references import load_reference
from works import LIBRARIES, OURS, WORKS, Work, chosen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT = 240.0
"""Seconds after which a process is stopped, its start included."""

Command = Callable[[str], list[str]]
Environment = dict[str, Any]


def commands(peers: Path) -> Command:
    """Return what tells the command that runs the worker for a library."""
    worker = str(HERE / "worker.py")
    return lambda library: [sys.executable if library == OURS else str(peers), worker]


def run_cell(
    work: Work, library: str, command: Command, args: argparse.Namespace, threads: int | None
) -> Environment:
    """Run one work with one library, and return what the table says of it.

    ``threads`` is how many threads PyTorch may take; None leaves it to the library.
    """
    start = {"date": _now(), "load": os.getloadavg()[0], "threads": threads}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "result.npz"
        arguments = [library, work.function, work.problem, str(args.problems), str(out)]
        # Ours is the package of this checkout; libraries write what they keep into the scratch.
        surroundings = {**os.environ, "TMPDIR": scratch, "TF_CPP_MIN_LOG_LEVEL": "2"}
        surroundings["PYTHONPATH"] = str(ROOT) if library == OURS else ""
        if threads is not None:
            surroundings["OMP_NUM_THREADS"] = str(threads)
        try:
            done = subprocess.run(
                [*command(library), *arguments],
                capture_output=True,
                text=True,
                timeout=args.limit,
                env=surroundings,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"status": "stopped", "limit": args.limit, **start}
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            return {"status": "failed", "message": lines[-1][:300], **start}
        with np.load(out) as found:
            result = dict(found)
    return {**judged(work, result, args.problems), **start}


def faster(one: Environment, other: Environment | None) -> Environment:
    """Return the cell with the shorter time, and the first one where neither has any."""
    if other is None or other["status"] != "measured":
        return one
    if one["status"] != "measured":
        return other
    return min(one, other, key=peers_page.best_seconds)


def judged(work: Work, result: dict[str, np.ndarray], folder: Path) -> Environment:
    """Return the times of a result, or, where it is wrong, how wrong it is and no times."""
    measured = json.loads(str(result.pop("measured")))
    problem = load_problem(work.problem, folder)
    reference = load_reference(work.reference, work.problem, folder)
    measure = MEASURES[work.measure]
    value = measure.of(result, reference, problem)
    said = {"agreement": value, "version": measured.pop("version")}
    if not measure.holds(value, work.bound):
        return {"status": "wrong", **said}
    return {"status": "measured", **measured, **said}


def environment(command: str) -> Environment:
    """Return the machine, its load, and what was called."""
    return {
        "date": _now(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "command": command,
    }


def described(work: Work) -> dict[str, Any]:
    """Return what the page says of a work."""
    return {
        "title": work.title,
        "problem": work.problem,
        "measure": MEASURES[work.measure].title,
        "is_error": MEASURES[work.measure].is_error,
        "bound": work.bound,
        "reason": work.reason,
        "is_pass": work.is_pass,
        "empty": work.empty,
    }


def merged(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose cells that were not measured now are those of an earlier one.

    A cell of a work that the table no longer has, or of a library that is now known not to do it,
    is left out.
    """
    cells = {}
    for name, work in result["works"].items():
        old = earlier["cells"].get(name, {})
        kept = {library: cell for library, cell in old.items() if library not in work["empty"]}
        cells[name] = {**kept, **result["cells"].get(name, {})}
    return {**result, "cells": cells}


def _called(args: argparse.Namespace) -> str:
    """Return the command, without the paths of a machine."""
    only = ["--only", *args.only] if args.only else []
    flags = [f"--{name}" for name in ("merge", "faster") if getattr(args, name)]
    threads = [] if args.threads is None else ["--threads", str(args.threads)]
    return " ".join(["python benchmarks/peers/run.py", *only, *flags, *threads])


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _write(result: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="works and libraries to run")
    parser.add_argument("--merge", action="store_true", help="keep other cells that are there")
    parser.add_argument(
        "--faster", action="store_true", help="of a cell that was there, keep the shorter time"
    )
    parser.add_argument("--threads", type=int, help="threads of the other libraries")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each process")
    parser.add_argument("--problems", type=Path, default=ROOT / "build" / "peers")
    parser.add_argument("--out", type=Path, default=peers_page.RESULTS)
    parser.add_argument("--page", type=Path, default=peers_page.PAGE)
    return parser.parse_args(argv)


def measured(
    pairs: Sequence[tuple[Work, str]], args: argparse.Namespace, command: Command
) -> dict[str, Any]:
    """Run all pairs, and return what came; it is written after each of them."""
    before: dict[str, Any] = {"cells": {}}
    if (args.merge or args.faster) and args.out.exists():
        before = json.loads(args.out.read_text(encoding="utf-8"))
    called = _called(args)
    if args.faster and "environment" in before:
        called = f"{before['environment']['command']}; {called}"
    result = {
        "environment": environment(called),
        "libraries": LIBRARIES,
        "works": {work.name: described(work) for work in WORKS},
        "cells": {},
    }
    for reference, problem in {(work.reference, work.problem) for work, _ in pairs}:
        load_reference(reference, problem, args.problems)  # made before anything is timed
    start = time.perf_counter()
    for work, library in pairs:
        threads = args.threads if library != OURS else None
        cell = run_cell(work, library, command, args, threads)
        if args.faster:
            cell = faster(cell, before["cells"].get(work.name, {}).get(library))
        result["cells"].setdefault(work.name, {})[library] = cell
        print(f"{work.name:22} {library:15} {peers_page.told(cell)}", flush=True)
        result["environment"]["seconds"] = time.perf_counter() - start
        _write(merged(result, before), args.out)
    return merged(result, before)


def main(argv: Sequence[str] | None = None, command: Command | None = None) -> None:
    """Measure, and write what came."""
    args = _parsed(argv)
    pairs = chosen(args.only)
    if command is None and not args.peers.exists() and any(name != OURS for _, name in pairs):
        message = (
            "Argument `--peers` must be a Python that has the other libraries. Received: "
            f"{args.peers}, which is not there. Run make_environment.py, or `--only {OURS}`."
        )
        raise FileNotFoundError(message)
    result = measured(pairs, args, command or commands(args.peers))
    peers_page.update_page(result, args.page)


if __name__ == "__main__":
    main()
