"""The command ``deel-influence demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DampingOption,
    Ihvp,
    IhvpOption,
    OutOption,
    SamplesOption,
    SeedOption,
    TopOption,
    VerboseOption,
)
from .settings import TriageSettings, check_at_least_one, choose_strategy, make_folder
from .startup import set_up_logging, start


def demo(
    fraction: Annotated[
        float, typer.Option("--fraction", help="Share of the labels to flip.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the data in training.")] = 30,
    ihvp: IhvpOption = Ihvp.exact,
    damping: DampingOption = None,
    samples: SamplesOption = None,
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
    set_up_logging(verbose)
    metric = choose_strategy(ihvp, damping, samples)
    settings = TriageSettings(metric, top, out, seed, verbose)
    check_at_least_one("--epochs", epochs)
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from ..datasets.sources import load_source
    from .demo_data import noisy_digits, save_for_triage
    from .demo_evidence import evidence_curve, evidence_table, gather_evidence
    from .demo_network import train_digits_network
    from .loading import watch
    from .scoring import describe_run, publish, score_source
    from .strategies import make_strategy

    digits = noisy_digits(fraction, seed)
    network = train_digits_network(
        digits.images, digits.labels, epochs, seed, show_progress=verbose or None
    )
    _, data_path = save_for_triage(digits, network, out)
    source = load_source(str(data_path))
    model = watch(network, weights=None, loss=None)
    strategy = make_strategy(model, source, settings)
    scores = score_source(model, source, strategy, settings.progress)
    evidence = gather_evidence(scores, digits.flipped)
    publish(
        scores,
        source,
        describe_run(scores, model, source, strategy, settings),
        settings,
        Console(),
        extra_tables=[evidence_table(evidence, digits.flipped)],
        curves=[evidence_curve(evidence)],
    )
