"""Numbers as a reader wants to see them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..texts import printable

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "\N{MINUS SIGN}"


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


def written_column(values: np.ndarray, write: Callable[[Any], str] = printable) -> np.ndarray:
    """Return a column of a table, shape ``(n,)``, with its texts as ``write`` writes them."""
    if values.dtype.kind not in "OU":
        return values
    written = [write(value) if isinstance(value, str) else value for value in values.tolist()]
    # As objects where some are missing or numbers.
    return np.array(written, np.str_ if all(isinstance(v, str) for v in written) else object)


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
