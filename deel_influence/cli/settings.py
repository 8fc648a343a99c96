"""What the commands are asked to do, checked before TensorFlow is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .errors import CommandError
from .methods import Method, Takes
from .options import Ihvp

AUTO = "auto"

FITTED_SUFFIX = ".npz"
# Counts beyond do not fit into TensorFlow's shapes, factors beyond not into single precision.
_MOST = 2**31 - 1
_SMALLEST, _LARGEST = 1e-30, 1e30


@dataclass(frozen=True)
class StrategySettings:
    """A strategy to be fitted.

    Attributes
    ----------
    ihvp
        Its name.
    damping
        A number, ``"auto"``, or None for what the class of the strategy takes by default.
    samples
        How many examples to draw for the Hessian; None takes all.
    """

    ihvp: Ihvp
    damping: float | str | None = None
    samples: int | None = None


@dataclass(frozen=True)
class TriageSettings:
    """How to score, and where to put the results.

    Attributes
    ----------
    metric
        The strategy in whose metric gradients are compared, or the file of a fitted one; None
        where the method has none.
    top
        How many examples to show.
    out
        Folder of the results.
    seed
        Seed of the random numbers.
    verbose
        Whether to show progress where no terminal is watching.
    method
        How to score.
    """

    metric: StrategySettings | Path | None
    top: int
    out: Path
    seed: int
    verbose: bool = False
    method: Method = Method.influence

    @property
    def progress(self) -> int | str:
        """How to show progress, as in Keras."""
        return progress_of(self.verbose)

    def __post_init__(self) -> None:
        """Refuse a number of examples that nothing can show."""
        check_at_least_one("--top", self.top)


def progress_of(verbose: bool) -> int | str:
    """Return Keras's word for progress bars: always with ``--verbose``, else on a terminal."""
    return 1 if verbose else "auto"


def choose_strategy(
    ihvp: Ihvp, damping: str | None = None, samples: int | None = None
) -> StrategySettings:
    """Return the strategy that ``--ihvp``, ``--damping`` and ``--samples`` ask for.

    Raises
    ------
    CommandError
        If one of them cannot be used, or is of no use to the strategy.
    """
    if ihvp is Ihvp.identity:
        check_left_out(
            {"damping": damping, "samples": samples},
            "belongs to a Hessian, and --ihvp identity has none",
            "--ihvp identity",
        )
        return StrategySettings(ihvp)
    if samples is not None:
        check_at_least_one("--samples", samples)
    value = None if damping is None else _parse_damping(damping, ihvp)
    return StrategySettings(ihvp, value, samples)


def check_method_of_trained(method: Method, weights: str | None) -> None:
    """Refuse a method that a trained model is not enough for, and weights that it has no use for.

    Raises
    ------
    CommandError
        Says what can be done.
    """
    if method.recorders:
        message = (
            "--method must be one that a trained model is enough for. Received: "
            f"{method.value}, which reads what its callback records during `fit`. Use it from "
            "Python, or choose another."
        )
        raise CommandError(message)
    if Takes.WEIGHTS not in method.takes:
        check_left_out(
            {"weights": weights},
            f"has no effect on --method {method.value}",
            f"--method {method.value}",
        )


def check_file(option: str, path: Path) -> Path:
    """Return ``path`` if it is a file.

    Raises
    ------
    CommandError
        If it is not.
    """
    if path.is_file():
        return path
    what = "is a folder" if path.is_dir() else "does not exist"
    message = f"{option} must be a file. Received: {str(path)!r}, which {what}."
    raise CommandError(message)


def check_model_file(path: Path) -> Path:
    """Return ``path`` if ``--model`` may name a file so.

    Raises
    ------
    CommandError
        If it is missing, or of another format.
    """
    check_file("--model", path)
    if path.suffix != ".keras":
        # Safe mode is a promise for this format alone.
        message = (
            f"--model must be a `.keras` file. Received: {str(path)!r}. "
            'Save the model with model.save("model.keras").'
        )
        raise CommandError(message)
    return path


def check_new_file(path: Path, option: str = "--out", suffix: str = FITTED_SUFFIX) -> Path:
    """Return ``path`` if an option may name a file to be written so; make its folder.

    Raises
    ------
    CommandError
        If it is a folder, has another suffix, or lies where no folder can be made.
    """
    check_suffix(option, path, suffix)
    if path.is_dir():
        message = f"{option} must be a file. Received: {str(path)!r}, which is a folder."
        raise CommandError(message)
    make_folder(path.parent, f"{option} must lie in a folder that can be written")
    return path


def make_folder(path: Path, rule: str = "--out must be a folder that can be written") -> Path:
    """Return ``path``, made if it is missing.

    Raises
    ------
    CommandError
        If it is a file, or cannot be made; ``rule`` says what it must be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{rule}. Received: {str(path)!r}, which fails with: {error.strerror}."
        raise CommandError(message) from error
    return path


def check_at_least_one(option: str, value: int, least: int = 1, reason: str = "") -> int:
    """Return ``value`` if it is a count that can be: at least 1, or another ``least``.

    Raises
    ------
    CommandError
        If it is not; ``reason`` says why.
    """
    if value < least:
        message = f"{option} must be at least {least}{reason}. Received: {value}."
        raise CommandError(message)
    if value > _MOST:
        message = f"{option} must be at most {_MOST}. Received: {value}. Pass a smaller number."
        raise CommandError(message)
    return value


def check_factor(option: str, value: float) -> float:
    """Return ``value`` if single precision can hold it, and what is computed with it.

    Raises
    ------
    CommandError
        If it is not 0 and too small or too large.
    """
    if value and not _SMALLEST <= value <= _LARGEST:
        message = (
            f"{option} must lie between {_SMALLEST:g} and {_LARGEST:g} where it is not 0. "
            f"Received: {value:g}. Numbers beyond are no part of the results."
        )
        raise CommandError(message)
    return value


def check_left_out(given: Mapping[str, object], reason: str, beside: str) -> None:
    """Refuse options, given as names and values, beside another that makes them meaningless."""
    for option, value in given.items():
        if value is not None:
            flag, shown = f"--{option}", value.value if isinstance(value, Enum) else value
            message = f"{flag} {reason}. Received: {flag} {shown} {beside}. Leave one of them out."
            raise CommandError(message)


def check_suffix(option: str, path: Path, suffix: str = FITTED_SUFFIX) -> None:
    """Refuse a file whose name ends in something else."""
    if path.suffix != suffix:
        message = f"{option} must end in {suffix}. Received: {str(path)!r}."
        raise CommandError(message)


def _parse_damping(text: str, ihvp: Ihvp) -> float | str:
    if text == AUTO:
        return AUTO
    value = _number(text)
    if not math.isfinite(value) or value < 0:
        message = f"--damping must be auto, or finite and not negative. Received: {text}."
        raise CommandError(message)
    check_factor("--damping", value)
    if value == 0 and ihvp.divides_by_damping:
        message = (
            f"--damping must be auto or above 0 with --ihvp {ihvp.value}, which divides by it. "
            f"Received: {text}."
        )
        raise CommandError(message)
    return value


def _number(text: str) -> float:
    """Return the number that ``text`` spells, or NaN, which no rule admits."""
    try:
        return float(text)
    except ValueError:
        return math.nan
