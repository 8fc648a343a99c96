"""The page that shows what triage found: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deel_influence.extras import require
from deel_influence.utils.datasets import check_dataset, check_fixed_order
from deel_influence.utils.files import replacing

from ..texts import printable
from ..utils.formatting import format_number, format_share
from .charts import FRAME, draw_curve, draw_histogram
from .contents import Curve, Table
from .examples import (
    MAX_FEATURE_COLUMNS,
    Example,
    describe_examples,
    is_classification,
    label_text,
)
from .samples import read_samples
from .triage import Triage

__all__ = ["Curve", "Table", "write_report"]

# Two labels of so many letters fit beside each other on a card.
_SHORT_NAME = 9

_TEMPLATES = resources.files("deel_influence.report") / "templates"


def write_report(
    directory: str | os.PathLike[str],
    triage: Triage,
    dataset: tf.data.Dataset,
    summary: Mapping[str, Mapping[str, str]],
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    top: int = 20,
    extra_tables: Sequence[Table] = (),
    curves: Sequence[Curve] = (),
) -> Path:
    """Write ``directory/index.html``: summary, distribution of scores, most suspicious examples.

    Parameters
    ----------
    directory
        Where the page goes; it is made if it is missing.
    triage
        What `run_triage` found, n examples.
    dataset
        The dataset that it was made from, in the same order; ``(x, y)`` or a nest.
    summary
        For each card (model, data, method, ...) its names and values.
    class_names
        What the labels 0, 1, ... mean.
    feature_names
        What the d features of an example ``(d,)`` mean.
    top
        How many examples the page shows, at least 1; more than n gives n.
    extra_tables, curves
        More to show above the examples.

    Returns
    -------
    The path of the page.

    Raises
    ------
    MissingExtraError
        If jinja2 is not installed.
    DatasetOrderError
        If the dataset changes its order, so that scores and examples would not match.
    ValueError
        If the names do not fit the labels or features, or the dataset is another one.
    """
    jinja2 = require("jinja2", "report", "Reports need")
    check_dataset(dataset)
    check_fixed_order(dataset)
    positions = triage.most_suspicious(top)
    _check_summary(summary)
    _check_names("class_names", class_names)
    _check_names("feature_names", feature_names)
    _check_class_names(triage, class_names)
    samples = read_samples(dataset, positions, len(triage))
    examples = describe_examples(triage, positions, samples, class_names, feature_names)
    script = _read_template("page.js")
    html = _environment(jinja2).from_string(_read_template("page.html"))
    path = Path(directory) / "index.html"
    text = html.render(
        style=_read_template("page.css"),
        script=script,
        script_hash=_content_hash(script),
        style_hash=_content_hash(_read_template("page.css")),
        summary=summary,
        figures=_key_figures(triage, positions),
        histogram=draw_histogram(triage.scores, positions),
        plots=[draw_curve(curve) for curve in curves],
        tables=[_format_table(table) for table in extra_tables],
        examples=examples,
        labels=_label_counts(triage, positions, class_names),
        columns=_columns(examples),
        num_examples=len(triage),
        frame=FRAME,
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _environment(jinja2: Any) -> Any:
    """Return an environment that escapes all values and refuses unknown names."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What is marked as safe is a text of this package.
        finalize=lambda value: _shown(value) if type(value) is str else value,
    )
    environment.filters["number"] = format_number
    return environment


def _shown(text: str) -> str:
    return printable(text, keep="\n\t")


