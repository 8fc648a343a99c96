"""The reasons in the messages of errors of TensorFlow and Keras."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ..errors import DataSourceError
from .example_ids import names_of

# A line of a protocol buffer, which some messages print whole: `name {`, `type: DT_FLOAT`, `}`.
_PROTOCOL_LINE = re.compile(r'^(\w+ \{|\}|\w+: (".*"|\S+))$')


# Keras prints what went wrong inside a layer in bold, between the layer and its arguments.
_BOLD = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)

# It recites the numbers of a batch as well.
_NUMBERS = re.compile(r"\[\[[^A-Za-z]*\]\]")


def reason_of(error: Exception) -> str:
    """Return the sentence of a message that gives the reason.

    In those of TensorFlow the history of the graph comes before it, and the name of the node after
    it; what it says of the values is of any length.
    """
    text = str(error)
    bold = _BOLD.findall(text)
    lines = [" ".join(bold[-1].split())] if bold else text.splitlines()
    told = [line for line in map(str.strip, lines) if _is_sentence(line)]
    reason = told[-1].split("}}")[-1] if told else type(error).__name__
    reason = _NUMBERS.sub("[...]", reason)
    return reason.split("  Label values")[0].split(" [Op:")[0].strip(" .:")[:200]


def _is_sentence(line: str) -> bool:
    """Tell what is said from the names of nodes and from protocol buffers."""
    says = re.search(r"[A-Za-z]", line) and not line.startswith("[[")
    return bool(says) and not _PROTOCOL_LINE.match(line)


@contextmanager
def reading(argument: str, dataset: tf.data.Dataset) -> Iterator[None]:
    """Say which dataset it was where TensorFlow fails to read one in the body.

    Parameters
    ----------
    argument
        What messages call the dataset.
    dataset
        The dataset, which may know how to find the file.

    Raises
    ------
    DataSourceError
        For a file that is missing or damaged, or a function of the dataset that fails.
    """
    try:
        yield
    except tf.errors.OpError as error:
        message = (
            f"Argument `{argument}` must be readable to its end. Received: a dataset that fails "
            f"with {type(error).__name__}: {reason_of(error)}. Check the files and the functions "
            "that it is made of."
        )
        raise names_of(dataset).find_unreadable() or DataSourceError(message) from error


def readable(dataset: tf.data.Dataset, argument: str) -> Iterator[Any]:
    """Yield the elements of a dataset; what goes wrong is told as by `reading`."""
    with reading(argument, dataset):
        yield from dataset
