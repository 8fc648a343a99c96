"""Colours for scores with a sign."""

from __future__ import annotations

import numpy as np

from ..utils.formatting import format_number

_WHITE = np.ones(3)
_POSITIVE = np.array([0.13, 0.40, 0.67])
_NEGATIVE = np.array([0.70, 0.09, 0.17])
# Black text stays readable on the darkest colour.
_STRONGEST = 0.6


def signed_colours(scores: np.ndarray) -> np.ndarray:
    """Return blue for positive scores and red for negative ones, the stronger the larger.

    Parameters
    ----------
    scores
        Scores of any shape; NaN counts as 0, which is white.

    Returns
    -------
    Red, green and blue from 0 to 1, shape ``(*scores.shape, 3)``.
    """
    values = np.nan_to_num(np.asarray(scores, dtype=np.float64))
    largest = np.abs(values).max(initial=0.0) or 1.0
    strength = _STRONGEST * np.abs(values / largest)[..., None]
    hue = np.where(values[..., None] > 0, _POSITIVE, _NEGATIVE)
    return (1 - strength) * _WHITE + strength * hue


def colour_key(scores: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Say what the colours of some scores mean: a text and the colour it is about, from red on.

    Parameters
    ----------
    scores
        Scores of any shape; the largest has the strongest colour.
    """
    largest = float(np.abs(np.nan_to_num(np.asarray(scores, dtype=np.float64))).max(initial=0.0))
    ends = np.array([-largest, 0.0, largest])
    texts = (
        f"red: below zero, to {format_number(ends[0])}",
        "white: 0",
        f"blue: above zero, to {format_number(largest)}",
    )
    return list(zip(texts, signed_colours(ends), strict=True))
