"""The options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Ihvp(str, Enum):
    """The strategies for the inverse Hessian that the commands offer."""

    exact = "exact"
    identity = "identity"


IhvpOption = Annotated[
    Ihvp,
    typer.Option(
        "--ihvp",
        help="How gradients are compared: in the metric of the exact inverse Hessian, or plainly.",
    ),
]
DampingOption = Annotated[
    float | None,
    typer.Option("--damping", help="Added to the Hessian's diagonal (with --ihvp exact)."),
]
TopOption = Annotated[int, typer.Option("--top", help="How many examples to show.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the results; made if need be.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of all random numbers.")
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", help="Examples in a batch.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Show TensorFlow's notes, and tracebacks of all errors.")
]
