"""The page that shows what triage found: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deel_influence.extras import require
from deel_influence.utils.datasets import check_dataset
from deel_influence.utils.example_ids import names_of
from deel_influence.utils.files import replacing
from deel_influence.utils.order import check_fixed_order
from deel_influence.utils.takes_data import takes_data

from ..calculators.base import BaseInfluenceCalculator
from ..texts import printable
from ..types import Data
from ..utils.formatting import format_number, format_share
from ..utils.label_sets import LabelSets
from .charts import FRAME, draw_curve, draw_histogram
from .contents import Curve, Table
from .examples import Example, describe_examples
from .inputs import MAX_FEATURE_COLUMNS, WAVE_HEIGHT, WAVE_WIDTH, Shown, describe_inputs
from .overview import describe_labels
from .reasons import (
    MOST_PAIRS,
    REASONED,
    Glimpse,
    contradicting_pairs,
    find_pulling,
    find_reasons,
    glimpse_of,
    mentioned,
)
from .samples import read_samples
from .suspicion import Issues, entries_of, number_of, suggesting
from .triage import Triage

__all__ = ["Curve", "Table", "write_report"]

# Two labels of so many letters fit beside each other on a card.
_SHORT_NAME = 9

# More examples go to further pages of the list.
_PER_PAGE = 100

_TEMPLATES = resources.files("deel_influence.report") / "templates"


@takes_data
def write_report(
    directory: str | os.PathLike[str],
    triage: Triage,
    dataset: Data,
    summary: Mapping[str, Mapping[str, str] | str] | None = None,
    class_names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    top: int = 20,
    extra_tables: Sequence[Table] = (),
    curves: Sequence[Curve] = (),
    display: Any = None,
    issues: Issues | None = None,
    calculator: BaseInfluenceCalculator | None = None,
) -> Path:
    """Write ``directory/index.html``: summary, distribution of scores, most suspicious examples.

    On the page the labels can be decided about, by mouse or by keys. The decisions stay in the
    browser, and are exported as a table that `deel_influence.labels.apply_decisions` takes.

    Parameters
    ----------
    directory
        Where the page goes; it is made if it is missing.
    triage
        What `run_triage` found, n examples.
    dataset
        The dataset that it was made from, in the same order; ``(x, y)`` or a nest.
    summary
        For each card (model, data, method, ...) its names and values; values that belong to no
        card are put on one of their own.
    class_names
        What the labels 0, 1, ... mean; None takes the names that the triage knows.
    feature_names
        What the d features of an example ``(d,)`` mean.
    top
        How many examples the page shows, at least 1; more than n gives n.
    extra_tables, curves
        More to show above the examples.
    display
        What to show in place of the inputs, one entry for each of the n examples: texts; paths of
        pictures, which are drawn, or of other files, which are named; an array of pictures
        ``(n, h, w)`` or ``(n, h, w, c)``, or of anything else; a pandas DataFrame, whose columns
        are shown; a dict of name → any of those; or a function of a batch that returns such for
        its examples. Pictures among the inputs stay unless there are some in it, and so do
        features that have names.
    issues
        What `deel_influence.labels.find_label_issues` found in the same examples. The page then
        goes by its order and suggestions, and shows how many labels are wrong, signals and nearest
        examples, and near-duplicates with different labels.
    calculator
        What gives the influence of one example on the loss of another, such as a
        `FirstOrderInfluenceCalculator`: for the first hundred examples, the page then names the
        ones that support their labels the most, and those that oppose them.

    Returns
    -------
    The path of the page.

    Raises
    ------
    MissingExtraError
        If jinja2, or Pillow for pictures, is not installed.
    DataSourceError
        If the file of a picture is missing, or is none.
    DatasetOrderError
        If the dataset changes its order, so that scores and examples would not match.
    ValueError
        If names, ``display`` or ``issues`` do not fit the examples, or the dataset is another one.
    """
    jinja2 = require("jinja2", "report", "Reports need")
    _check_triage(triage)
    check_dataset(dataset)
    check_fixed_order(dataset)
    _check_names("class_names", class_names)
    _check_names("feature_names", feature_names)
    if class_names is not None:
        sets = triage.class_names if isinstance(triage.class_names, LabelSets) else None
        names = sets.renamed(class_names) if sets is not None else tuple(class_names)
        triage = replace(triage, class_names=names)
    if feature_names is None:
        feature_names = names_of(dataset).feature_names
    seen = _described(triage, dataset, top, issues, calculator, display, feature_names)
    script = _read_template("page.js") + _read_template("decisions.js")
    html = _environment(jinja2).from_string(_read_template("page.html"))
    path = Path(directory) / "index.html"
    text = html.render(
        style=_read_template("page.css"),
        script=script,
        script_hash=_content_hash(script),
        style_hash=_content_hash(_read_template("page.css")),
        summary=_cards({} if summary is None else summary),
        doubt=triage.doubt,
        **seen,
        plots=[draw_curve(curve) for curve in curves],
        tables=[_format_table(table) for table in (*entries_of(triage, issues), *extra_tables)],
        per_page=_PER_PAGE,
        num_examples=len(triage),
        frame=FRAME,
        wave={"width": WAVE_WIDTH, "height": WAVE_HEIGHT},
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _described(
    triage: Triage,
    dataset: tf.data.Dataset,
    top: int,
    issues: Issues | None,
    calculator: BaseInfluenceCalculator | None,
    display: Any,
    feature_names: Sequence[str] | None,
) -> dict[str, Any]:
    """Return what the page tells of the examples, by the names that its template has for it."""
    if issues is not None:
        triage = suggesting(triage, issues)
    positions = triage.most_suspicious(top)
    pulling = find_pulling(calculator, dataset, positions)
    reasons = find_reasons(triage, positions, issues, pulling)
    pairs = contradicting_pairs(triage, issues)
    named = mentioned(reasons, pairs[:MOST_PAIRS])
    places = np.concatenate([positions, np.setdiff1d(named, positions)])
    samples = read_samples(dataset, places, len(triage), display, feature_names, len(positions))
    shown = describe_inputs(samples, feature_names)
    examples = describe_examples(triage, positions, shown, reasons)
    return {
        "examples": examples,
        "columns": _columns(examples),
        "issues": issues,
        "noun": "predicted" if issues is None else "suggested",
        "score": "score" if issues is None else "suspicion",
        "pairs": pairs[:MOST_PAIRS],
        "num_pairs": len(pairs),
        "reasoned": REASONED,
        "glimpses": _glimpses(places, shown, named),
        "figures": _key_figures(triage, positions, issues, len(pairs)),
        **_histogram(triage, positions, issues),
        **describe_labels(triage, positions),
    }


def _histogram(triage: Triage, positions: np.ndarray, issues: Issues | None) -> dict[str, Any]:
    """Return the distribution of the scores, and what is said of the part that is marked."""
    if issues is not None and issues.estimated_number:
        marked = triage.most_suspicious(issues.estimated_number)
        name = f"read the first {format_number(len(marked))}"
    else:
        marked, name = positions, f"the {format_number(len(positions))} shown"
    return {"histogram": draw_histogram(triage.scores, marked), "marked": name}


def _glimpses(
    positions: np.ndarray, shown: Sequence[Shown], wanted: np.ndarray
) -> dict[int, Glimpse]:
    """Return glimpses of those among the examples at positions that are mentioned elsewhere."""
    inputs = dict(zip(positions.tolist(), shown, strict=True))
    return {at: glimpse_of(inputs[at]) for at in wanted.tolist()}


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


def _cards(summary: Any) -> dict[str, Mapping[str, str]]:
    """Return the cards of a summary, and one for the values that stand alone."""
    if not isinstance(summary, Mapping):
        message = (
            "Argument `summary` must be a dict of cards, each a dict of names and values, or of "
            f"names and values. Received: {type(summary).__name__}. Leave it out for none."
        )
        raise TypeError(message)
    cards = {title: card for title, card in summary.items() if isinstance(card, Mapping)}
    alone = {name: str(value) for name, value in summary.items() if name not in cards}
    return {**cards, "Summary": {**cards.get("Summary", {}), **alone}} if alone else cards


def _check_triage(triage: Any) -> None:
    if not isinstance(triage, Triage):
        message = (
            "Argument `triage` must be what `run_triage` returns. Received: "
            f"{type(triage).__name__}. The folder comes first."
        )
        raise TypeError(message)


def _check_names(argument: str, names: Any) -> None:
    """Refuse names that are one text, whose letters would be taken for them, or no names."""
    if names is None or (isinstance(names, Sequence | np.ndarray) and not isinstance(names, str)):
        return
    message = (
        f"Argument `{argument}` must be None or a sequence of names. Received: {names!r}. Pass a "
        'list: ["cat", "dog"].'
    )
    raise TypeError(message)


def _key_figures(
    triage: Triage, positions: np.ndarray, issues: Issues | None, num_pairs: int
) -> list[tuple[str, str, str]]:
    """Return the figures at the head of the page: value, name, remark."""
    count, shown = len(triage), len(positions)
    figures = [] if issues is None else [number_of(issues)]
    figures += [
        (format_number(count), "training examples", "scored and ranked"),
        (format_number(shown), "shown here", f"the top {format_share(shown / count)}"),
    ]
    if triage.has_classes:
        differs = triage.labels != triage.predicted
        figures.append(
            (
                format_number(int(differs.sum())),
                "labels the model disputes" if issues is None else "labels with another suggestion",
                f"{format_number(int(differs[positions].sum()))} of them among those shown",
            )
        )
    total = triage.scores.sum()
    if issues is None and triage.scores.min() >= 0 and total > 0:
        share = format_share(triage.scores[positions].sum() / total)
        figures.append((share, "of the total score", "is held by those shown"))
    if num_pairs:
        name = "near-duplicates with different labels"
        figures.append((format_number(num_pairs), name, "pairs, below the list"))
    return figures


def _columns(examples: Sequence[Example]) -> dict[str, Any]:
    """Say which of the optional columns the examples fill, and whether labels need much room."""
    features = examples[0].shown.features
    is_narrow = 0 < len(features) <= MAX_FEATURE_COLUMNS
    return {
        "picture": any(example.shown.pictures for example in examples),
        "features": [feature.name for feature in features] if is_narrow else [],
        "feature_list": bool(features) and not is_narrow,
        "facts": any(example.shown.facts for example in examples),
        "why": examples[0].why is not None,
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
