"""Progress bars that stay quiet where nobody watches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # In a notebook without widgets a bar of text does as well, and is no reason to warn.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

Item = TypeVar("Item")


def check_verbose(verbose: str | int) -> str | int:
    """Return ``verbose`` if it is ``"auto"``, 0, 1 or 2.

    Raises
    ------
    ValueError
        For any other value.
    """
    if isinstance(verbose, bool) or verbose not in ("auto", 0, 1, 2):
        message = (
            'Argument `verbose` must be "auto" (a bar on terminals), 0 (quiet), 1 (a bar) or '
            f"2 (one line at the end), as in Keras. Received: verbose={verbose!r}."
        )
        raise ValueError(message)
    return verbose


def progress_bar(
    iterable: Iterable[Item],
    description: str,
    total: int | None = None,
    verbose: str | int = "auto",
    unit: str = "batch",
) -> Iterator[Item]:
    """Yield the items of ``iterable`` under a progress bar.

    Parameters
    ----------
    iterable
        What to go through, most often the batches of a dataset.
    description
        What is being done, in a few words.
    total
        The number of items where it is known.
    verbose
        ``"auto"`` shows a bar on a terminal only, 0 never, 1 always; 2 prints one line at the end.
    unit
        What an item is.
    """
    check_verbose(verbose)
    if verbose == 2:
        count = 0
        for item in iterable:
            count += 1
            yield item
        print(f"{description}: {count} {'batches' if unit == 'batch' else f'{unit}s'}")
        return
    # tqdm reads None as "show it on a terminal only".
    disable = {"auto": None, 0: True, 1: False}[verbose]
    yield from tqdm(iterable, desc=description, total=total, unit=unit, disable=disable)
