"""What retraining gave: the truth that scores are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import npz_path
from ..utils.records import Arrays, RecordKind, Settings
from .checks import finite_array, kept_mask
from .storage import check_settings, plain_settings

TRUTH = RecordKind("ground truth", "Make the ground truth again, or name its file.")


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Outputs of models that were trained again without some of the training examples.

    `deel_influence.evaluation.retrain` makes one; outputs that come from elsewhere can be put in
    one by hand.

    Attributes
    ----------
    kept
        Which of the n training examples each of s retrainings had, shape ``(s, n)``, bool.
    outputs
        A number for each of m queries after each retraining, under each of r seeds, shape
        ``(r, s, m)``, float64.
    full_outputs
        The same from models trained on all examples, shape ``(r, m)``, float64.
    seeds
        The r seeds.
    settings
        Whatever the outputs depend on besides, as JSON can hold it; compared when it is loaded.
    higher_is_better
        Whether a larger output is a better one (a margin) or a worse one (a loss).

    Raises
    ------
    ValueError
        If the shapes do not fit, or an output is NaN or infinite.
    TypeError
        If JSON cannot hold the settings.

    Examples
    --------
    The loss on one query rises from 0.5 to 0.7 without the first example, which therefore helped:

    >>> kept = np.array([[False, True], [True, False]])
    >>> truth = GroundTruth(kept, outputs=[[[0.7], [0.4]]], full_outputs=[[0.5]], seeds=(0,))
    >>> truth.changes.round(3)
    array([[ 0.2],
           [-0.1]])
    """

    kept: np.ndarray
    outputs: np.ndarray
    full_outputs: np.ndarray
    seeds: Sequence[int] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        """Check the fields, and bring them to their types."""
        kept = kept_mask(self.kept)
        seeds = tuple(int(seed) for seed in self.seeds)
        outputs = finite_array(self.outputs, "outputs", "rsm", r=len(seeds), s=len(kept))
        num_queries = outputs.shape[2]
        full = finite_array(self.full_outputs, "full_outputs", "rm", r=len(seeds), m=num_queries)
        made = {
            "kept": kept,
            "outputs": outputs,
            "full_outputs": full,
            "seeds": seeds,
            "settings": plain_settings(self.settings),
            "higher_is_better": bool(self.higher_is_better),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)  # the way to fill a frozen dataclass

    @property
    def mean_outputs(self) -> np.ndarray:
        """The outputs, mean over seeds, shape ``(s, m)``."""
        return self.outputs.mean(axis=0)

    @property
    def changes(self) -> np.ndarray:
        """How much worse the outputs are than with all examples, mean over seeds, ``(s, m)``.

        Positive where the examples that were left out helped the query.
        """
        rises = (self.outputs - self.full_outputs[:, None, :]).mean(axis=0)
        return -rises if self.higher_is_better else rises

    def save(self, path: str | Path) -> Path:
        """Write everything to one file, without pickles.

        Parameters
        ----------
        path
            Where to write; ``.npz`` is added where it is not the suffix.

        Returns
        -------
        The path of the file, which appears whole or not at all.
        """
        header = {
            "num_examples": self.kept.shape[1],
            "seeds": list(self.seeds),
            "settings": self.settings,
            "higher_is_better": self.higher_is_better,
        }
        bits = np.packbits(self.kept, axis=1)
        arrays = {"kept": bits, "outputs": self.outputs, "full_outputs": self.full_outputs}
        return TRUTH.write(npz_path(path), header, arrays)

    @classmethod
    def load(cls, path: str | Path, settings: Mapping[str, Any] | None = None) -> GroundTruth:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The file; ``.npz`` is added where it is not the suffix.
        settings
            What the settings have to be; None accepts any.

        Raises
        ------
        DataSourceError
            If it was made with other settings, the message names what differs; or if the file is
            missing, damaged, or none of a ground truth.
        """
        path = npz_path(path)
        truth = TRUTH.read(path, cls._parsed)
        if settings is not None:
            check_settings(truth.settings, plain_settings(settings), path, TRUTH.remedy)
        return truth

    @classmethod
    def _parsed(cls, header: Settings, arrays: Arrays) -> GroundTruth:
        kept = np.unpackbits(arrays["kept"], axis=1, count=header["num_examples"]).astype(bool)
        return cls(
            kept,
            arrays["outputs"],
            arrays["full_outputs"],
            tuple(header["seeds"]),
            header["settings"],
            header["higher_is_better"],
        )
