"""The demonstration as a function: train, score, and say how many flipped labels were found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from ..datasets.sources import load_source
from .default_method import settle_method
from .demo_data import NoisyDigits, save_for_triage
from .demo_evidence import evidence_curve, evidence_table, gather_evidence
from .demo_network import train_digits_network
from .loading import watch
from .methods import recorders_for
from .scoring import describe_run, make_calculator, publish, score_source
from .settings import TriageSettings


def run_demo(
    digits: NoisyDigits,
    epochs: int,
    settings: TriageSettings,
    console: Console,
    options: Mapping[str, object] | None = None,
) -> None:
    """Train a network on the digits, score them by a method, and publish what was found.

    Parameters
    ----------
    digits
        The digits, some with a wrong label.
    epochs
        Passes over the data in training.
    settings
        How to score, and where to put the results.
    console
        Where to print.
    options
        The options that belong to influence, where `settle_method` is to choose the method.
    """
    # What recorders write belongs to this training alone, and is of no use after it.
    with TemporaryDirectory() as folder:
        recorders = recorders_for(settings.method, Path(folder), epochs)
        network = train_digits_network(
            digits.images,
            digits.labels,
            epochs,
            settings.seed,
            show_progress=settings.verbose or None,
            callbacks=list(recorders.values()),
        )
        _, data_path = save_for_triage(digits, network, settings.out)
        source = load_source(str(data_path))
        model = watch(network, weights=None, loss=None)
        told = ""
        if options is not None:
            settings, told = settle_method(settings, options, model, source)
        calculator, strategy = make_calculator(model, source, settings, recorders)
        found = score_source(model, source, calculator, settings)
    evidence = gather_evidence(found.triage, digits.flipped, settings.method.value)
    publish(
        found,
        source,
        describe_run(found.triage, calculator.model, source, strategy, settings),
        settings,
        console,
        told,
        extra_tables=[evidence_table(evidence, digits.flipped)],
        curves=[evidence_curve(evidence)],
    )
