"""The command ``deel-influence triage``."""

from __future__ import annotations

from pathlib import Path

from .groups import Inputs, MetricOptions, in_groups
from .options import Method, MethodOption, OutOption, SeedOption, TopOption, VerboseOption
from .settings import TriageSettings, check_method_of_trained, make_folder
from .startup import check_packages, start


@in_groups
def triage(
    *,
    inputs: Inputs,
    method: MethodOption = None,
    metric: MetricOptions,
    top: TopOption = 20,
    out: OutOption = Path("triage"),
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Rank a training set by how suspicious its examples are: wrong labels come first.

    Writes OUT/scores.parquet and OUT/scores.csv (one row per example) and the page
    OUT/report/index.html, with label-issues also OUT/issues.parquet and OUT/issues.csv, and prints
    the most suspicious examples. Inputs reach the model as they
    are stored: if the model was trained on rescaled images, rescale them in the model or in the
    data.
    """
    asked = method or Method.influence
    settings = TriageSettings(metric.metric_of(asked), top, out, seed, verbose, asked)
    check_method_of_trained(asked, inputs.weights)
    check_packages("triage", jinja2="report", PIL="report")
    make_folder(out)

    start(seed, verbose)
    from rich.console import Console

    from .default_method import settle_method
    from .loading import load_inputs
    from .scoring import describe_run, make_calculator, publish, score_source

    influence_model, source = load_inputs(inputs)
    told = ""
    if method is None:
        given = {**metric.given, "weights": inputs.weights}
        settings, told = settle_method(settings, given, influence_model, source)
    calculator, strategy = make_calculator(influence_model, source, settings)
    found = score_source(influence_model, source, calculator, settings)
    summary = describe_run(found.triage, calculator.model, source, strategy, settings)
    publish(found, source, summary, settings, Console(), told)
