"""The command ``deel-influence merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import VerboseOption
from .settings import check_new_file
from .startup import start


def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(help="Files of one kind, such as those of `score`, or folders of them."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The .npz file to write; one that is there is replaced."
        ),
    ],
    verbose: VerboseOption = False,
) -> None:
    """Put the parts of `score --shard`, or of `fit --shard`, together in one file.

    Shards that are missing, or there twice, are named. The file is what `Scores.load` or
    `FitSums.load` reads; sums go to `deel-influence fit --sums FILE`.
    """
    check_new_file(out)

    start(0, verbose)
    from rich.console import Console

    from .sharding import merge_parts

    merge_parts(parts, out, Console())
