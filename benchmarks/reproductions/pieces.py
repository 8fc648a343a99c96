"""Independent pieces of a long reproduction: in several processes, and kept on disk."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from evidence import RESULTS, ROOT, Options

from deel_influence import __version__

SCRIPTS = Path(__file__).resolve().parent
WORKERS_VARIABLE = "DEEL_INFLUENCE_WORKERS"

Task = dict[str, Any]
Piece = dict[str, Any]

# One thread for each process: what the processes share is the machine, not the pieces. A GPU has
# not the memory for several of them.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


def split_workers(arguments: list[str] | None) -> tuple[int, list[str]]:
    """Take ``--workers N`` off a command line.

    Returns
    -------
    N (default: the variable DEEL_INFLUENCE_WORKERS, else 1), and the other arguments.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--workers", type=int, default=os.environ.get(WORKERS_VARIABLE, "1"))
    given, others = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    return given.workers, others


def pieces_folder(name: str, options: Options, settings: dict[str, Any]) -> Path:
    """Return where the pieces of a reproduction with these settings are kept.

    Other settings, data, scripts or another version of the library have another folder. What was
    changed in the library since its version is not noticed. If there are pieces already, the
    options say from now on that the run is resumed.
    """
    sources = {path.name: path.read_text(encoding="utf-8") for path in SCRIPTS.glob("*.py")}
    described = [settings, str(options.data_dir), sources, __version__]
    text = json.dumps(described, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    parent = ROOT / f"evidence-{options.form}" if options.results == RESULTS else options.results
    folder = parent / "pieces" / f"{name}-{digest}"
    options.resumed = options.resumed or any(folder.glob("*"))
    return folder


def compute_pieces(
    function: Callable[[Task], Piece], tasks: dict[str, Task], folder: Path, num_workers: int = 1
) -> dict[str, Piece]:
    """Return ``function(task)`` for each task, by name; what is on disk is not computed again.

    Parameters
    ----------
    function
        A function of a module, of a task alone; its result goes through JSON.
    tasks
        Tasks by name, which is the name of the file of the result.
    folder
        Where the results are kept; see `pieces_folder`.
    num_workers
        The number of processes. Several have one thread each, so that sums may differ from those
        of one in their last digits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = {name: task for name, task in tasks.items() if not _path(folder, name).exists()}
    found = len(tasks) - len(missing)
    print(f"{found} of {len(tasks)} pieces are there already, in {folder}", flush=True)
    for count, (name, piece) in enumerate(_computed(function, missing, num_workers), start=1):
        path = _path(folder, name)
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(piece))
        temporary.replace(path)
        print(f"piece {count} of {len(missing)}: {name}", flush=True)
    return {name: json.loads(_path(folder, name).read_text()) for name in tasks}


def _computed(
    function: Callable[[Task], Piece], tasks: dict[str, Task], num_workers: int
) -> Iterator[tuple[str, Piece]]:
    """Yield names and pieces, as they are done."""
    if num_workers <= 1:
        for name, task in tasks.items():
            yield name, function(task)
        return
    # TensorFlow does not survive a fork. Its threads are set by what a process starts with.
    pool = ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"))
    with _environment(_ENVIRONMENT), pool:
        futures = {pool.submit(function, task): name for name, task in tasks.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
