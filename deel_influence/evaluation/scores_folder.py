"""The scores of an evaluation on disk, one file per calculator, so that a killed one resumes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataSourceError
from ..utils.records import Arrays, RecordKind, Settings, differing
from .calculator_scores import CalculatorScores
from .storage import plain_settings

_SUFFIX = ".scores.npz"
_CHANGES = "changes: "
_OTHERS = {
    "train_set": "other training examples",
    "queries": "other queries",
    "truth": "another ground truth",
    "mislabelled": "other wrong labels",
    "model": "another model",
}
_NOT_FOR_FILES = re.compile(r"[^A-Za-z0-9-]+")

SCORES = RecordKind(
    "set of scores", "Delete that file and evaluate again, which computes only what is missing."
)


class OtherScoresError(DataSourceError):
    """A folder holds scores of another evaluation.

    Parameters
    ----------
    rule
        What the argument must be.
    received
        Which file it is, and in what it differs.
    remedy
        What to do.
    """

    def __init__(self, rule: str, received: str, remedy: str) -> None:
        super().__init__(f"{rule} Received: {received}. {remedy}")
        self.received = received


class ScoresFolder:
    """A folder with a file for each calculator that is done.

    Files appear whole or not at all, and serve evaluations of the same settings only.

    Parameters
    ----------
    path
        The folder, which need not exist.
    settings
        What all scores depend on, as JSON can hold it: the data, the truth, the model, and under
        ``"settings"`` what the user says.

    Raises
    ------
    OtherScoresError
        If the folder holds scores of another evaluation; the message names what differs.
    DataSourceError
        If a file is damaged.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = plain_settings(settings)
        # Those in one folder are alike. Other files are no matter, nor what killed writes left.
        one = min(self.path.glob(f"*{_SUFFIX}"), default=None)
        if one is not None:
            self._check(one, SCORES.read(one, _parsed)[0])

    def read(self, name: str, calculator: Mapping[str, Any] | None) -> CalculatorScores | None:
        """Return the scores that a calculator gave before, or None.

        Parameters
        ----------
        name
            What it is called.
        calculator
            What `calculator_settings` says of it; None where that is not known yet.

        Raises
        ------
        OtherScoresError
            If the calculator of that name was another one.
        """
        file = self._file(name)
        if not file.exists():
            return None
        settings, scores = SCORES.read(file, _parsed)
        self._check(file, settings)
        if calculator is not None and scores.calculator != calculator:
            stored = scores.calculator or {}
            rule = (
                "Argument `calculators` must hold the calculators whose scores are in `folder`, "
                "or others by other names."
            )
            parts = ", ".join(differing(stored, calculator))
            received = f"for {name!r} one that differs in {parts} from that of {str(file)!r}"
            remedy = "Delete that file to compute it again."
            raise OtherScoresError(rule, received, remedy)
        return scores

    def write(self, name: str, scores: CalculatorScores) -> None:
        """Keep the scores of a calculator."""
        arrays = {f"{_CHANGES}{truth}": values for truth, values in scores.changes.items()}
        arrays |= {
            kind: values
            for kind, values in (("pairs", scores.pairs), ("single", scores.single))
            if values is not None
        }
        header = {
            "name": name,
            "settings": self.settings,
            "calculator": scores.calculator,
            "missing": dict(scores.missing),
            "seconds": [scores.fit_seconds, scores.score_seconds],
        }
        SCORES.write(self._file(name), header, arrays)

    def _check(self, file: Path, settings: Mapping[str, Any]) -> None:
        """Refuse a file that was written with other settings."""
        different = _differences(settings, self.settings)
        if different:
            rule = "Argument `folder` must be the folder of the same evaluation, or a new one."
            received = f"{str(file)!r}, which was written with {', '.join(different)}"
            remedy = "Choose another folder, or delete the files in this one."
            raise OtherScoresError(rule, received, remedy)

    def _file(self, name: str) -> Path:
        """Return the file of a calculator, whose name may hold what file names may not."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.path / f"{_NOT_FOR_FILES.sub('_', name).strip('_')[:60]}_{digest}{_SUFFIX}"


def _parsed(header: Settings, arrays: Arrays) -> tuple[Settings, CalculatorScores]:
    """Return the settings of a file, and the scores."""
    fit_seconds, score_seconds = header["seconds"]
    scores = CalculatorScores(
        pairs=arrays.pop("pairs", None),
        single=arrays.pop("single", None),
        changes={name.removeprefix(_CHANGES): values for name, values in arrays.items()},
        missing=header["missing"],
        calculator=header["calculator"],
        fit_seconds=fit_seconds,
        score_seconds=score_seconds,
    )
    return header["settings"], scores


def _differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Say which settings are not the same."""
    found = [text for name, text in _OTHERS.items() if stored.get(name) != current.get(name)]
    own, given = stored.get("settings", {}), current.get("settings", {})
    return found + [
        f"`{name}` {own.get(name)!r} where {given.get(name)!r} is given"
        for name in differing(own, given)
    ]
