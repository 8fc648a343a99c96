"""Table and picture of a reproduction of dattri's benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from dattri_again import Measured, entries_like, put_into, read_earlier, split_only, tell_apart
from dattri_methods import METHODS, has_choice
from dattri_run import Comparison
from evidence import Evidence, read_options
from pieces import pieces_folder, split_workers

SOURCE = "J. Deng et al., dattri, NeurIPS 2024 (arXiv:2410.04555), figures read off"

Figures = Mapping[str, float | str]
"""Published figures by the labels of this library's methods, as words if they are no numbers."""

Published = Mapping[str, Figures]
"""The figures of ``"lds"``, ``"loo"`` and ``"auc"``."""


def reproduce(
    name: str,
    title: str,
    forms: Mapping[str, dict[str, Any]],
    published: Published,
    notes: list[str],
    arguments: list[str] | None,
    description: str | None,
) -> None:
    """Run a reproduction, and write its result.

    Parameters
    ----------
    name
        Of the script.
    title
        What is reproduced.
    forms
        Settings by form.
    published
        Figures to compare with.
    notes
        What a reader has to know beside the table.
    arguments, description
        Of the command line.

    Raises
    ------
    ValueError
        If a published figure has no entry in the full form.
    """
    check_published(forms["full"], published)
    num_workers, arguments = split_workers(arguments)
    only, arguments = split_only(arguments)
    options = read_options(description, arguments)
    settings = forms[options.form]
    evidence = Evidence(name, title, SOURCE, options, settings, num_workers)
    earlier = None if only is None else read_earlier(evidence)
    folder = pieces_folder(name, options, settings)
    asked = settings if only is None else entries_like(settings, only)
    comparison = Comparison(asked, options, folder, num_workers)
    comparison.compute()
    measured = measure(comparison)
    if earlier is not None:
        measured = put_into(earlier, measured)
    tell(evidence, measured, published)
    evidence.notes = [*notes, *notes_of(settings)]
    if earlier is not None:  # what was added by hand comes after the others
        evidence.notes += earlier["notes"][len(evidence.notes) :]
    path = evidence.save(draw(title, measured["lds"], published["lds"]))
    if earlier is not None:
        tell_apart(path, earlier, only)


def measure(comparison: Comparison) -> Measured:
    """Return what was computed of each entry, by measure."""
    settings, entries = comparison.settings, list(comparison.entries)
    entries += [comparison.add_ensemble(label) for label in settings["ensembles"]]
    measured: Measured = {"lds": {label: comparison.lds_row(label) for label in entries}}
    if settings["truth_seeds"] > 1:
        measured["retrainings"] = {"lds": comparison.lds_of_retrainings()}
    if settings["num_left_out"]:
        pairs = settings["pairs"]
        measured["leave one out"] = {label: comparison.loo_row(label) for label in pairs}
    single = settings["single"]
    measured["detection"] = {label: comparison.auc_row(label) for label in single}
    return measured


def tell(evidence: Evidence, measured: Measured, published: Published) -> None:
    """Add a row for each figure, those of the best first."""
    pairs, rows = evidence.settings["pairs"], measured["lds"]
    ensembles = [label for label in rows if label not in pairs or is_ensemble(pairs[label])]
    singles = [label for label in rows if label not in ensembles]
    _add_best(evidence, {"single-model strategy": singles, "ensemble": ensembles}, rows)
    others = evidence.settings["truth_seeds"] - 1
    if others:
        what = f"the mean of {others} other retrainings" if others > 1 else "another retraining"
        evidence.add(f"LDS of {what} of each half", measured["retrainings"]["lds"])
    for label, row in rows.items():
        evidence.add(f"LDS, {label}", row["lds"], published=published["lds"].get(label))
    if "leave one out" in measured:
        _add_leave_one_out(evidence, measured["leave one out"], published["loo"])
    _add_detection(evidence, measured["detection"], published["auc"])
    evidence.details |= measured


