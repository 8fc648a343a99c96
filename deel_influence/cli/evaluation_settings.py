"""What ``deel-influence evaluate`` is asked to do, checked before TensorFlow is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import CommandError
from .groups import StrategyOptions
from .methods import Method, Takes
from .options import Ihvp
from .settings import (
    StrategySettings,
    TriageSettings,
    check_at_least_one,
    check_factor,
    check_file,
    check_method_of_trained,
    choose_strategy,
    progress_of,
)

_MASK_SUFFIXES = (".txt", ".npy", ".npz")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What to judge, by what, and where to put the results.

    Attributes
    ----------
    methods, ihvps, damping, samples
        How to score: every method that takes a strategy with each of them.
    truths
        Files of ground truths.
    leave_one_out
        How many examples to leave out, one by one; None for none.
    subsets
        How many halves of the data to train on; None for none.
    l2
        The penalty that was asked for; None leaves it to the layer, or else to the default.
    queries, weights, out, seed, verbose
        The options of these names.
    wrong_labels
        The file of known wrong labels.
    """

    methods: Sequence[Method]
    ihvps: Sequence[Ihvp] | None
    damping: str | None
    samples: int | None
    truths: Sequence[Path]
    leave_one_out: int | None
    subsets: int | None
    l2: float | None
    queries: str | None
    wrong_labels: Path | None
    weights: str | None
    out: Path
    seed: int
    verbose: bool

    def __post_init__(self) -> None:
        """Refuse what cannot be used, and what leaves nothing to compare with."""
        _ = self.calculators
        some_watch = any(Takes.WEIGHTS in method.takes for method in self.methods)
        for method in self.methods:
            check_method_of_trained(method, None if some_watch else self.weights)
        _check_truths(self)
        if self.wrong_labels is not None:
            check_file("--wrong-labels", self.wrong_labels)
            if self.wrong_labels.suffix not in _MASK_SUFFIXES:
                message = (
                    f"--wrong-labels must end in {', '.join(_MASK_SUFFIXES)}. "
                    f"Received: {str(self.wrong_labels)!r}."
                )
                raise CommandError(message)

    @cached_property
    def calculators(self) -> dict[str, TriageSettings]:
        """By name, how to score: as triage would, with each strategy where the method takes one."""
        strategies = _strategies(self.methods, self.ihvps, self.damping, self.samples)
        rows: dict[str, tuple[Method, StrategySettings | None]] = {}
        for method in self.methods:
            if Takes.STRATEGY in method.takes:
                rows |= {f"{method.value} ({one.ihvp.value})": (method, one) for one in strategies}
            else:
                rows[method.value] = (method, None)
        return {
            # The number of examples that triage shows has no part here.
            name: TriageSettings(metric, 1, self.out, self.seed, self.verbose, method)
            for name, (method, metric) in rows.items()
        }

    @property
    def progress(self) -> int | str:
        """How to show progress, as in Keras."""
        return progress_of(self.verbose)

    @property
    def retrains(self) -> bool:
        """Whether the last layer is trained again here."""
        return self.leave_one_out is not None or self.subsets is not None


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
        StrategyOptions(names[0] if ihvps else None, damping, samples).metric_of(methods[0])
        return []
    # Damping and samples are for the others then, and no mistake beside the identity.
    has_others = len(names) > 1
    return [
        choose_strategy(name)
        if has_others and name is Ihvp.identity
        else choose_strategy(name, damping, samples)
        for name in names
    ]


def _check_truths(settings: EvaluationSettings) -> None:
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
    if compares and settings.queries is None:
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
