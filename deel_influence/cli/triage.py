"""The command ``deel-influence triage``."""

from __future__ import annotations

from pathlib import Path

from .options import (
    BatchSizeOption,
    CurvatureOption,
    DampingOption,
    DataOption,
    IdOption,
    ImportOption,
    LabelOption,
    LossOption,
    Method,
    MethodOption,
    ModelOption,
    OptionalIhvpOption,
    OutOption,
    SamplesOption,
    SeedOption,
    TextOption,
    TopOption,
    VerboseOption,
    WeightsOption,
)
from .settings import (
    InputSettings,
    TriageSettings,
    check_method_of_trained,
    choose_metric,
    make_folder,
)
from .startup import check_packages, set_up_logging, start


def triage(
    model: ModelOption,
    data: DataOption,
    weights: WeightsOption = None,
    loss: LossOption = None,
    method: MethodOption = None,
    ihvp: OptionalIhvpOption = None,
    damping: DampingOption = None,
    samples: SamplesOption = None,
    curvature: CurvatureOption = None,
    top: TopOption = 20,
    out: OutOption = Path("triage"),
    label: LabelOption = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    text: TextOption = None,
    imports: ImportOption = None,
    batch_size: BatchSizeOption = 256,
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
    set_up_logging(verbose)
    asked = method or Method.influence
    metric = choose_metric(asked, ihvp, damping, samples, curvature)
    settings = TriageSettings(metric, top, out, seed, verbose, asked)
    check_method_of_trained(asked, weights)
    inputs = InputSettings(
        *(model, data, weights, loss, batch_size), label, id, text, imports or ()
    )
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
        given = {"ihvp": ihvp, "damping": damping, "samples": samples, "curvature": curvature}
        given["weights"] = weights
        settings, told = settle_method(settings, given, influence_model, source)
    calculator, strategy = make_calculator(influence_model, source, settings)
    found = score_source(influence_model, source, calculator, settings)
    summary = describe_run(found.triage, calculator.model, source, strategy, settings)
    publish(found, source, summary, settings, Console(), told)
