"""Run some entries of a reproduction again, and put them into the result that is there.

    python benchmarks/reproductions/dattri_mnist_lr.py --only "trak-(10|50)"

The other rows stay as they are, and the result says which of them are of which run. Truths that
are no longer on disk are trained again. Leaving one out, which takes hours, is not: its rows are
kept under the date that they are of.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from evidence import Evidence

Measured: TypeAlias = dict[str, dict[str, Any]]
"""By measure, as the details of a result have it, what is known of each entry."""

OF_A_RUN = ("environment", "command", "seconds", "resumed")


def split_only(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take ``--only PATTERN`` off a command line, and return the pattern and the rest."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only")
    given, others = parser.parse_known_args(arguments)
    return given.only, others


def entries_like(settings: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Return settings with the entries whose whole name matches, and with the models they need.

    Raises
    ------
    ValueError
        If there is no such entry.
    """
    found = {
        part: {name: e for name, e in settings[part].items() if re.fullmatch(pattern, name)}
        for part in ("pairs", "single")
    }
    if not found["pairs"]:
        message = (
            f"Option --only must match entries of the settings. Received: {pattern!r}, which "
            f"matches none of {', '.join(settings['pairs'])}."
        )
        raise ValueError(message)
    grids = [given for part in found.values() for e in part.values() for given in e["grid"]]
    kinds = {given.get("kind", "full") for given in grids}
    counts = {
        models: {kind: count for kind, count in settings[models].items() if kind in kinds}
        for models in ("models", "noise_models")
    }
    return {**settings, **found, **counts, "ensembles": [], "num_left_out": 0}


def read_earlier(evidence: Evidence) -> dict[str, Any]:
    """Return the result that is there, with all that it says of a measure in its details."""
    path = evidence.options.results / f"{evidence.name}.json"
    earlier = json.loads(path.read_text())
    figures = {row["quantity"]: row["measured"] for row in earlier["rows"]}
    for quantity, measured in figures.items():
        if quantity.startswith("LDS of") and quantity.endswith("of each half"):
            earlier["details"].setdefault("retrainings", {"lds": measured})
    return earlier


def put_into(earlier: Mapping[str, Any], measured: Measured) -> Measured:
    """Return what an earlier result has of each measure, with what was measured again."""
    details, date = earlier["details"], earlier["environment"]["date"][:10]
    merged = {
        measure: {**details[measure], **measured.get(measure, {})}
        for measure in ("lds", "detection")
    }
    if "retrainings" in details:
        merged["retrainings"] = details["retrainings"]
    if "leave one out" in details:
        merged["leave one out"] = {
            f"{label}, as of {date}" if label in measured["lds"] else label: row
            for label, row in details["leave one out"].items()
        }
    return merged


def tell_apart(path: Path, earlier: Mapping[str, Any], pattern: str) -> None:
    """Let a result say which of its entries are of which run."""
    result = json.loads(path.read_text())
    last = {name: result[name] for name in OF_A_RUN}
    last["command"] += f' --only "{pattern}"'
    first = {name: earlier[name] for name in OF_A_RUN}
    again = [*earlier.get("again", []), {"entries": pattern, **last}]
    path.write_text(json.dumps({**result, **first, "again": again}, indent=2) + "\n")
