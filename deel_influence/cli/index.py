"""The command ``deel-influence index``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .methods import Method, Takes
from .options import (
    BatchSizeOption,
    CurvatureOption,
    DampingOption,
    DataOption,
    IdOption,
    Ihvp,
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


class Dtype(str, Enum):
    """How the numbers of an index are kept."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


def index(
    model: ModelOption,
    data: DataOption,
    weights: WeightsOption = None,
    loss: LossOption = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method", help="What scores are; those that are products: influence, trak, grad-dot."
        ),
    ] = Method.influence,
    ihvp: OptionalIhvpOption = None,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    curvature: CurvatureOption = None,
    shard: ShardOption = None,
    num_shards: NumShardsOption = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="How numbers are kept.")] = Dtype.float16,
    self_scores: Annotated[
        bool, typer.Option(help="Whether scores of the examples for themselves are kept too.")
    ] = True,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the index; made if need be.")
    ] = Path("index"),
    label: LabelOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    text: TextOption = None,
    imports: ImportOption = None,
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Keep in a folder what scores for new queries need of a training set, or of a shard of it.

    Parts that are there are not computed again, so that the same command goes on where it was cut
    off. Shards are built into one folder. Without --ihvp and --curvature, influence takes logra,
    which keeps some hundred numbers for each example; others keep one for each watched weight.
    """
    set_up_logging(verbose)
    place = check_place(shard, num_shards)
    if ihvp is None and curvature is None and Takes.STRATEGY in method.takes:
        ihvp = Ihvp.logra
    metric = choose_metric(method, ihvp, damping, samples, curvature)
    settings = TriageSettings(metric, 1, out, seed, verbose, method)
    check_method_of_trained(method, weights)
    inputs = InputSettings(
        *(model, data, weights, loss, batch_size), label, id, text, imports or ()
    )
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .sharding import index_shard

    kept = {"dtype": dtype.value, "self_scores": self_scores}
    index_shard(inputs, settings, place, kept, Console())
