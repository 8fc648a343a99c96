"""The command ``deel-influence fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import CommandError
from .groups import Inputs, ShardOptions, in_groups
from .options import DampingOption, Ihvp, IhvpOption, SamplesOption, SeedOption, VerboseOption
from .settings import check_file, check_new_file, choose_strategy, make_folder, progress_of
from .startup import start


@in_groups
def fit(
    *,
    inputs: Inputs,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The .npz file to write; one that is there is replaced. With --shard, the folder "
            "of the parts.",
        ),
    ],
    ihvp: IhvpOption = Ihvp.ekfac,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    part: ShardOptions,
    sums: Annotated[
        list[Path] | None,
        typer.Option(
            "--sums",
            metavar="FILE",
            help="The sums of a stage that `deel-influence merge` put together; may be given "
            "several times, in order. Without --shard, the fit is made of them.",
        ),
    ] = None,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Fit a strategy once, and keep it in a file for `deel-influence triage --curvature FILE`.

    The file holds arrays and settings, and no code. It serves the same model, with the same
    weights, loss and watched layers, and is refused for any other. With --shard, what exact, kfac,
    ekfac and logra add up over a shard is kept instead; ekfac has two stages, of which the second
    needs the merged sums of the first.
    """
    if ihvp is Ihvp.identity:
        message = (
            "--ihvp identity learns nothing from the data, so that there is nothing to fit. Use it "
            "without a file: deel-influence triage --ihvp identity."
        )
        raise CommandError(message)
    settings = choose_strategy(ihvp, damping, samples)
    for path in sums or ():
        check_file("--sums", path)
    if part.shard is None:
        check_new_file(out)
    else:
        make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .fitting import fit_and_save
    from .loading import load_inputs
    from .sharding import sum_shard

    if part.shard is not None:
        sum_shard(inputs, settings, part.place, sums or (), out, seed, Console())
        return
    influence_model, source = load_inputs(inputs)
    fit_and_save(
        influence_model, source, settings, out, seed, progress_of(verbose), Console(), sums or ()
    )
