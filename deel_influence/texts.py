"""Texts from data, written so that they cannot do anything to a terminal, a page or a table."""

from __future__ import annotations

import unicodedata
from typing import Any

_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Part of how words and pictograms are written.
_JOINERS = "\N{SOFT HYPHEN}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
# Full-width forms count as the signs that they stand for.
_FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def printable(text: Any, keep: str = "") -> str:
    r"""Write a text from data so that it shows what it holds and steers nothing.

    Control characters, among them those of terminals, marks that turn the direction of writing or
    are invisible, and halves of surrogates become escapes as in Python.

    Parameters
    ----------
    text
        A name, a label, an id; what is no text is written as one.
    keep
        Control characters that stay, such as line breaks on a page.

    Examples
    --------
    >>> printable("cat\x1b[2K")
    'cat\\x1b[2K'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or not _steers(char) else ascii(char)[1:-1] for char in text
    )


def csv_cell(value: Any) -> Any:
    """Return a cell of a CSV file that no spreadsheet takes for a formula.

    Numbers stay as they are. A text that begins like a formula gets an apostrophe before it, by
    which spreadsheets know texts.

    Examples
    --------
    >>> [csv_cell(value) for value in ("=1+1", "@SUM(A1)", "plain", -2.5)]
    ["'=1+1", "'@SUM(A1)", 'plain', -2.5]
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULAS) else text


def _steers(char: str) -> bool:
    # Controls, formats (such as directions), surrogates, and breaks of lines.
    return unicodedata.category(char) in _STEERING and char not in _JOINERS
