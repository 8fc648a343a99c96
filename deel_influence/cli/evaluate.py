"""The command ``deel-influence evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .evaluation_settings import EvaluationSettings
from .groups import Inputs, in_groups
from .options import (
    DampingOption,
    Ihvp,
    Method,
    OutOption,
    SamplesOption,
    SeedOption,
    VerboseOption,
)
from .settings import make_folder
from .startup import check_packages, start


@in_groups
def evaluate(
    *,
    inputs: Inputs,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="SOURCE",
            help="The examples whose losses are looked at, such as a test set; a source as for "
            "--data. Needed to compare with retraining.",
        ),
    ] = None,
    method: Annotated[
        list[Method] | None,
        typer.Option(
            "--method",
            help="What to judge; may be given several times. As for triage, but for methods that "
            "watch the training. [default: influence]",
        ),
    ] = None,
    ihvp: Annotated[
        list[Ihvp] | None,
        typer.Option(
            "--ihvp",
            help="Metric of the methods that take one, as for triage; may be given several times. "
            "[default: exact]",
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="Losses of retrained models on the queries, as `GroundTruth.save` wrote them; may "
            "be given several times.",
        ),
    ] = None,
    leave_one_out: Annotated[
        int | None,
        typer.Option(
            "--leave-one-out",
            metavar="K",
            help="Train the last layer again without one example, for K of them: half those of the "
            "largest products of gradients with the queries, half at random.",
        ),
    ] = None,
    subsets: Annotated[
        int | None,
        typer.Option(
            "--subsets",
            metavar="S",
            help="Train the last layer again on random halves of the data, S of them.",
        ),
    ] = None,
    l2: Annotated[
        float | None,
        typer.Option(
            "--l2",
            metavar="NUMBER",
            help="What the last layer is trained with if it has no regulariser of its own: NUMBER "
            "times the sum of its kernel's squares. [default: 0.01]",
        ),
    ] = None,
    wrong_labels: Annotated[
        Path | None,
        typer.Option(
            "--wrong-labels",
            metavar="FILE",
            help="Which labels of --data are known to be wrong: a .txt file with the id of one on "
            "each line, or a .npy or .npz file with a mask (in the latter called mislabelled).",
        ),
    ] = None,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    out: OutOption = Path("evaluation"),
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Judge methods by what retraining gives, and by how soon they find known wrong labels.

    Writes OUT/table.csv, OUT/evaluation.json and the picture OUT/evaluation.png, and prints the
    tables. Finished retrainings and scores are kept in OUT: after an interruption, the same command
    goes on where it stopped.
    """
    settings = EvaluationSettings(
        methods=method or [Method.influence],
        ihvps=ihvp,
        damping=damping,
        samples=samples,
        truths=truth or [],
        leave_one_out=leave_one_out,
        subsets=subsets,
        l2=l2,
        queries=queries,
        wrong_labels=wrong_labels,
        weights=inputs.weights,
        out=out,
        seed=seed,
        verbose=verbose,
    )
    check_packages("evaluate", pandas="evaluation", matplotlib="evaluation")
    if settings.retrains:
        check_packages("evaluate", scipy="evaluation")
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .evaluation_run import run_evaluation
    from .loading import load_examples, load_inputs

    influence_model, source = load_inputs(inputs)
    query_source = (
        None
        if queries is None
        else load_examples(influence_model, inputs, queries, "--queries", source.class_names)
    )
    run_evaluation(influence_model, source, query_source, settings, Console())
