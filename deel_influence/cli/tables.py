"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table as RichTable
from rich.text import Text

from ..report.contents import Table
from ..report.triage import Triage
from ..texts import printable


def suspects_table(triage: Triage, top: int, class_names: Sequence[str] | None) -> RichTable:
    """Return the ``top`` most suspicious examples, the worst first.

    Parameters
    ----------
    triage
        The scores of n examples.
    top
        How many rows; more than n gives n.
    class_names
        What the labels mean, if it is known.
    """
    positions = triage.most_suspicious(top)
    rows = [
        (
            triage.ranks[i],
            triage.ids[i],
            _label(triage.labels[i], class_names),
            _label(triage.predicted[i], class_names),
            f"{triage.losses[i]:.3f}",
            f"{triage.scores[i]:.4g}",
        )
        for i in positions
    ]
    title = f"The {len(rows)} most suspicious of {len(triage.ids):,} examples"
    columns = ("rank", "id", "label", "predicted", "loss", "score")
    return rich_table(Table(title=title, columns=columns, rows=rows))


def rich_table(table: Table) -> RichTable:
    """Return ``table`` for the terminal: texts to the left, numbers to the right."""
    # Titles and cells may hold brackets, which rich would read as its markup: `Text` is literal.
    drawn = RichTable(title=_text(table.title), caption=_text(table.caption))
    for number, name in enumerate(table.columns):
        is_name = number == 0 and any(isinstance(row[0], str) for row in table.rows)
        drawn.add_column(_text(name), justify="left" if is_name else "right")
    for row in table.rows:
        drawn.add_row(*map(_text, row))
    return drawn


def _text(cell: object) -> Text:
    return Text(printable(cell))


def _label(label: float, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return f"{label:g}"
    # `score_source` has seen to it that every label has a name.
    return class_names[int(label)]