def _read_template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _content_hash(text: str) -> str:
    """Name a text as a content security policy does, which then allows it and nothing else."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _check_summary(summary: Any) -> None:
    """Refuse a summary that is no dict of dicts."""
    whole = isinstance(summary, Mapping)
    odd = [card for card in summary.values() if not isinstance(card, Mapping)] if whole else []
    if not whole or odd:
        received = f"a card that is {odd[0]!r}" if odd else type(summary).__name__
        message = (
            "Argument `summary` must be a dict of cards, each a dict of names and values. "
            f'Received: {received}. Write {{"Model": {{"name": "my model"}}}}, or {{}} for none.'
        )
        raise ValueError(message)


def _check_names(argument: str, names: Any) -> None:
    """Refuse names that are one text, whose letters would be taken for them, or no names."""
    if names is None or (isinstance(names, Sequence | np.ndarray) and not isinstance(names, str)):
        return
    message = (
        f"Argument `{argument}` must be None or a sequence of names. Received: {names!r}. Pass a "
        'list: ["cat", "dog"].'
    )
    raise TypeError(message)


def _check_class_names(triage: Triage, class_names: Sequence[str] | None) -> None:
    if class_names is None:
        return
    if not is_classification(triage):
        message = (
            "Argument `class_names` names classes, and must be None where labels are values. "
            f"Received: {len(class_names)} names for labels of dtype {triage.labels.dtype}."
        )
        raise ValueError(message)
    both = np.concatenate([triage.labels, triage.predicted])
    if both.min() < 0 or both.max() >= len(class_names):
        message = (
            "Argument `class_names` must name every label, the first one being 0. Received: "
            f"{len(class_names)} names for labels from {both.min()} to {both.max()}."
        )
        raise ValueError(message)


def _key_figures(triage: Triage, positions: np.ndarray) -> list[tuple[str, str, str]]:
    """Return the figures at the head of the page: value, name, remark."""
    count, shown = len(triage), len(positions)
    figures = [
        (format_number(count), "training examples", "scored and ranked"),
        (format_number(shown), "shown here", f"the top {format_share(shown / count)}"),
    ]
    if is_classification(triage):
        differs = triage.labels != triage.predicted
        figures.append(
            (
                format_number(int(differs.sum())),
                "labels the model disputes",
                f"{format_number(int(differs[positions].sum()))} of them among those shown",
            )
        )
    total = triage.scores.sum()
    if triage.scores.min() >= 0 and total > 0:
        share = format_share(triage.scores[positions].sum() / total)
        figures.append((share, "of the total score", "is held by those shown"))
    return figures


def _label_counts(
    triage: Triage, positions: np.ndarray, class_names: Sequence[str] | None
) -> list[tuple[float, str, int]]:
    """Return the given labels among those shown: number, name and count; none for values."""
    if not is_classification(triage):
        return []
    labels, counts = np.unique(triage.labels[positions], return_counts=True)
    return [
        (label.item(), label_text(label, class_names), int(count))
        for label, count in zip(labels, counts, strict=True)
    ]


def _columns(examples: Sequence[Example]) -> dict[str, Any]:
    """Say which of the optional columns the examples fill, and whether labels need much room."""
    from_first = examples[0]
    is_narrow = 0 < len(from_first.features) <= MAX_FEATURE_COLUMNS
    return {
        "picture": from_first.picture is not None,
        "features": [feature.name for feature in from_first.features] if is_narrow else [],
        "feature_list": bool(from_first.features) and not is_narrow,
        "facts": bool(from_first.facts),
        "long_names": any(
            len(label.text) > _SHORT_NAME
            for example in examples
            for label in (example.given, example.predicted)
        ),
    }


def _format_table(table: Table) -> dict[str, Any]:
    """Return a table with cells as pairs of text and whether it is a number."""
    return {
        "title": table.title,
        "caption": table.caption,
        "columns": table.columns,
        "rows": [[_format_cell(cell) for cell in row] for row in table.rows],
    }


def _format_cell(cell: object) -> tuple[str, bool]:
    if isinstance(cell, int | np.integer) and not isinstance(cell, bool):
        return format_number(int(cell)), True
    if isinstance(cell, float | np.floating):
        return format_number(float(cell)), True
    text = str(cell)
    return text, text[:1].isdigit()
