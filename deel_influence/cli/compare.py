"""The command ``deel-influence compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import CommandError
from .groups import Inputs
from .options import (
    BatchSizeOption,
    IdOption,
    ImportOption,
    LabelOption,
    LossOption,
    TextOption,
    TopOption,
    VerboseOption,
)
from .settings import check_at_least_one, check_file
from .startup import start

Run = Annotated[
    Path,
    typer.Argument(help="The folder that `triage` wrote, or its scores.parquet or issues.parquet."),
]
Model = Path | None


def compare(
    run_a: Run,
    run_b: Run,
    top: TopOption = 20,
    model_a: Annotated[
        Model, typer.Option("--model-a", metavar="FILE", help="The model before, a .keras file.")
    ] = None,
    model_b: Annotated[
        Model, typer.Option("--model-b", metavar="FILE", help="The one after.")
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            "--test", metavar="SOURCE", help="Examples to tell the accuracy of both models on."
        ),
    ] = None,
    loss: LossOption = None,
    label: LabelOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    text: TextOption = None,
    imports: ImportOption = None,
    batch_size: BatchSizeOption = 256,
    verbose: VerboseOption = False,
) -> None:
    """Tell what entered and what left the list of suspicious examples between two runs.

    Of runs by label-issues, what entered and left the labels that are taken to be wrong is told
    too. Examples are the same where their ids are. With --model-a, --model-b and --test, the
    accuracy of the two models is told as well.
    """
    check_at_least_one("--top", top)
    paths = [check_file("A run", _scores_of(run)) for run in (run_a, run_b)]
    models = [
        Inputs(model, test, None, loss, label, id, text, imports, batch_size)
        for model in _given(model_a, model_b, test)
        if test is not None
    ]

    start(0, verbose)
    from rich.console import Console

    from .comparing import print_accuracies, print_changes

    console = Console()
    print_changes(paths[0], paths[1], top, console)
    if models:
        print_accuracies(models[0], models[1], console)


def _scores_of(run: Path) -> Path:
    if not run.is_dir():
        return run
    issues = run / "issues.parquet"
    return issues if issues.is_file() else run / "scores.parquet"


def _given(model_a: Model, model_b: Model, test: str | None) -> list[Path]:
    """Return the two models; none where neither they nor a test set are given."""
    options = {"--model-a": model_a, "--model-b": model_b, "--test": test}
    missing = [name for name, value in options.items() if value is None]
    if missing and len(missing) < len(options):
        message = (
            "--model-a, --model-b and --test tell an accuracy together. Received: no "
            f"{' and no '.join(missing)}. Pass all three, or none."
        )
        raise CommandError(message)
    models = {"--model-a": model_a, "--model-b": model_b}
    return [check_file(name, path) for name, path in models.items() if path is not None]
