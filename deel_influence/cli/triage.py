"""The command ``deel-influence triage``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BatchSizeOption,
    DampingOption,
    Ihvp,
    IhvpOption,
    OutOption,
    SeedOption,
    TopOption,
    VerboseOption,
)
from .startup import make_folder, start


def triage(
    model: Annotated[Path, typer.Option("--model", help="The trained model, a .keras file.")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Its training set: tfds:NAME[:SPLIT], a .npz file with x and y, a folder of "
            "images (one sub-folder per class), or a saved tf.data dataset.",
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="LAYER[:LAYER]",
            help="Layer, or first and last layer, to look at. [default: the last with weights]",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="NAME",
            help="Keras loss of a model that was saved without one. [default: the model's own]",
        ),
    ] = None,
    ihvp: IhvpOption = Ihvp.exact,
    damping: DampingOption = None,
    top: TopOption = 20,
    out: OutOption = Path("triage"),
    batch_size: BatchSizeOption = 256,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Rank a training set by self-influence: wrong labels come first.

    Writes OUT/scores.parquet (one row per example) and the page OUT/report/index.html, and prints
    the most suspicious examples. Inputs reach the model as they are stored: if the model was
    trained on rescaled images, rescale them in the model or in the data.
    """
    start(seed, verbose)
    from rich.console import Console

    from ..datasets.sources import load_source
    from .loading import check_batch_size, image_shape, load_loss, load_model, watch
    from .scoring import TriageSettings, publish, score_source

    settings = TriageSettings(ihvp, damping, top, make_folder(out), seed, verbose)
    keras_model = load_model(model)
    influence_model = watch(keras_model, weights, load_loss(loss))
    source = load_source(data, check_batch_size(batch_size), image_shape(keras_model))
    scores = score_source(influence_model, source, settings)
    publish(scores, influence_model, source, settings, Console())
