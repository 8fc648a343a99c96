"""Label issues as other tools take them, and what people decide there as decisions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..errors import DecisionsError, LabelError
from ..extras import require
from ..texts import csv_cell, printable
from ..utils.files import replacing
from ..utils.label_sets import run_of
from .decisions import KEEP, RELABEL, SKIP, Decisions
from .issues import LabelIssues

_TAGS = {"text": "Text", "image": "Image", "table": "Table"}
_AGENT = "deel_influence"
_QUESTION, _SHOWN = "label", "shown"

Records = list[dict[str, Any]]
Answered = Iterable[tuple[str, str, str, list[str | None]]]


def cleanlab_columns(issues: LabelIssues) -> Any:
    """Return a data frame with the columns of cleanlab's ``CleanLearning.get_label_issues``.

    They are is_label_issue, label_quality, which is 1 - suspicion, given_label and
    predicted_label, both as numbers; the index is the id.

    Parameters
    ----------
    issues
        Of n examples, whose order is kept.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    pandas = require("pandas", "report", "Data frames need")
    columns = {
        "is_label_issue": issues.is_issue,
        "label_quality": 1 - issues.suspicion,
        "given_label": issues.labels,
        "predicted_label": issues.suggested,
    }
    return pandas.DataFrame(columns, index=pandas.Index(issues.ids, name="id"))


def label_studio_config(issues: LabelIssues, kind: str = "text") -> str:
    """Return the labelling interface, XML, of a Label Studio project for `label_studio_tasks`.

    Parameters
    ----------
    issues
        Whose classes are the choices: those with a name, or else all numbers up to the largest
        class that is given or suggested.
    kind
        As for `label_studio_tasks`.

    Raises
    ------
    LabelError
        If the labels are values, and no classes.
    ValueError
        If there is no such kind.
    """
    _check_kind(kind)
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$given")
    ElementTree.SubElement(view, _TAGS[kind], name=_SHOWN, value=f"${_SHOWN}")
    choices = ElementTree.SubElement(
        view, "Choices", name=_QUESTION, toName=_SHOWN, choice="single"
    )
    for name in class_texts(issues):
        ElementTree.SubElement(choices, "Choice", value=printable(name))
    return ElementTree.tostring(view, encoding="unicode")


def label_studio_tasks(issues: LabelIssues, shown: Sequence[Any], kind: str = "text") -> Records:
    """Return Label Studio's tasks, the most suspicious first, with the suggested label of each.

    Control characters in names of classes are written as escapes, which XML could not hold.

    Parameters
    ----------
    issues
        Of n examples.
    shown
        What people see of each, in the order of the issues, length n: texts, addresses of
        pictures, or dicts of cells.
    kind
        What these are, ``"text"``, ``"image"`` or ``"table"``.

    Raises
    ------
    LabelError
        If the labels are values, and no classes.
    ValueError
        If there is no such kind, or not one thing to show for each example.
    """
    _check_kind(kind)
    return [
        {
            "data": {_SHOWN: thing, "example": name, "given": printable(given), **told},
            "predictions": [
                {
                    "model_version": _AGENT,
                    "score": score,
                    "result": [
                        {
                            "from_name": _QUESTION,
                            "to_name": _SHOWN,
                            "type": "choices",
                            "value": {"choices": [printable(suggested)]},
                        }
                    ],
                }
            ],
        }
        for name, thing, given, suggested, score, told in _rows(issues, shown)
    ]


def read_label_studio(tasks: Iterable[Mapping[str, Any]]) -> Decisions:
    """Return what people decided in Label Studio.

    A task whose annotations all choose one label is kept, where it is the given one, or
    relabelled. One whose annotations disagree or were skipped is skipped, and one that nobody
    annotated is left out.

    Parameters
    ----------
    tasks
        What Label Studio exports as JSON, of tasks by `label_studio_tasks`.

    Raises
    ------
    DecisionsError
        If they are no such tasks, or of several runs.
    """

    def answer(annotation: Mapping[str, Any]) -> str | None:
        choices = [
            part["value"]["choices"][0]
            for part in annotation["result"]
            if part["from_name"] == _QUESTION
        ]
        return choices[0] if choices and not annotation.get("was_cancelled") else None

    def read() -> Iterator[tuple[str, str, str, list[str | None]]]:
        for task in tasks:
            data, answers = task["data"], [answer(part) for part in task["annotations"]]
            yield data["example"], data["given"], data["run"], answers

    return _decided(read(), "tasks", "Export them from Label Studio as JSON.")


