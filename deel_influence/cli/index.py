"""The command ``deel-influence index``."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .groups import Inputs, MetricOptions, ShardOptions, in_groups
from .methods import Method, Takes
from .options import Ihvp, SeedOption, VerboseOption
from .settings import TriageSettings, check_method_of_trained, make_folder
from .startup import start


class Dtype(str, Enum):
    """How the numbers of an index are kept."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


@in_groups
def index(
    *,
    inputs: Inputs,
    method: Annotated[
        Method,
        typer.Option(
            "--method", help="What scores are; those that are products: influence, trak, grad-dot."
        ),
    ] = Method.influence,
    metric: MetricOptions,
    part: ShardOptions,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="How numbers are kept.")] = Dtype.float16,
    self_scores: Annotated[
        bool, typer.Option(help="Whether scores of the examples for themselves are kept too.")
    ] = True,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the index; made if need be.")
    ] = Path("index"),
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Keep in a folder what scores for new queries need of a training set, or of a shard of it.

    Parts that are there are not computed again, so that the same command goes on where it was cut
    off. Shards are built into one folder. Without --ihvp and --curvature, influence takes logra,
    which keeps some hundred numbers for each example; others keep one for each watched weight.
    """
    if metric.ihvp is None and metric.curvature is None and Takes.STRATEGY in method.takes:
        metric = replace(metric, ihvp=Ihvp.logra)
    settings = TriageSettings(metric.metric_of(method), 1, out, seed, verbose, method)
    check_method_of_trained(method, inputs.weights)
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .sharding import index_shard

    kept = {"dtype": dtype.value, "self_scores": self_scores}
    index_shard(inputs, settings, part.place, kept, Console())
