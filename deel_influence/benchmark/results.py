"""What a benchmark of mislabel detection found: one run per method and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.mislabel import average_precision, detection_curve, recall_at_budget, roc_auc
from ..extras import require

if TYPE_CHECKING:
    import pandas as pd

BUDGETS = (0.01, 0.05, 0.10, 0.20, 0.30)
"""The shares of the list within which recalls are reported."""


@dataclass(frozen=True, eq=False)
class SeedResult:
    """The scores of one method for one draw of the noise and one trained model.

    Attributes
    ----------
    seed
        Seed of the noise, of the training and of the method.
    scores
        One score per training example, shape ``(n,)``, larger for more suspicious ones.
    mislabelled
        Which labels were flipped, shape ``(n,)``, bool.
    train_accuracy, test_accuracy
        Accuracies of the model, on the labels that it was given; NaN where they are not known.
    train_seconds, score_seconds
        Time of the training, which the methods of a benchmark share, and of building the
        calculator and scoring all examples.
    """

    seed: int
    scores: np.ndarray
    mislabelled: np.ndarray
    train_accuracy: float
    test_accuracy: float
    train_seconds: float
    score_seconds: float

    @cached_property
    def roc_auc(self) -> float:
        """Area under the ROC curve, ties counting half."""
        return roc_auc(self.scores, self.mislabelled)

    @cached_property
    def average_precision(self) -> float:
        """Average precision, equal scores read together."""
        return average_precision(self.scores, self.mislabelled)

    @cached_property
    def curve(self) -> np.ndarray:
        """Share of the flipped labels among the first 1, ..., n examples, shape ``(n,)``."""
        read, found = detection_curve(self.scores, self.mislabelled)
        return np.interp(np.arange(1, len(self.scores) + 1), read, found) / found[-1]

    def measures(self) -> dict[str, float]:
        """Return all measures by name, the recalls as ``recall@0.05``."""
        recalls = recall_at_budget(self.scores, self.mislabelled, BUDGETS)
        return {
            "roc_auc": self.roc_auc,
            "average_precision": self.average_precision,
            **{f"recall@{b:g}": float(r) for b, r in zip(BUDGETS, recalls, strict=True)},
            "train_accuracy": self.train_accuracy,
            "test_accuracy": self.test_accuracy,
            "train_seconds": self.train_seconds,
            "score_seconds": self.score_seconds,
        }


@dataclass(frozen=True, eq=False)
class MethodResult(Sequence[Any]):
    """The runs of one method; unpacks into ``curves, mean_curve, roc``.

    Attributes
    ----------
    name
        What the method is called in the benchmark.
    runs
        One for each of the s seeds.
    """

    name: str
    runs: tuple[SeedResult, ...]

    @cached_property
    def curves(self) -> np.ndarray:
        """The curve of every seed, shape ``(s, n)``."""
        return np.stack([run.curve for run in self.runs])

    @property
    def mean_curve(self) -> np.ndarray:
        """The mean of the curves, shape ``(n,)``."""
        return self.curves.mean(axis=0)

    @property
    def curve_spread(self) -> np.ndarray:
        """The standard deviation of the curves over the seeds, ``(n,)``; NaN for one seed."""
        return _spread(self.curves)

    @property
    def roc(self) -> float:
        """The mean over the seeds of the area under the ROC curve."""
        return float(np.mean([run.roc_auc for run in self.runs]))

    def mean(self) -> dict[str, float]:
        """Return the mean of every measure over the seeds."""
        return {name: float(np.mean(values)) for name, values in self._columns().items()}

    def spread(self) -> dict[str, float]:
        """Return the standard deviation of every measure over the seeds; NaN for one seed."""
        return {name: float(_spread(values)) for name, values in self._columns().items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the measures of every seed, their mean and spread, as JSON can hold them."""
        return {
            "method": self.name,
            "seeds": [{"seed": run.seed, **_plain(run.measures())} for run in self.runs],
            "mean": _plain(self.mean()),
            "spread": _plain(self.spread()),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return the measures as a data frame, one row per seed.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        index = _pandas().Index([run.seed for run in self.runs], name="seed")
        return _pandas().DataFrame([run.measures() for run in self.runs], index=index)

    def _columns(self) -> dict[str, np.ndarray]:
        rows = [run.measures() for run in self.runs]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _as_tuple(self) -> tuple[np.ndarray, np.ndarray, float]:
        return self.curves, self.mean_curve, self.roc

    def __len__(self) -> int:
        """Return 3, as of the tuple."""
        return 3

    def __getitem__(self, index: Any) -> Any:
        """Return the curves (0), the mean curve (1) or the mean area under the ROC curve (2)."""
        return self._as_tuple()[index]


def results_table(results: Mapping[str, MethodResult]) -> pd.DataFrame:
    """Return a data frame of one row per method: means over the seeds, and ``..._spread``.

    Parameters
    ----------
    results
        What `MislabelingDetectorEvaluator.bench` returns.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    rows = [
        {**result.mean(), **{f"{key}_spread": value for key, value in result.spread().items()}}
        for result in results.values()
    ]
    index = _pandas().Index(list(results), name="method")
    return _pandas().DataFrame(rows, index=index)


def _spread(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation over the first axis, estimated from a sample."""
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0, ddof=1)


def _plain(measures: Mapping[str, float]) -> dict[str, float | None]:
    """Replace NaN, which JSON does not know, by None."""
    return {name: value if np.isfinite(value) else None for name, value in measures.items()}


def _pandas() -> Any:
    return require("pandas", "report", "A table of results needs")
