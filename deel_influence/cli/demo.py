"""The command ``deel-influence demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import CommandError
from .options import (
    DampingOption,
    Ihvp,
    IhvpOption,
    OutOption,
    SeedOption,
    TopOption,
    VerboseOption,
)
from .startup import make_folder, start


def demo(
    fraction: Annotated[
        float, typer.Option("--fraction", help="Share of the labels to flip.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the data in training.")] = 30,
    ihvp: IhvpOption = Ihvp.exact,
    damping: DampingOption = None,
    top: TopOption = 20,
    out: OutOption = Path("demo-report"),
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Flip labels of real digits, train a small network on them, and find the flipped ones.

    The same triage as `deel-influence triage`, which can be repeated on OUT/model.keras and
    OUT/digits.npz; and because the demonstration knows which labels it flipped, it also says how
    many of them were found.
    """
    start(seed, verbose)
    from rich.console import Console

    from ..datasets.sources import load_source
    from .demo_data import noisy_digits, save_for_triage
    from .demo_evidence import evidence_curve, evidence_table, gather_evidence
    from .demo_network import train_digits_network
    from .loading import watch
    from .scoring import TriageSettings, publish, score_source

    settings = TriageSettings(ihvp, damping, top, make_folder(out), seed, verbose)
    if epochs < 1:
        message = f"--epochs must be at least 1. Received: {epochs}."
        raise CommandError(message)
    digits = noisy_digits(fraction, seed)
    network = train_digits_network(
        digits.images, digits.labels, epochs, seed, show_progress=verbose or None
    )
    _, data_path = save_for_triage(digits, network, out)
    source = load_source(str(data_path))
    model = watch(network, weights=None, loss=None)
    scores = score_source(model, source, settings)
    evidence = gather_evidence(scores, digits.flipped)
    publish(
        scores,
        model,
        source,
        settings,
        Console(),
        extra_tables=[evidence_table(evidence, digits.flipped)],
        curves=[evidence_curve(evidence)],
    )
