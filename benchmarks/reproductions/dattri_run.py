"""Run a reproduction of dattri's benchmark: the pieces, the choice of settings, the table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dattri import (
    Bench,
    bench_of,
    checkpoint_piece,
    datamodelling,
    detection_piece,
    scores_piece,
    truth_piece,
)
from evidence import Options
from pieces import Piece, Task, compute_pieces

NUM_RESAMPLES = 300
_PIECES = {
    "truth": truth_piece,
    "checkpoint": checkpoint_piece,
    "scores": scores_piece,
    "detection": detection_piece,
}


def any_piece(task: Task) -> Piece:
    """Do what a task asks for."""
    return _PIECES[task["what"]](task)


class Comparison:
    """All methods of one setting, computed and compared.

    Parameters
    ----------
    settings
        What everything depends on.
    options
        Of the command line.
    folder
        Where pieces are kept.
    num_workers
        The number of processes.
    """

    def __init__(
        self, settings: dict[str, Any], options: Options, folder: Path, num_workers: int
    ) -> None:
        self.settings, self.folder, self.num_workers = settings, folder, num_workers
        data_dir = None if options.data_dir is None else str(options.data_dir)
        self._bench = {"settings": settings, "data_dir": data_dir, "folder": str(folder)}
        self.entries: dict[str, dict[str, Any]] = dict(settings["pairs"])
        # Settings are chosen on one half of the queries, and reported on the other.
        order = np.random.default_rng(0).permutation(settings["num_test"])
        self.validation = order < settings["num_test"] // 2

    @property
    def bench(self) -> Bench:
        """Data and truths."""
        return bench_of(self._task("bench"))

    def compute(self) -> None:
        """Train what is needed, and score with every method in all its settings."""
        self._compute(self._trainings())
        pairs = {
            (label, place): self._task("scores", method=entry["method"], settings=given)
            for label, entry in self.entries.items()
            for place, given in enumerate(entry["grid"])
        }
        single = {
            (label, place, noise): self._task(
                "detection", method=entry["method"], settings=given, noise=noise
            )
            for label, entry in self.settings["single"].items()
            for place, given in enumerate(entry["grid"])
            for noise in range(self.settings["noise_seeds"])
        }
        tasks = {
            **{_name("scores", *key): task for key, task in pairs.items()},
            **{_name("detection", *key): task for key, task in single.items()},
        }
        # What has large matrices is given all cores, when the others are done.
        alone = {
            _name("scores", *key): pairs[key] for key in pairs if key[0] in self.settings["alone"]
        }
        shared = {name: task for name, task in tasks.items() if name not in alone}
        found = {**self._compute(shared), **self._compute(alone, num_workers=1)}
        self.scores = {key: found[_name("scores", *key)] for key in pairs}
        self.detections = {key: found[_name("detection", *key)] for key in single}

    def chosen(self, label: str, measure: str = "lds") -> int:
        """Return which settings of a method are best on the validation half."""
        grid = self.entries[label]["grid"]
        per_query = self.lds_per_query if measure == "lds" else self.loo_per_query
        return place_of_best(
            [np.nanmean(per_query(label, place)[self.validation]) for place in range(len(grid))]
        )

    def lds_per_query(self, label: str, place: int, num_seeds: int = 1) -> np.ndarray:
        """Return the datamodelling score of each query, shape ``(m,)``."""
        predictions = np.array(self.scores[label, place]["predictions"])
        return datamodelling(predictions, self.outputs(num_seeds))[0]

    def loo_per_query(self, label: str, place: int) -> np.ndarray:
        """Return the correlation of each query with what leaving one out does, ``(m,)``."""
        return np.array(self.scores[label, place]["loo"])

    def outputs(self, num_seeds: int) -> np.ndarray:
        """Return the margins after training on each subset, mean over some seeds, ``(s, m)``."""
        return self.bench.lds_truth.outputs[:num_seeds].mean(axis=0)

    def add_ensemble(self, label: str) -> str:
        """Score with a method's chosen settings at more models, add all up, and name the sum."""
        place, entry = self.chosen(label), self.entries[label]
        given = entry["grid"][place]
        count = self.settings["num_full"]
        tasks = {
            _name("ensemble", label, place, number): self._task(
                "scores", method=entry["method"], settings=given, number=number
            )
            for number in range(1, count)
        }
        others = self._compute(tasks).values()
        pieces = [self.scores[label, place], *others]
        name = f"{label}, {count} models"
        self.scores[name, 0] = {
            "predictions": np.sum([piece["predictions"] for piece in pieces], axis=0).tolist(),
            "seconds": sum(piece["seconds"] for piece in pieces),
        }
        self.entries[name] = {"method": entry["method"], "grid": [given]}
        return name

    def lds_row(self, label: str) -> dict[str, Any]:
        """Return what is known of a method's datamodelling score, at its chosen settings."""
        place, tested = self.chosen(label), ~self.validation
        piece, seeds = self.scores[label, place], self.settings["truth_seeds"]
        predictions = np.array(piece["predictions"])[:, tested]
        _, interval = datamodelling(predictions, self.outputs(1)[:, tested], NUM_RESAMPLES)
        per_query = self.lds_per_query(label, place)
        less_noise = self.lds_per_query(label, place, seeds)
        return {
            "settings": self.entries[label]["grid"][place],
            "lds": float(np.nanmean(per_query[tested])),
            "interval": [round(end, 4) for end in interval],
            "validation": float(np.nanmean(per_query[self.validation])),
            "lds_mean_of_seeds": float(np.nanmean(less_noise[tested])),
            "seconds": piece["seconds"],
        }

    def loo_row(self, label: str) -> dict[str, Any]:
        """Return the correlation with leaving one out, at the settings chosen for it."""
        place = self.chosen(label, "loo")
        per_query = self.loo_per_query(label, place)
        return {
            "settings": self.entries[label]["grid"][place],
            "loo": float(np.nanmean(per_query[~self.validation])),
            "validation": float(np.nanmean(per_query[self.validation])),
        }

    def auc_row(self, label: str) -> dict[str, Any]:
        """Return the area under the curve, of settings chosen on the first draw of wrong labels.

        The area is the mean over the other draws.
        """
        grid = self.settings["single"][label]["grid"]
        auc = {
            (place, noise): piece["auc"]
            for (name, place, noise), piece in self.detections.items()
            if name == label
        }
        place = place_of_best([auc[at, 0] for at in range(len(grid))])
        others = [auc[place, noise] for noise in range(1, self.settings["noise_seeds"])]
        return {
            "settings": grid[place],
            "auc": float(np.mean(others)),
            "each": others,
            "validation": auc[place, 0],
        }

    def lds_of_retrainings(self) -> float:
        """Return the datamodelling score of retrainings: of the mean of all seeds but the first.

        It says how much of the truth is not the luck of one training. Where the seeds are few it is
        no bound: their mean has luck of its own.
        """
        truth = self.bench.lds_truth
        per_query, _ = datamodelling(truth.outputs[1:].mean(axis=0), truth.outputs[0])
        return float(np.nanmean(per_query[~self.validation]))

    def _trainings(self) -> dict[str, Task]:
        truths = ["lds", *(["loo"] if self.settings["num_left_out"] else [])]
        tasks = {
            _name("truth", kind, share): self._task("truth", truth=kind, share=share)
            for kind in truths
            for share in range(self.settings["shares"])
        }
        for noise in (None, *range(self.settings["noise_seeds"])):
            counts = self.settings["noise_models" if noise is not None else "models"]
            for kind, count in counts.items():
                for number in range(count):
                    tasks[_name("checkpoint", noise, kind, number)] = self._task(
                        "checkpoint", kind=kind, number=number, noise=noise
                    )
        return tasks

    def _task(self, what: str, **more: Any) -> Task:
        return {"what": what, "bench": self._bench, **more}

    def _compute(
        self, tasks: Mapping[str, Task], num_workers: int | None = None
    ) -> dict[str, Piece]:
        return compute_pieces(any_piece, dict(tasks), self.folder, num_workers or self.num_workers)


def _name(*parts: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, parts)).lower())


def place_of_best(values: Sequence[float]) -> int:
    """Return the place of the largest number; NaN is none."""
    return int(np.argmax([value if np.isfinite(value) else -np.inf for value in values]))