def argilla_records(issues: LabelIssues, shown: Sequence[Any], field: str = "text") -> Records:
    """Return records as Argilla's ``Record.from_dict`` takes them, the most suspicious first.

    The question is called ``label``. Each has a suggestion with its probability, and the metadata
    ``given``, ``run`` and ``suspicion``.

    Parameters
    ----------
    issues
        Of n examples.
    shown
        What people see of each, in the order of the issues, length n.
    field
        The field of the Argilla dataset that shows it.

    Raises
    ------
    LabelError
        If the labels are values, and no classes.
    ValueError
        If there is not one thing to show for each example.
    """
    return [
        {
            "id": name,
            "fields": {field: thing},
            "metadata": {"given": given, **told},
            "suggestions": {_QUESTION: {"value": suggested, "score": score, "agent": _AGENT}},
        }
        for name, thing, given, suggested, score, told in _rows(issues, shown)
    ]


def read_argilla(records: Iterable[Mapping[str, Any]]) -> Decisions:
    """Return what people decided in Argilla, by the rules of `read_label_studio`.

    Parameters
    ----------
    records
        What Argilla's ``dataset.records.to_list()`` returns, of records by `argilla_records`.

    Raises
    ------
    DecisionsError
        If they are no such records, or of several runs.
    """

    def read() -> Iterator[tuple[str, str, str, list[str | None]]]:
        for record in records:
            told = record["metadata"]
            answers = [part["value"] for part in record["responses"].get(_QUESTION, [])]
            yield record["id"], told["given"], told["run"], answers

    return _decided(read(), "records", "Export them from Argilla with `records.to_list()`.")


def set_fiftyone_fields(
    issues: LabelIssues, samples: Iterable[Any], folder: str | os.PathLike[str] = "."
) -> int:
    """Set ``ground_truth``, ``predicted``, ``suspicion`` and ``is_issue`` of FiftyOne's samples.

    Parameters
    ----------
    issues
        Of examples whose ids are files.
    samples
        FiftyOne's, such as ``dataset.iter_samples(autosave=True)``. Those of other files are left
        as they are.
    folder
        What the ids are relative to.

    Returns
    -------
    How many samples were of examples.

    Raises
    ------
    LabelError
        If the labels are values, and no classes.
    """
    from fiftyone import Classification

    paths = [os.path.abspath(os.path.join(folder, str(name))) for name in issues.ids]
    places = {path: i for i, path in enumerate(paths)}
    probabilities, found = _probabilities(issues), 0
    for sample in samples:
        i = places.get(sample.filepath)
        if i is None:
            continue
        found += 1
        sample["ground_truth"] = Classification(label=issues.label_text(issues.labels[i]))
        sample["predicted"] = Classification(
            label=issues.label_text(issues.suggested[i]),
            confidence=float(probabilities[i]),
        )
        sample["suspicion"] = float(issues.suspicion[i])
        sample["is_issue"] = bool(issues.is_issue[i])
    return found


