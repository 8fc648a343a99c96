"""Results of a benchmark on disk, one file per method and seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataSourceError
from ..utils.files import replacing
from ..utils.records import Arrays, RecordKind, Settings, differing
from .results import MethodResult, SeedResult

_ARRAYS = ("scores", "mislabelled")
_NUMBERS = ("train_accuracy", "test_accuracy", "train_seconds", "score_seconds")

RUN = RecordKind(
    "benchmark run",
    "Delete that file and run the benchmark again, which computes only what is missing.",
)


class ResultFolder:
    """A folder with one subfolder per method, in which every finished seed has a file.

    A subfolder holds ``seed_000000.npz``, ... with the scores, and ``results.json`` with the
    measures of all of them. Files appear whole or not at all.

    Parameters
    ----------
    path
        The folder, which need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(
        self, method: str, seed: int, settings: dict[str, Any], mislabelled: np.ndarray
    ) -> SeedResult | None:
        """Return a finished run, or None.

        A run that is not there is refused all the same if those of other seeds have other
        settings: a method's runs are of one benchmark.

        Parameters
        ----------
        method
            The name of the method.
        seed
            The seed of the run.
        settings
            Of the benchmark that asks.
        mislabelled
            The labels that it flips for this seed, shape ``(n,)``, bool.

        Raises
        ------
        ValueError
            If the folder holds runs of the method with other settings or other data.
        DataSourceError
            If the file is damaged.
        """
        own = self._file(method, seed)
        path = own if own.exists() else min(own.parent.glob("seed_*.npz"), default=None)
        if path is None:
            return None
        run, stored = RUN.read(path, _parsed)
        current = json.loads(json.dumps(settings))
        different = [
            f"`{name}` ({stored.get(name)!r} there, {current.get(name)!r} here)"
            for name in differing(stored, current)
        ]
        if path == own and not np.array_equal(run.mislabelled, mislabelled):
            different.append("the flipped labels")
        if different:
            message = (
                "Argument `path_to_save` must be a folder of the same benchmark, or a new one. "
                f"Received: {str(path)!r}, which differs in {', '.join(different)}. "
                "Choose another folder, or delete that file to compute it again."
            )
            raise ValueError(message)
        return run if path == own else None

    def write(self, method: str, run: SeedResult, settings: dict[str, Any]) -> None:
        """Keep a finished run."""
        numbers = {name: float(getattr(run, name)) for name in _NUMBERS}
        header = {"settings": settings, "seed": run.seed, **numbers}
        RUN.write(self._file(method, run.seed), header, {n: getattr(run, n) for n in _ARRAYS})

    def write_summary(self, method: str, settings: dict[str, Any]) -> None:
        """Write the measures of all runs of a method to ``results.json``."""
        folder = self.path / method
        content = {**load_results(folder)[method].to_dict(), "settings": settings}
        with replacing(folder / "results.json") as temporary:
            text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")

    def _file(self, method: str, seed: int) -> Path:
        if Path(method).name != method or method in ("", ".."):
            message = (
                "Argument `method` must be a name that a folder can have. "
                f"Received: {method!r}. Leave slashes out."
            )
            raise ValueError(message)
        return self.path / method / f"seed_{seed:06d}.npz"


def load_results(path: str | Path) -> dict[str, MethodResult]:
    """Read the results of a benchmark, also of one that was interrupted.

    Parameters
    ----------
    path
        The folder of the benchmark, or that of one of its methods.

    Returns
    -------
    The result of each method, by name.

    Raises
    ------
    DataSourceError
        If there is none, or a file is damaged.
    """
    folder = Path(path)
    results = {}
    for subfolder in [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]:
        files = sorted(subfolder.glob("seed_*.npz"))
        if files:
            runs = tuple(RUN.read(file, _parsed)[0] for file in files)
            results[subfolder.name] = MethodResult(subfolder.name, runs)
    if not results:
        message = (
            "Argument `path` must be a folder of results: METHOD/seed_000000.npz, ... Received: "
            f"{str(path)!r}, which holds none. Pass what was `path_to_save` of the benchmark."
        )
        raise DataSourceError(message)
    return results


def _parsed(header: Settings, arrays: Arrays) -> tuple[SeedResult, Settings]:
    """Return a run and the settings of its benchmark."""
    content: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
    content |= {name: float(header[name]) for name in _NUMBERS}
    return SeedResult(seed=int(header["seed"]), **content), header["settings"]
