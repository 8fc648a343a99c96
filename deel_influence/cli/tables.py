"""Tables for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..model.influence_model import BaseInfluenceModel
from ..report.contents import Table
from ..report.triage import Triage
from ..texts import printable
from .errors import one_line


def suspects_table(triage: Triage, top: int) -> RichTable:
    """Return the ``top`` most suspicious examples, the worst first.

    Parameters
    ----------
    triage
        The scores of n examples.
    top
        How many rows; more than n gives n.
    """
    columns, rows = triage.table(top)
    title = f"The {len(rows)} most suspicious of {len(triage.ids):,} examples"
    return rich_table(Table(title, columns, rows))


def rich_table(table: Table) -> RichTable:
    """Return ``table`` for the terminal: texts to the left, numbers to the right."""
    # Titles and cells may hold brackets, which rich would read as its markup: `Text` is literal.
    drawn = RichTable(title=_text(table.title), caption=_text(table.caption))
    for number, name in enumerate(table.columns):
        is_name = number == 0 and any(isinstance(row[0], str) for row in table.rows)
        # What is too long, such as a file name, goes on in the next line, and is whole.
        drawn.add_column(_text(name), justify="left" if is_name else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(_text, row))
    return drawn


def print_whole(text: str, console: Console) -> None:
    """Print lines with paths, which must stay whole to be of use, and may hold brackets."""
    console.print(Text(text), soft_wrap=True)


def watched_rows(model: BaseInfluenceModel) -> dict[str, str]:
    """Return what is told of the watched weights, by the names of the rows."""
    return {
        "watched weights": one_line(", ".join(weight.path for weight in model.weights), 200),
        "watched parameters": f"{model.nb_params:,}",
    }


def _text(cell: object) -> Text:
    return Text(printable(cell))
