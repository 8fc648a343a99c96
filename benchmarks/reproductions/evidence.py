"""What the reproductions share: their options, their data, and how a result is written down."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import keras
import matplotlib.pyplot as plt
import numpy as np

# The scripts of the folder above are no package: they are run as `python benchmarks/NAME.py`.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from environment import write_json

DATA_VARIABLE = "DEEL_INFLUENCE_DATA"
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "reproductions" / "results"
FIGURES = ROOT / "docs" / "evidence" / "images"
FORMS = ("full", "short", "smoke")


class MissingDataError(SystemExit):
    """The data of an experiment is not there.

    A script ends by it with an exit status of its own, which ``reproduce.py`` knows.

    Parameters
    ----------
    message
        What is needed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = os.EX_NOINPUT


@dataclass
class Options:
    """What a reproduction is asked for on its command line.

    Attributes
    ----------
    form
        "full" for the published experiment, "short" for one that takes some minutes on two cores,
        "smoke" for one of some seconds that only shows that the script runs.
    data_dir
        Folder of ``.npz`` files, or None to read what can be downloaded.
    results, figures
        Folders of the JSON file and of the picture.
    resumed
        Whether parts of the result were on disk already; set by ``pieces.pieces_folder``.
    """

    form: str
    data_dir: Path | None
    results: Path
    figures: Path
    resumed: bool = False


def read_options(description: str | None, arguments: list[str] | None = None) -> Options:
    """Return the options of a reproduction's command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--form", choices=FORMS, default="full", help="how much is computed")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get(DATA_VARIABLE),
        help=f"folder of .npz files (default: the variable {DATA_VARIABLE}, else downloads)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for JSON and picture (default: the committed ones)"
    )
    given = parser.parse_args(arguments)
    if given.form != "full" and given.out is None:
        given.out = ROOT / f"evidence-{given.form}"
    return Options(
        given.form,
        None if given.data_dir is None else Path(given.data_dir),
        given.out or RESULTS,
        given.out or FIGURES,
    )


def load_data(name: str, data_dir: Path | None) -> dict[str, np.ndarray]:
    """Return the arrays of a data set: ``x_train, y_train, x_test, y_test`` and what it has more.

    Parameters
    ----------
    name
        Name of the file without ``.npz``.
    data_dir
        The folder of files; None downloads what Keras or TensorFlow Datasets has.

    Raises
    ------
    MissingDataError
        If the folder has no such file, or there is no folder for data that cannot be downloaded.
    """
    if data_dir is not None:
        path = data_dir / f"{name}.npz"
        if not path.exists():
            _stop(
                f"Option --data-dir must be a folder that holds {path.name}. "
                f"Received: {str(data_dir)!r}. See docs/evidence/data.md for what it holds."
            )
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}
    if name not in _DOWNLOADS:
        _stop(
            f"Option --data-dir (or the variable {DATA_VARIABLE}) must be a folder that holds "
            f"{name}.npz. Received: None. See docs/evidence/data.md for what it holds."
        )
    return _DOWNLOADS[name]()


def _stop(message: str) -> NoReturn:
    # The interpreter prints no message beside an exit status.
    print(message, file=sys.stderr)
    raise MissingDataError(message)


def _mnist() -> dict[str, np.ndarray]:
    # In the original order, which TensorFlow Datasets does not keep: experiments name images by
    # their places.
    (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _cifar10() -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    arrays = {}
    for split in ("train", "test"):
        inputs, labels = tfds.as_numpy(
            tfds.load("cifar10", split=split, batch_size=-1, as_supervised=True)
        )
        arrays[f"x_{split}"], arrays[f"y_{split}"] = inputs, labels
    return arrays


_DOWNLOADS = {"mnist": _mnist, "cifar10_12k": _cifar10}


@dataclass
class Evidence:
    """The result of a reproduction: figures beside the published ones, and how they were made.

    Attributes
    ----------
    name
        Of the script, the JSON file and the picture.
    title
        What was reproduced, in a line.
    source
        Where it was published.
    options
        What the script was asked for.
    settings
        All that the figures depend on.
    num_workers
        The number of processes, for the command that is written down.
    rows
        One per figure, see `add`.
    notes
        Whole sentences: why a figure differs, what was tried.
    details
        Measurements beyond the table, for readers of the JSON and for the picture.
    """

    name: str
    title: str
    source: str
    options: Options
    settings: dict[str, Any]
    num_workers: int = 1
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(
        self,
        quantity: str,
        measured: float,
        *,
        published: float | str | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a figure.

        Parameters
        ----------
        quantity
            What it is, in words.
        measured
            Ours.
        published
            Theirs, if they give it.
        at_least, at_most
            What this library sets itself, if anything; both for a range.
        """
        reached = None
        if at_least is not None or at_most is not None:
            # A NaN is never within bounds.
            reached = (at_least is None or measured >= at_least) and (
                at_most is None or measured <= at_most
            )
        self.rows.append(
            {
                "quantity": quantity,
                "published": published,
                "measured": float(measured),
                "at_least": at_least,
                "at_most": at_most,
                "reached": None if reached is None else bool(reached),
            }
        )
        bounds = "" if reached is None else ("  reached" if reached else "  NOT REACHED")
        print(f"{quantity}: {measured:.4g} (published: {published}){bounds}", flush=True)

    def save(self, figure: plt.Figure | None = None) -> Path:
        """Write the JSON file, and the picture if there is one, and return the file's path.

        The figure is closed.
        """
        if figure is not None:
            self.options.figures.mkdir(parents=True, exist_ok=True)
            figure.savefig(self.options.figures / f"{self.name}.png", dpi=80)
            plt.close(figure)
        path = self.options.results / f"{self.name}.json"
        write_json(
            path,
            {
                "name": self.name,
                "title": self.title,
                "source": self.source,
                "command": self._command(),
                "form": self.options.form,
                "seconds": round(time.perf_counter() - self.started, 1),
                "resumed": self.options.resumed,
                "figure": None if figure is None else f"{self.name}.png",
                "settings": self.settings,
                "rows": self.rows,
                "notes": self.notes,
                "details": self.details,
            },
        )
        return path

    def _command(self) -> str:
        """Return the command line; the folder of data is another one on each machine."""
        parts = ["python", f"benchmarks/reproductions/{self.name}.py"]
        if self.options.form != "full":
            parts += ["--form", self.options.form]
        if self.options.data_dir is not None:
            parts += ["--data-dir", "FOLDER"]
        if self.num_workers > 1:
            parts += ["--workers", str(self.num_workers)]
        return " ".join(parts)
