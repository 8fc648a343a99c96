"""HTML that a notebook shows."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


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
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    below = f"<p>{html.escape(remark)}</p>" if remark else ""
    return Html(
        f"<div><p><strong>{html.escape(title)}</strong></p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{below}</div>"
    )
