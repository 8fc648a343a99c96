"""Examples as the plots take them: samples with scores, ids and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..utils.display import is_picture_file, read_picture, shown_of
from ..utils.formatting import format_number


@dataclass(frozen=True, eq=False)
class Examples:
    """The k examples of a plot; what is not known is None.

    Attributes
    ----------
    samples
        One for each example.
    values
        Scores, shape ``(k,)``.
    ids
        Ids, k of them.
    labels
        Labels as they are shown, k of them.
    """

    samples: Sequence[Any]
    values: np.ndarray | None
    ids: Sequence[Any] | None
    labels: Sequence[str] | None

    def __len__(self) -> int:
        """Return k."""
        return len(self.samples)

    def known(self, index: int) -> tuple[Any, str | None, float | None]:
        """Return id, label and score of an example."""
        return (
            None if self.ids is None else self.ids[index],
            None if self.labels is None else self.labels[index],
            None if self.values is None else float(self.values[index]),
        )

    def title(self, index: int) -> str:
        """Return what is known of an example besides the sample: label and id, then the score."""
        return example_title(*self.known(index))


def example_title(
    example_id: Any = None, label: str | None = None, value: float | None = None
) -> str:
    """Write label and id on one line, and the score below.

    Examples
    --------
    >>> print(example_title(17, "cat", -0.0125))
    cat, id 17
    score −0.0125
    """
    names = [] if label is None else [label]
    names += [] if example_id is None else [f"id {example_id}"]
    lines = [", ".join(names)] if names else []
    lines += [] if value is None else [f"score {format_number(value)}"]
    return "\n".join(lines)


def query_title(
    query_id: Any = None, label: Any = None, class_names: Sequence[str] | None = None
) -> str:
    """Write what stands above the example that is explained.

    Examples
    --------
    >>> query_title(17, 1, ["cat", "dog"])
    'query: dog, id 17'
    """
    known = example_title(query_id, None if label is None else label_text(label, class_names))
    return f"query: {known}" if known else "query"


def read_examples(
    examples: Sequence[Any],
    argument: str,
    ids: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    display: Any = None,
) -> Examples:
    """Return what calculators give as a top-k in one form.

    Parameters
    ----------
    examples
        ``(samples, values)`` or ``(samples, values, ids)``, k of each; values may be None. Of a
        pandas DataFrame as samples, each is a dict of its columns.
    argument
        Name of the argument, for messages.
    ids
        Ids of the examples, where ``examples`` holds none.
    labels
        Labels of the examples: classes, one-hot rows, or anything that can be printed.
    class_names
        What the classes 0, 1, ... are called.
    display
        What to draw in place of the samples, as `shown_of` takes it, or a function of the samples
        that returns such. Files of pictures are read.

    Raises
    ------
    ValueError
        If there are not two or three parts, not k of each, or none at all.
    DataSourceError
        If the file of a picture cannot be read.
    """
    if not isinstance(examples, tuple | list) or len(examples) not in (2, 3):
        parts = f" of {len(examples)} parts" if isinstance(examples, tuple | list) else ""
        message = (
            f"Argument `{argument}` must be (samples, values) or (samples, values, ids), as "
            "`compute_top_k_from_training_dataset` returns them. "
            f"Received: {type(examples).__name__}{parts}."
        )
        raise ValueError(message)
    if display is None and hasattr(examples[0], "iloc"):  # the columns of a data frame have names
        display = examples[0]
    samples, values, *rest = (_plain(part) for part in examples)
    ids = _plain(rest[0] if rest and ids is None else ids)
    if display is None:
        count = _count(samples, argument)
    else:
        count = _count_parts(samples)
        entries = display(samples) if callable(display) else display
        shown = shown_of(entries, count, range(count), "display")
        samples = [read_picture(one) if is_picture_file(one) else one for one in shown]
    if values is not None and np.size(values) != count:
        message = (
            f"Argument `{argument}` must come with one score for each sample, shape (k,). "
            f"Received: shape {np.shape(values)} for {count} samples. Take the row of one query."
        )
        raise ValueError(message)
    for name, part in (("ids", ids), ("labels", labels)):
        if part is not None and len(part) != count:
            message = (
                f"Argument `{argument}` must come with as many {name} as samples. "
                f"Received: {len(part)} for {count} samples."
            )
            raise ValueError(message)
    names = None if labels is None else [label_text(label, class_names) for label in labels]
    return Examples(samples, None if values is None else np.ravel(values), ids, names)


def label_text(label: Any, class_names: Sequence[str] | None = None) -> str:
    """Return a label as it is shown.

    Parameters
    ----------
    label
        A class, a one-hot row, or anything that can be printed.
    class_names
        What the classes 0, 1, ... are called.

    Examples
    --------
    >>> label_text([0.0, 1.0, 0.0], ["cat", "dog", "frog"])
    'dog'

    Raises
    ------
    ValueError
        If there is no name for the class.
    """
    array = np.squeeze(_plain(label))
    if array.ndim == 1 and array.dtype.kind in "biuf":
        array = np.argmax(array)
    value = array.item() if array.ndim == 0 else array
    if class_names is not None and isinstance(value, int | float) and float(value).is_integer():
        if not 0 <= value < len(class_names):
            message = (
                "Argument `class_names` must name every class, from 0 on. "
                f"Received: {len(class_names)} names, and the class {value}."
            )
            raise ValueError(message)
        return str(class_names[int(value)])
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _count(samples: Any, argument: str) -> int:
    """Return the number of samples, of which there must be some."""
    if isinstance(samples, Mapping) or len(samples) == 0:
        parts = f"a dict of {list(samples)}" if isinstance(samples, Mapping) else "none"
        message = (
            f"Argument `{argument}` must hold at least one sample, and samples of one part. "
            f"Received: {parts}. Of a dict, pass the part to draw: (samples[name], values)."
        )
        raise ValueError(message)
    return len(samples)


def _count_parts(samples: Any) -> int:
    """Return the number of samples, of one part or of several."""
    while isinstance(samples, Mapping):
        samples = next(iter(samples.values()))
    return len(samples)


def _plain(part: Any) -> Any:
    """Return tensors as arrays; anything else as it is, but for lists of numbers."""
    if part is None or isinstance(part, list | tuple | Mapping):
        return part
    return np.asarray(part)