def write_projector(
    issues: LabelIssues, features: np.ndarray, folder: str | os.PathLike[str]
) -> None:
    """Write points for the projector of TensorBoard, which colours them by suspicion or label.

    Parameters
    ----------
    issues
        Of n examples.
    features
        What the model makes of each, in the order of the issues, shape ``(n, d)``.
    folder
        The log directory. ``tensors.tsv``, ``metadata.tsv`` and ``projector_config.pbtxt`` are
        written there; other files stay.

    Raises
    ------
    LabelError
        If the labels are values, and no classes.
    ValueError
        If features are not of shape ``(n, d)``.
    """
    points = np.asarray(features)
    if points.ndim != 2 or len(points) != len(issues):
        message = (
            "Argument `features` must have a row for each example, shape (n, d). Received: shape "
            f"{points.shape} for {len(issues)} examples."
        )
        raise ValueError(message)
    folder = Path(folder)
    classes = np.array(class_texts(issues), object)
    columns = {
        "id": issues.ids,
        "label": classes[issues.labels],
        "suggested": classes[issues.suggested],
        "suspicion": issues.suspicion,
        "is_issue": issues.is_issue,
    }
    rows = [tuple(columns), *zip(*(part.tolist() for part in columns.values()), strict=True)]
    # The projector knows no quotes: tabs and line breaks are written as escapes.
    lines = ["\t".join(str(csv_cell(cell)) for cell in row) + "\n" for row in rows]
    config = (
        f'embeddings {{\n  tensor_name: "{_AGENT}"\n  tensor_path: "tensors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n}\n'
    )
    with replacing(folder / "tensors.tsv") as temporary:
        np.savetxt(temporary, points, fmt="%.7g", delimiter="\t")
    for name, text in (("metadata.tsv", "".join(lines)), ("projector_config.pbtxt", config)):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def class_texts(issues: LabelIssues) -> list[str]:
    """Return what the classes are called, by number where they have no names."""
    _probabilities(issues)  # which values have none of
    if issues.class_names is not None:
        return [str(name) for name in issues.class_names]
    classes = np.concatenate([issues.labels, issues.suggested])
    return [str(number) for number in range(classes.max(initial=-1) + 1)]


def _rows(issues: LabelIssues, shown: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield of each example its id, what is shown, both labels, a probability, and the rest."""
    if len(shown) != len(issues):
        message = (
            "Argument `shown` must have an entry for each example, in their order. Received: "
            f"{len(shown)} for {len(issues)} examples."
        )
        raise ValueError(message)
    things, run = list(shown), run_of(issues.ids, issues.labels, issues.class_names)
    probabilities = _probabilities(issues)
    for i in issues.order.tolist():
        labels = issues.label_text(issues.labels[i]), issues.label_text(issues.suggested[i])
        told = {"suspicion": float(issues.suspicion[i]), "run": run}
        yield str(issues.ids[i]), things[i], *labels, float(probabilities[i]), told


def _probabilities(issues: LabelIssues) -> np.ndarray:
    """Return those of the suggested classes."""
    if issues.suggested_probability is None:
        message = (
            "Argument `issues` must be of classes, among which the other tool has people choose. "
            f"Received: issues of {len(issues)} values. Write them with `to_csv`."
        )
        raise LabelError(message)
    return issues.suggested_probability


def _check_kind(kind: str) -> None:
    if kind not in _TAGS:
        message = f"Argument `kind` must be one of {', '.join(_TAGS)}. Received: {kind!r}."
        raise ValueError(message)


def _decided(answered: Answered, argument: str, remedy: str) -> Decisions:
    """Return decisions about examples that have answers, each a label or None."""
    rows: list[tuple[str, ...]] = []
    runs = []
    try:
        for name, given, run, answers in answered:
            labels = {answer for answer in answers if answer is not None}
            runs.append(run)
            if labels == {given}:
                rows.append((name, KEEP, ""))
            elif len(labels) == 1:
                rows.append((name, RELABEL, *labels))
            elif answers:
                rows.append((name, SKIP, ""))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        message = (
            f"Argument `{argument}` must be what was made of label issues, with its answers. "
            f"Received: entry {len(runs) + 1} fails with {error!r}. {remedy}"
        )
        raise DecisionsError(message) from error
    if len(set(runs)) != 1:
        told = f"Received: {len(set(runs))} runs. {remedy}"
        message = f"Argument `{argument}` must be of one run. {told}"
        raise DecisionsError(message)
    ids, decisions, answers = np.array(rows, object).reshape(-1, 3).T
    return Decisions(ids, decisions, answers, runs[0])
