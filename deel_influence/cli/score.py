"""The command ``deel-influence score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .groups import Inputs, MetricOptions, ShardOptions, in_groups
from .methods import Method
from .options import SeedOption, VerboseOption
from .settings import TriageSettings, check_method_of_trained, make_folder
from .startup import start


@in_groups
def score(
    *,
    inputs: Inputs,
    method: Annotated[
        Method, typer.Option("--method", help="How to score, as for triage.")
    ] = Method.influence,
    metric: MetricOptions,
    part: ShardOptions,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the files; made if need be.")
    ] = Path("scores"),
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Score a training set, or a shard of it, and keep the scores in a file in OUT.

    A shard that is there, of the same data, weights and settings, is not computed again. With
    --shard, fit a strategy first, and pass it with --curvature: each shard would fit its own on
    all of the data. `deel-influence merge OUT` puts the shards together.
    """
    settings = TriageSettings(metric.metric_of(method), 1, out, seed, verbose, method)
    check_method_of_trained(method, inputs.weights)
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .sharding import score_shard

    score_shard(inputs, settings, part.place, Console())
