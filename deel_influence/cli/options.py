"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from .methods import Choice, Method
from .startup import set_up_logging


class Ihvp(Choice):
    """The strategies for the inverse Hessian, by the names of `IHVPCalculator`, and a choice.

    Listed again here, because that enumeration brings TensorFlow with it.

    Parameters
    ----------
    name
        On the command line.
    metric
        In which metric gradients are compared, in words.
    divides_by_damping
        Whether the damping cannot be 0.
    for_all
        What the strategy takes where it solves for every example of the training set. Its own
        defaults are for the solves of a few queries. Here the order of the examples matters and
        not the last digits, and a wider block takes fewer products for each example.
    """

    def __init__(
        self,
        name: str,
        metric: str,
        divides_by_damping: bool = False,
        for_all: Mapping[str, float] | None = None,
    ) -> None:
        self.metric, self.divides_by_damping = metric, divides_by_damping
        self.for_all = for_all or {}

    auto = ("auto", "")
    exact = ("exact", "exact inverse {curvature}")
    cgd = (
        "cgd",
        "inverse {curvature} by conjugate gradients",
        False,
        {"tolerance": 0.01, "block_size": 256},
    )
    lissa = ("lissa", "inverse {curvature} by LiSSA", False, {"tolerance": 0.2})
    arnoldi = ("arnoldi", "inverse {curvature} by Arnoldi's method")
    nystrom = ("nystrom", "inverse {curvature} by a Nyström sketch")
    kfac = ("kfac", "inverse {curvature} by KFAC")
    ekfac = ("ekfac", "inverse {curvature} by EKFAC")
    datainf = ("datainf", "inverse empirical Fisher matrix by DataInf", True)
    woodbury = ("woodbury", "exact inverse Gauss-Newton matrix by Woodbury's identity", True)
    logra = ("logra", "inverse {curvature} within a random projection")
    astra = ("astra", "inverse {curvature} by ASTRA", False, {"tolerance": 0.1})
    identity = ("identity", "identity")


_IHVP_HELP = (
    "How gradients are compared: in the metric of an inverse Hessian, by one of these strategies, "
    "or plainly (identity). auto takes exact for up to 3,000 watched parameters, and ekfac beyond. "
    "cgd, lissa, astra and datainf go over the data again for every batch "
    "of examples, the others only once."
)

ModelOption = Annotated[Path, typer.Option("--model", help="The trained model, a .keras file.")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Its training set: tfds:NAME[:SPLIT], a .npz file with x and y, a .csv or .parquet "
        "table, a folder of images (one sub-folder per class), or a saved tf.data dataset.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="LAYER[:LAYER]",
        help="Layer, or first and last layer, to look at. [default: the last with weights]",
    ),
]
LossOption = Annotated[
    str | None,
    typer.Option(
        "--loss",
        metavar="NAME",
        help="Keras loss of a model that was saved without one. [default: the model's own]",
    ),
]
IhvpOption = Annotated[Ihvp, typer.Option("--ihvp", help=_IHVP_HELP)]
MethodOption = Annotated[
    Method | None,
    typer.Option(
        "--method",
        help="How to score. label-issues finds wrong labels best; "
        "influence, relatif and representer-lje compare gradients in the metric "
        "of --ihvp; aum, forgetting, el2n, tracin and tracin-fast watch the training itself; "
        "--weights matters to those that take gradients of chosen layers. [default: label-issues "
        "where the labels are classes, else influence]",
    ),
]
OptionalIhvpOption = Annotated[
    Ihvp | None, typer.Option("--ihvp", help=f"{_IHVP_HELP} [default: auto]")
]
DampingOption = Annotated[
    str | None,
    typer.Option(
        "--damping",
        metavar="NUMBER|auto",
        help="Added to the Hessian's diagonal; auto derives it from the eigenvalues. "
        "[default: 0 with exact and arnoldi, else auto]",
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        help="Draw this many examples for the Hessian. [default: all]",
    ),
]
CurvatureOption = Annotated[
    Path | None,
    typer.Option(
        "--curvature",
        metavar="FILE",
        help="A strategy that `deel-influence fit` wrote, in place of --ihvp, --damping and "
        "--samples.",
    ),
]
ShardOption = Annotated[
    int | None,
    typer.Option(
        "--shard",
        metavar="I",
        help="Which shard of the data to compute, from 0; each has whole batches. [default: all]",
    ),
]
NumShardsOption = Annotated[
    int | None,
    typer.Option("--num-shards", metavar="N", help="Of how many shards, the same for all."),
]
TopOption = Annotated[int, typer.Option("--top", help="How many examples to show.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the results; made if need be.")]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of all random numbers.")
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="COLUMN", help="The labels in a CSV or Parquet file. [default: label]"
    ),
]
IdOption = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="COLUMN",
        help="What examples are called, in a CSV or Parquet file. [default: id, or row numbers]",
    ),
]
TextOption = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="COLUMN",
        help="The texts that the model takes, in a CSV or Parquet file. [default: all columns but "
        "label and id are inputs]",
    ),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="A Python module, or .py file, with the layers and losses of your own that the model "
        "has; its code is run. May be given several times.",
    ),
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", help="Examples in a batch.")]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=set_up_logging,
        is_eager=True,
        help="Show TensorFlow's notes, and tracebacks of all errors.",
    ),
]
