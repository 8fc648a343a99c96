"""The command ``deel-influence apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .apply_settings import ApplySettings
from .options import DataOption, IdOption, LabelOption, VerboseOption
from .startup import check_packages, start


def apply(
    data: DataOption,
    decisions: Annotated[
        Path,
        typer.Option(
            "--decisions",
            metavar="FILE",
            help="The .csv or .json file of decisions that the page of a run exported.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="CLEAN",
            help="Where the corrected data go, of the same kind as --data and apart from them. A "
            "file that is there is replaced; a folder must be new or empty.",
        ),
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Carry out only what is decided to be dropped.")
    ] = False,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Carry out only what gets another label.")
    ] = False,
    moves: Annotated[
        Path | None,
        typer.Option(
            "--moves",
            metavar="FILE",
            help="In place of --out, for a folder of images: a .json file that lists which files "
            "would move where.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="A .csv file of what changed. [default: beside CLEAN, with .changes.csv behind "
            "its name]",
        ),
    ] = None,
    label: LabelOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    verbose: VerboseOption = False,
) -> None:
    """Write a training set with the labels that were decided on, and without what was to go.

    The data themselves are never touched. Decisions that are about other data, or that name an
    example or a class that is not there, are refused whole. --drop and --relabel carry out one kind
    of decision; without them both are.
    """
    both = drop == relabel
    settings = ApplySettings(
        *(data, decisions, out, moves, log), drop or both, relabel or both, label, id
    )
    if settings.is_table:
        check_packages("apply", pandas="report")

    start(0, verbose)
    from rich.console import Console

    from .clean_copies import apply_to_source

    apply_to_source(settings, Console())
