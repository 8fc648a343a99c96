"""The command ``deel-influence demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .groups import StrategyOptions, in_groups
from .options import Method, MethodOption, OutOption, SeedOption, TopOption, VerboseOption
from .settings import TriageSettings, check_at_least_one, make_folder
from .startup import check_packages, start


@in_groups
def demo(
    *,
    fraction: Annotated[
        float, typer.Option("--fraction", help="Share of the labels to flip.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the data in training.")] = 30,
    method: MethodOption = None,
    metric: StrategyOptions,
    top: TopOption = 20,
    out: OutOption = Path("demo-report"),
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Flip labels of real digits, train a small network on them, and find the flipped ones.

    The same triage as `deel-influence triage`, which can be repeated on OUT/model.keras and
    OUT/digits.npz, but for methods that watch the training; and because the demonstration knows
    which labels it flipped, it also says how many of them were found.
    """
    asked = method or Method.influence
    settings = TriageSettings(metric.metric_of(asked), top, out, seed, verbose, asked)
    check_at_least_one("--epochs", epochs)
    check_packages("demo", jinja2="report", PIL="report", sklearn="demo")
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .demo_data import noisy_digits
    from .demo_run import run_demo

    options = metric.given if method is None else None
    run_demo(noisy_digits(fraction, seed), epochs, settings, Console(), options)
