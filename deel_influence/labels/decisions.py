"""What people decided about labels: a table in memory, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DecisionsError
from ..texts import csv_cell, printable
from ..utils.files import replacing

KEEP, RELABEL, DROP, SKIP = "keep", "relabel", "drop", "skip"
KINDS = (KEEP, RELABEL, DROP, SKIP)
"""The label is right; it is another one; the example is to go; nothing is decided yet."""

_COLUMNS = ("id", "decision", "label")
_RUN = "run"
_REMEDY = "Export the decisions again from the page of the run."
# An error names so many lines.
_NAMED = 10


@dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions about k examples of a run, one row each.

    Attributes
    ----------
    ids
        The examples, shape ``(k,)``; kept as texts.
    decisions
        ``"keep"``, ``"relabel"``, ``"drop"`` or ``"skip"``, shape ``(k,)``.
    labels
        The new label where the decision is ``"relabel"``, by the name of its class where classes
        have names and by its number elsewhere, shape ``(k,)``; kept as texts, else empty.
    run
        What `run_digest` says of the ids and the given labels of the data.
    lines
        The line of its file, or the entry, that each is from; None counts rows from 1.
    source
        What messages call the table.

    Raises
    ------
    DecisionsError
        If columns have different lengths, a decision is none of the four, an example is decided
        about twice, or a label stands where none belongs or is missing where one does. The message
        names the lines.

    Examples
    --------
    >>> import numpy as np
    >>> from deel_influence.labels import run_digest
    >>> run = run_digest(np.array(["a.png", "b.png"]), np.array([0, 1]))
    >>> Decisions(["a.png"], ["relabel"], ["dog"], run)
    <Decisions about 1 example: 1 relabel>
    """

    ids: np.ndarray
    decisions: np.ndarray
    labels: np.ndarray
    run: str
    lines: np.ndarray | None = None
    source: str = "decisions"

    def __post_init__(self) -> None:
        """Bring the columns into one form, and check each row."""
        for name in ("ids", "decisions", "labels"):
            object.__setattr__(self, name, _texts(getattr(self, name)))
        lengths = [len(self.ids), len(self.decisions), len(self.labels)]
        if len(set(lengths)) != 1:
            message = (
                "Argument `ids`, `decisions` and `labels` must be of one length. Received: lengths "
                f"{lengths}. Give an empty label where there is no new one."
            )
            raise DecisionsError(message)
        relabels = self.decisions == RELABEL
        has_label = self.labels != ""
        counts = Counter(self.ids.tolist())
        twice = np.array([counts[name] > 1 for name in self.ids.tolist()], bool)
        self.refuse(~np.isin(self.decisions, KINDS), f"must be one of {', '.join(KINDS)}")
        self.refuse(relabels & ~has_label, "must have a new label where they relabel")
        self.refuse(has_label & ~relabels, "must have a label only where they relabel")
        self.refuse(twice, "must name each example once")

    def __len__(self) -> int:
        """Return the number k of decisions."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many there are of each kind."""
        counts = Counter(self.decisions.tolist())
        told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "none"
        return f"<Decisions about {len(self)} example{'s' * (len(self) != 1)}: {told}>"

    def refuse(self, wrong: np.ndarray, rule: str) -> None:
        """Refuse all decisions if some are wrong, and name their lines.

        Parameters
        ----------
        wrong
            Which are, shape ``(k,)``, bool.
        rule
            What they must be, beginning with ``must``.

        Raises
        ------
        DecisionsError
            If there are some.
        """
        at = np.flatnonzero(wrong)
        if not at.size:
            return
        named = "; ".join(self._line(i) for i in at[:_NAMED].tolist())
        more = f"; and {at.size - _NAMED} more" if at.size > _NAMED else ""
        message = (
            f"Decisions {rule}. Received: {printable(self.source)!r}, {named}{more}. Nothing was "
            f"changed. Correct these lines."
        )
        raise DecisionsError(message)

    def _line(self, i: int) -> str:
        label = f" {self.labels[i][:80]!r}" if self.labels[i] else ""
        word = self.decisions[i][:20] or "nothing"
        line = i + 1 if self.lines is None else self.lines[i]
        return f"line {line} ({self.ids[i][:80]!r}: {printable(word)}{label})"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table, whole or not at all.

        Parameters
        ----------
        path
            Where to write: a ``.csv`` file, whose cells no spreadsheet takes for formulas, or a
            ``.json`` file.

        Raises
        ------
        DecisionsError
            If the path ends in something else.
        """
        path = _checked(path)
        columns = (self.ids.tolist(), self.decisions.tolist(), self.labels.tolist())
        rows = list(zip(*columns, strict=True))
        stream = io.StringIO()
        if path.suffix.lower() == ".json":
            entries = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
            json.dump({_RUN: self.run, "decisions": entries}, stream, indent=1)
            stream.write("\n")
        else:
            stream.write(f"# {_RUN}: {self.run}\n")
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows([csv_cell(cell) for cell in row] for row in rows)
        with replacing(path) as temporary:
            temporary.write_text(stream.getvalue(), encoding="utf-8", newline="")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Decisions:
        """Read a table that `save` or the page wrote, or that somebody made.

        A CSV file begins with a line ``# run: ...``, or has a column ``run``.

        Parameters
        ----------
        path
            A ``.csv`` or ``.json`` file.

        Raises
        ------
        DecisionsError
            If it is missing, no such table, or holds decisions that cannot be.
        """
        path = _checked(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
            is_json = path.suffix.lower() == ".json"
            run, rows = _of_json(text) if is_json else _of_csv(text)
        except (OSError, ValueError, RecursionError, csv.Error) as error:
            # Of a missing file, the system tells the name again.
            reason = getattr(error, "strerror", None) or error
            message = (
                "Decisions must be a table of CSV or JSON with the columns id, decision and label, "
                f"and the run. Received: {str(path)!r}, which fails with: {reason}. {_REMEDY}"
            )
            raise DecisionsError(message) from error
        lines, ids, decisions, labels = (np.array([r[i] for r in rows], object) for i in range(4))
        return cls(ids, decisions, labels, run, lines, str(path))


Row = tuple[int, str, str, str]


def _of_json(text: str) -> tuple[str, list[Row]]:
    """Return the run, and of each entry its number and the columns."""
    content = json.loads(text)
    entries = content.get("decisions") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not isinstance(content.get(_RUN), str):
        message = 'it is not {"run": "...", "decisions": [...]}'
        raise ValueError(message)  # noqa: TRY004 - of a file's content
    rows = []
    for number, entry in enumerate(entries, start=1):
        cells = [entry.get(name, "") for name in _COLUMNS] if isinstance(entry, dict) else [None]
        if not all(isinstance(cell, str | int) and not isinstance(cell, bool) for cell in cells):
            message = f'entry {number} is not {{"id": ..., "decision": ..., "label": ...}}'
            raise ValueError(message)
        rows.append((number, *map(str, cells)))
    return content[_RUN], rows  # type: ignore[return-value]


def _of_csv(text: str) -> tuple[str, list[Row]]:
    """Return the run, and of each row its line and the columns."""
    header: list[str] | None = None
    rows: list[Row] = []
    runs = set()
    for line, cells in _csv_lines(text):
        if header is None and cells[0].lstrip().startswith("#"):
            name, _, value = cells[0].strip("# ").partition(":")
            runs |= {value.strip()} if name.strip() == _RUN else set()
        elif header is None:
            header = [cell.strip() for cell in cells]
            _check_header(header)
        elif len(cells) != len(header):
            message = f"line {line} has {len(cells)} cells for {len(header)} columns"
            raise ValueError(message)
        else:
            row = dict(zip(header, cells, strict=True))
            runs.add(row.get(_RUN, "").strip())
            rows.append((line, row["id"], row["decision"].strip(), row["label"]))
    runs.discard("")
    if header is None:
        message = "it has no line with the names of the columns"
        raise ValueError(message)
    if len(runs) != 1:
        told = f"is of {len(runs)} runs" if runs else "does not tell its run"
        message = f"it {told}, and must name one in a first line `# run: ...`"
        raise ValueError(message)
    return runs.pop(), rows


def _csv_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a CSV file that are not empty, with the numbers that they begin at."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    for cells in reader:
        if cells:
            yield start, cells
        start = reader.line_num + 1


def _check_header(header: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if header.count(name) != 1]
    if missing:
        message = f"it has the columns {', '.join(header)} and not once {', '.join(missing)}"
        raise ValueError(message)


def _texts(column: Any) -> np.ndarray:
    return np.array([str(value) for value in np.asarray(column, object).tolist()], object)


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix.lower() in (".csv", ".json"):
        return path
    message = f"Decisions must be in a .csv or .json file. Received: {str(path)!r}."
    raise DecisionsError(message)


def places_of(names: Sequence[Any]) -> dict[str, int]:
    """Return the place of each name in all the forms in which tables and pages write it.

    A form that stands for several names is left out.

    Parameters
    ----------
    names
        Texts or integers, all different.
    """
    found: dict[str, int] = {}
    unclear = set()
    for place, text in enumerate(map(str, names)):
        for form in {text, printable(text), printable(text, keep="\n\t"), csv_cell(text)}:
            if found.setdefault(form, place) != place:
                unclear.add(form)
    return {form: place for form, place in found.items() if form not in unclear}