def check_published(settings: Mapping[str, Any], published: Published) -> None:
    """Check that each published figure belongs to an entry of some settings.

    Raises
    ------
    ValueError
        If one does not.
    """
    ensembles = [f"{label}, {settings['num_full']} models" for label in settings["ensembles"]]
    entries = {
        "lds": {*settings["pairs"], *ensembles},
        "loo": set(settings["pairs"]) if settings["num_left_out"] else set(),
        "auc": set(settings["single"]),
    }
    for measure, figures in published.items():
        unknown = sorted(set(figures) - entries[measure])
        if unknown:
            message = (
                f"Argument `published` must name entries of the full form under {measure!r}. "
                f"Received: {', '.join(unknown)}. Add the entry, or take the figure out."
            )
            raise ValueError(message)


def notes_of(settings: Mapping[str, Any]) -> list[str]:
    """Return what was left out of the settings to save time."""
    pairs, searching = settings["pairs"], {e["method"] for e in settings["single"].values()}
    fixed = [name.removesuffix(", early") for name, entry in pairs.items() if not has_choice(entry)]
    without = [
        entry["method"]
        for entry in pairs.values()
        if entry["method"] not in searching and METHODS[entry["method"]].has_single
    ]
    return [
        f"To save time, these were tried in one setting only: {_listed(fixed)}.",
        "To save time, no area under the curve was computed for these methods: "
        f"{_listed(without)}. Other methods have one for the entries of the table alone.",
    ]


def _listed(names: list[str]) -> str:
    # Names have commas.
    return "; ".join(dict.fromkeys(names)) or "none"


def is_ensemble(entry: Mapping[str, Any]) -> bool:
    """Tell whether a method looks at several trainings."""
    return any(given.get("models", 1) > 1 for given in entry["grid"])


def _add_best(
    evidence: Evidence, groups: Mapping[str, list[str]], rows: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add the datamodelling scores of those that are best on the validation half."""
    settings = evidence.settings
    for group, labels in groups.items():
        best = max(labels, key=lambda label: rows[label]["validation"])
        bound = settings["at_least"].get(group, {})
        evidence.add(f"LDS of the best {group} ({best})", rows[best]["lds"], **bound)
        evidence.details[f"best {group}"] = best
        if settings["truth_seeds"] > 1:
            seeds = settings["truth_seeds"]
            evidence.add(
                f"the same, of the mean of {seeds} retrainings of each half",
                rows[best]["lds_mean_of_seeds"],
            )


def _add_leave_one_out(
    evidence: Evidence, rows: Mapping[str, Mapping[str, Any]], published: Figures
) -> None:
    best = max(rows, key=lambda label: rows[label]["validation"])
    bound = evidence.settings["at_least"].get("leave-one-out", {})
    evidence.add(f"leave-one-out correlation of the best ({best})", rows[best]["loo"], **bound)
    for label, row in rows.items():
        evidence.add(f"leave-one-out, {label}", row["loo"], published=published.get(label))


def _add_detection(
    evidence: Evidence, rows: Mapping[str, Mapping[str, Any]], published: Figures
) -> None:
    best = max(rows, key=lambda label: rows[label]["validation"])
    bound = evidence.settings["at_least"].get("detection", {})
    evidence.add(f"AUC of wrong labels of the best ({best})", rows[best]["auc"], **bound)
    for label, row in rows.items():
        evidence.add(f"AUC of wrong labels, {label}", row["auc"], published=published.get(label))


def draw(title: str, rows: Mapping[str, Mapping[str, Any]], published: Figures) -> plt.Figure:
    """Draw the datamodelling scores with their intervals, beside the published numbers."""
    labels = sorted(rows, key=lambda label: rows[label]["lds"])
    places = np.arange(len(labels))
    scores = np.array([rows[label]["lds"] for label in labels])
    intervals = np.array([rows[label]["interval"] for label in labels]).T
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.2 * len(labels)), layout="constrained")
    axes.barh(places, scores, color="tab:blue", alpha=0.6, label="here")
    axes.hlines(places, *intervals, color="black", lw=1)
    known = [place for place in places if isinstance(published.get(labels[place]), float)]
    axes.plot([published[labels[at]] for at in known], known, "rx", label="published")
    axes.set_yticks(places, labels, fontsize=7)
    axes.set(xlabel="linear datamodelling score", title=title)
    axes.legend(loc="lower right")
    return figure
