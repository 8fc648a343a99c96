"""The command ``deel-influence fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import CommandError
from .options import (
    BatchSizeOption,
    DampingOption,
    DataOption,
    IdOption,
    Ihvp,
    IhvpOption,
    ImportOption,
    LabelOption,
    LossOption,
    ModelOption,
    SamplesOption,
    SeedOption,
    TextOption,
    VerboseOption,
    WeightsOption,
)
from .settings import (
    InputSettings,
    check_new_file,
    choose_strategy,
    progress_of,
)
from .startup import set_up_logging, start


def fit(
    model: ModelOption,
    data: DataOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="The .npz file to write; one that is there is replaced."
        ),
    ],
    weights: WeightsOption = None,
    loss: LossOption = None,
    ihvp: IhvpOption = Ihvp.ekfac,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    label: LabelOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    text: TextOption = None,
    imports: ImportOption = None,
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Fit a strategy once, and keep it in a file for `deel-influence triage --curvature FILE`.

    The file holds arrays and settings, and no code. It serves the same model, with the same
    weights, loss and watched layers, and is refused for any other.
    """
    set_up_logging(verbose)
    if ihvp is Ihvp.identity:
        message = (
            "--ihvp identity learns nothing from the data, so that there is nothing to fit. Use it "
            "without a file: deel-influence triage --ihvp identity."
        )
        raise CommandError(message)
    settings = choose_strategy(ihvp, damping, samples)
    inputs = InputSettings(
        *(model, data, weights, loss, batch_size), label, id, text, imports or ()
    )
    check_new_file(out)

    start(seed, verbose)
    from rich.console import Console

    from .fitting import fit_and_save
    from .loading import load_inputs

    influence_model, source = load_inputs(inputs)
    fit_and_save(influence_model, source, settings, out, seed, progress_of(verbose), Console())
