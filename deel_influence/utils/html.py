"""HTML that a notebook shows."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from ..texts import printable


class Html(str):
    """A text of HTML, which a notebook shows as the page it stands for."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def html_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], title: str, remark: str = ""
) -> Html:
    """Return a table under its title; what the cells contain is escaped.

    Parameters
    ----------
    heads
        Heads of the c columns.
    rows
        Rows of c cells.
    title
        What the table shows.
    remark
        A sentence below it.
    """
    head = "".join(f"<th>{_escaped(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    below = f"<p>{_escaped(remark)}</p>" if remark else ""
    return Html(
        f"<div><p><strong>{_escaped(title)}</strong></p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{below}</div>"
    )


def _escaped(cell: object) -> str:
    return html.escape(printable(cell))
