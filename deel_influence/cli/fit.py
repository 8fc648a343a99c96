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
    NumShardsOption,
    SamplesOption,
    SeedOption,
    ShardOption,
    TextOption,
    VerboseOption,
    WeightsOption,
)
from .settings import (
    InputSettings,
    check_file,
    check_new_file,
    check_place,
    choose_strategy,
    make_folder,
    progress_of,
)
from .startup import set_up_logging, start


def fit(
    model: ModelOption,
    data: DataOption,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The .npz file to write; one that is there is replaced. With --shard, the folder "
            "of the parts.",
        ),
    ],
    weights: WeightsOption = None,
    loss: LossOption = None,
    ihvp: IhvpOption = Ihvp.ekfac,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    shard: ShardOption = None,
    num_shards: NumShardsOption = None,
    sums: Annotated[
        list[Path] | None,
        typer.Option(
            "--sums",
            metavar="FILE",
            help="The sums of a stage that `deel-influence merge` put together; may be given "
            "several times, in order. Without --shard, the fit is made of them.",
        ),
    ] = None,
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
    weights, loss and watched layers, and is refused for any other. With --shard, what exact, kfac,
    ekfac and logra add up over a shard is kept instead; ekfac has two stages, of which the second
    needs the merged sums of the first.
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
    place = check_place(shard, num_shards)
    for path in sums or ():
        check_file("--sums", path)
    if shard is None:
        check_new_file(out)
    else:
        make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .fitting import fit_and_save
    from .loading import load_inputs
    from .sharding import sum_shard

    if shard is not None:
        sum_shard(inputs, settings, place, sums or (), out, seed, Console())
        return
    influence_model, source = load_inputs(inputs)
    fit_and_save(
        influence_model, source, settings, out, seed, progress_of(verbose), Console(), sums or ()
    )
