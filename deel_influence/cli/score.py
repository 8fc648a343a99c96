"""The command ``deel-influence score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .methods import Method
from .options import (
    BatchSizeOption,
    CurvatureOption,
    DampingOption,
    DataOption,
    IdOption,
    ImportOption,
    LabelOption,
    LossOption,
    ModelOption,
    NumShardsOption,
    OptionalIhvpOption,
    SamplesOption,
    SeedOption,
    ShardOption,
    TextOption,
    VerboseOption,
    WeightsOption,
)
from .settings import (
    InputSettings,
    TriageSettings,
    check_method_of_trained,
    check_place,
    choose_metric,
    make_folder,
)
from .startup import set_up_logging, start


def score(
    model: ModelOption,
    data: DataOption,
    weights: WeightsOption = None,
    loss: LossOption = None,
    method: Annotated[
        Method, typer.Option("--method", help="How to score, as for triage.")
    ] = Method.influence,
    ihvp: OptionalIhvpOption = None,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    curvature: CurvatureOption = None,
    shard: ShardOption = None,
    num_shards: NumShardsOption = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the files; made if need be.")
    ] = Path("scores"),
    label: LabelOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    text: TextOption = None,
    imports: ImportOption = None,
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Score a training set, or a shard of it, and keep the scores in a file in OUT.

    A shard that is there, of the same data, weights and settings, is not computed again. With
    --shard, fit a strategy first, and pass it with --curvature: each shard would fit its own on
    all of the data. `deel-influence merge OUT` puts the shards together.
    """
    set_up_logging(verbose)
    place = check_place(shard, num_shards)
    metric = choose_metric(method, ihvp, damping, samples, curvature)
    settings = TriageSettings(metric, 1, out, seed, verbose, method)
    check_method_of_trained(method, weights)
    inputs = InputSettings(
        *(model, data, weights, loss, batch_size), label, id, text, imports or ()
    )
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .sharding import score_shard

    score_shard(inputs, settings, place, Console())
