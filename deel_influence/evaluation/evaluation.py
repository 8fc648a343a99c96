"""What an evaluation found: a table, the reasons for its gaps, and pictures of it."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..texts import csv_cell
from ..utils.files import replacing
from ..utils.records import Arrays, RecordKind, Settings
from .checks import require_pandas
from .figure import draw_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CONTENT, TABLE = "evaluation.json", "table.csv"
"""The files that `Evaluation.save` writes."""

EVALUATION = RecordKind("saved evaluation", "Evaluate again.", version=2)

_INDEX = "method"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes
    ----------
    table
        A row for each method and a column for each measure; NaN where a method gives none.
    missing
        For each method the columns that it has no number in, and why.
    correlations
        How far the calculators' scores agree by rank, over all pairs where there are scores of
        pairs, else over the examples; None for fewer than two calculators.
    settings
        What was evaluated, as JSON: numbers of examples, queries and retrainings, budgets, seed.
    """

    table: pd.DataFrame
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    correlations: pd.DataFrame | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the table as text, and below it why numbers are missing."""
        text = self.table.to_string(float_format=lambda value: f"{value:.3g}")
        return "\n".join([text, *(f"No {note}" for note in self.notes())])

    def notes(self) -> list[str]:
        """Return a line for each reason for which a method has no measure in some columns."""
        lines = []
        for method, reasons in self.missing.items():
            measures = {name: why for name, why in reasons.items() if _is_head(name)}
            for reason in dict.fromkeys(measures.values()):
                columns = [column for column, other in measures.items() if other == reason]
                lines.append(f"{', '.join(columns)} of {method}: {reason}.")
        return [textwrap.shorten(line, 400, placeholder=" ...") for line in lines]

    def plot(self, save_path: str | os.PathLike[str] | None = None, show: bool = False) -> Figure:
        """Draw the table: bars for each ground truth, and curves for the wrong labels found.

        Parameters
        ----------
        save_path
            The file to write, in the format that its suffix names; None writes none.
        show
            Whether to show the figure as well.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed.
        """
        return draw_table(self.table, save_path, show)

    def save(self, folder: str | Path) -> Path:
        """Write ``table.csv``, and all of it as ``evaluation.json``; return the folder."""
        folder = Path(folder)
        content = {
            "table": _to_json(self.table),
            "missing": self.missing,
            "correlations": None if self.correlations is None else _to_json(self.correlations),
            "settings": self.settings,
        }
        EVALUATION.write(folder / CONTENT, content)
        with replacing(folder / TABLE) as temporary:
            self.table.rename(index=csv_cell, columns=csv_cell).to_csv(temporary)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If it is missing, damaged or of another version.
        """
        return EVALUATION.read(Path(folder) / CONTENT, cls._parsed)

    @classmethod
    def _parsed(cls, content: Settings, _: Arrays) -> Evaluation:
        correlations = content["correlations"]
        return cls(
            _from_json(content["table"], _INDEX),
            content["missing"],
            None if correlations is None else _from_json(correlations),
            content["settings"],
        )


def _is_head(column: str) -> bool:
    """Tell whether a column is a measure that no other one speaks for."""
    return not (column.endswith((" seconds", " low", " high")) or column.startswith("recall "))


def table_of(rows: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return rows of numbers by column as a table, the names of the rows as its index."""
    pandas = require_pandas()
    table = pandas.DataFrame.from_dict(rows, orient="index", dtype=float)
    return table.rename_axis(index=_INDEX)


def _to_json(table: pd.DataFrame) -> dict[str, Any]:
    rows = [[None if math.isnan(cell) else cell for cell in row] for row in table.values.tolist()]
    return {"rows": list(table.index), "columns": list(table.columns), "cells": rows}


def _from_json(content: Mapping[str, Any], index: str | None = None) -> pd.DataFrame:
    cells = [[math.nan if cell is None else cell for cell in row] for row in content["cells"]]
    table = require_pandas().DataFrame(cells, content["rows"], content["columns"], dtype=float)
    return table.rename_axis(index=index)
