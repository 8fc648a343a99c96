"""What ``deel-influence evaluate`` is asked to do, checked before TensorFlow is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CommandError
from .methods import Method, Takes
from .options import Ihvp
from .settings import (
    StrategySettings,
    TriageSettings,
    check_at_least_one,
    check_factor,
    check_file,
    check_method_of_trained,
    choose_metric,
    choose_strategy,
    progress_of,
)

DEFAULT_L2 = 0.01

_MASK_SUFFIXES = (".txt", ".npy", ".npz")


@dataclass(frozen=True)
class EvaluationSettings:
    """What to judge, by what, and where to put the results.

    Attributes
    ----------
    calculators
        By name, how to score.
    truths
        Files of ground truths.
    leave_one_out
        How many examples to leave out, one by one; None for none.
    subsets
        How many halves of the data to train on; None for none.
    l2
        The penalty that was asked for; None leaves it to the layer, or else to the default.
    wrong_labels
        The file of known wrong labels.
    damping, samples
        As they were asked for.
    out
        Folder of the results.
    seed
        Seed of the random numbers.
    verbose
        Whether to show progress where no terminal is watching.
    """

    calculators: Mapping[str, TriageSettings]
    truths: Sequence[Path]
    leave_one_out: int | None
    subsets: int | None
    l2: float | None
    wrong_labels: Path | None
    damping: str | None
    samples: int | None
    out: Path
    seed: int
    verbose: bool

    @property
    def progress(self) -> int | str:
        """How to show progress, as in Keras."""
        return progress_of(self.verbose)

    @property
    def retrains(self) -> bool:
        """Whether the last layer is trained again here."""
        return self.leave_one_out is not None or self.subsets is not None


def choose_evaluation(
    *,
    methods: Sequence[Method],
    ihvps: Sequence[Ihvp] | None,
    damping: str | None,
    samples: int | None,
    truths: Sequence[Path],
    leave_one_out: int | None,
    subsets: int | None,
    l2: float | None,
    queries: str | None,
    wrong_labels: Path | None,
    weights: str | None,
    out: Path,
    seed: int,
    verbose: bool,
) -> EvaluationSettings:
    """Return what the options ask for.

    Raises
    ------
    CommandError
        If one of them cannot be used, or they leave nothing to compare with.
    """
    strategies = _strategies(methods, ihvps, damping, samples)
    some_watch = any(Takes.WEIGHTS in method.takes for method in methods)
    calculators = {}
    for method in methods:
        check_method_of_trained(method, None if some_watch else weights)
        for name, metric in _named(method, strategies):
            # How triage would score; the number of examples that it shows has no part here.
            calculators[name] = TriageSettings(metric, 1, out, seed, verbose, method)
    settings = EvaluationSettings(
        calculators=calculators,
        truths=truths,
        leave_one_out=leave_one_out,
        subsets=subsets,
        l2=l2,
        wrong_labels=wrong_labels,
        damping=damping,
        samples=samples,
        out=out,
        seed=seed,
        verbose=verbose,
    )
    _check_truths(settings, queries)
    if wrong_labels is not None:
        check_file("--wrong-labels", wrong_labels)
        if wrong_labels.suffix not in _MASK_SUFFIXES:
            message = (
                f"--wrong-labels must end in {', '.join(_MASK_SUFFIXES)}. "
                f"Received: {str(wrong_labels)!r}."
            )
            raise CommandError(message)
    return settings


def _strategies(
    methods: Sequence[Method],
    ihvps: Sequence[Ihvp] | None,
    damping: str | None,
    samples: int | None,
) -> list[StrategySettings]:
    """Return the strategies that methods with one are judged with, each once."""
    names = list(dict.fromkeys(ihvps or [Ihvp.exact]))
    if not any(Takes.STRATEGY in method.takes for method in methods):
        # Which refuses options that set up a strategy for nobody.
        choose_metric(methods[0], names[0] if ihvps else None, damping, samples)
        return []
    # Damping and samples are for the others then, and no mistake beside the identity.
    has_others = len(names) > 1
    return [
        choose_strategy(name)
        if has_others and name is Ihvp.identity
        else choose_strategy(name, damping, samples)
        for name in names
    ]


def _named(
    method: Method, strategies: Sequence[StrategySettings]
) -> list[tuple[str, StrategySettings | None]]:
    """Return the rows of a method: one for each strategy, or one where it takes none."""
    if Takes.STRATEGY not in method.takes:
        return [(method.value, None)]
    return [(f"{method.value} ({metric.ihvp.value})", metric) for metric in strategies]


def _check_truths(settings: EvaluationSettings, queries: str | None) -> None:
    if settings.leave_one_out is not None:
        check_at_least_one(
            "--leave-one-out", settings.leave_one_out, 2, ", to have something to compare"
        )
    if settings.subsets is not None:
        check_at_least_one("--subsets", settings.subsets, 2, ", to be put in order")
    _check_l2(settings)
    _check_files(settings)
    compares = bool(settings.truths) or settings.retrains
    if not compares and settings.wrong_labels is None:
        message = (
            "There must be something to compare with: --leave-one-out, --subsets, --truth or "
            "--wrong-labels. Received: none of them. To begin with: --leave-one-out 40."
        )
        raise CommandError(message)
    if compares and queries is None:
        message = (
            "--queries must name the examples whose losses retraining changes. Received: none. "
            "Pass a test set."
        )
        raise CommandError(message)


def _check_l2(settings: EvaluationSettings) -> None:
    if settings.l2 is None:
        return
    if not settings.retrains:
        message = (
            "--l2 belongs to --leave-one-out and --subsets, which train the last layer again. "
            f"Received: --l2 {settings.l2:g} without them. Leave it out."
        )
        raise CommandError(message)
    if not math.isfinite(settings.l2) or settings.l2 <= 0:
        message = f"--l2 must be finite and above 0. Received: {settings.l2:g}."
        raise CommandError(message)
    check_factor("--l2", settings.l2)


def _check_files(settings: EvaluationSettings) -> None:
    if settings.truths and settings.retrains:
        message = (
            "--truth is about the model of --model as it is, and --leave-one-out and --subsets "
            "train its last layer to the end first. Received: both. Leave one of them out."
        )
        raise CommandError(message)
    for path in settings.truths:
        check_file("--truth", path)
    names = [path.stem for path in settings.truths]
    if len(set(names)) < len(names):
        message = f"--truth must name files of different names. Received: {', '.join(names)}."
        raise CommandError(message)
