"""Numbers as a reader wants to see them, and texts that cannot do anything to the reader."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "\N{MINUS SIGN}"
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Part of how words and pictograms are written.
_JOINERS = "\N{SOFT HYPHEN}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
# Full-width forms count as the signs that they stand for.
_FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def format_number(value: float, keep_zeros: bool = False) -> str:
    """Write a number with about three significant digits, never in programmers' notation.

    Parameters
    ----------
    value
        An integer, which keeps all its digits, or another number.
    keep_zeros
        Whether zeros at the end stay, so that the numbers of a column are equally precise.

    Examples
    --------
    >>> [format_number(value) for value in (1437, 0.98765, -12.34, 0.5, 0.0000123, 4.56e9)]
    ['1,437', '0.988', '−12.3', '0.5', '1.23×10⁻⁵', '4.56×10⁹']
    >>> format_number(0.5, keep_zeros=True)
    '0.500'
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int):
        return f"{value:,}".replace("-", _MINUS)
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if 1e-3 <= size < 1e5:
        text = f"{value:,.0f}" if size >= 1000 else f"{value:#.3g}".removesuffix(".")
        return (text if keep_zeros else _without_zeros(text)).replace("-", _MINUS)
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa if keep_zeros else _without_zeros(mantissa)
    return f"{mantissa.replace('-', _MINUS)}×{power_of_ten(int(exponent))}"


def power_of_ten(exponent: int) -> str:
    """Write a power of ten.

    Examples
    --------
    >>> power_of_ten(-4)
    '10⁻⁴'
    """
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def format_share(share: float) -> str:
    """Write a share between 0 and 1 as a percentage.

    Examples
    --------
    >>> [format_share(share) for share in (0.5, 0.0123, 0.0)]
    ['50%', '1.2%', '0%']
    """
    percent = 100 * share
    text = f"{percent:.0f}" if percent == 0 or percent >= 10 else f"{percent:.1f}"
    return f"{text}%"


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
    >>> printable("caf\N{LATIN SMALL LETTER E WITH ACUTE}\x1b[2K")
    'caf\xe9\\x1b[2K'
    """
    return "".join(
        char if char in keep or not _steers(char) else ascii(char)[1:-1] for char in str(text)
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


def written_column(values: np.ndarray, write: Callable[[Any], str] = printable) -> np.ndarray:
    """Return a column of a table, shape ``(n,)``, with its texts as ``write`` writes them."""
    if values.dtype.kind not in "OU":
        return values
    return np.array([write(value) for value in values.tolist()], dtype=np.str_)


def _steers(char: str) -> bool:
    # Controls, formats (such as directions), surrogates, and breaks of lines.
    return unicodedata.category(char) in _STEERING and char not in _JOINERS


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
