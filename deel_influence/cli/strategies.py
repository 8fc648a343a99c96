"""Strategies as the commands make, load and describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.source import DataSource
from ..errors import SavedCurvatureError
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.exact import ExactIHVP
from ..ihvp.identity import IdentityIHVP
from ..ihvp.kronecker import KroneckerIHVP
from ..ihvp.low_rank import LowRankIHVP
from ..ihvp.registry import strategy_named
from ..model.influence_model import InfluenceModel
from .errors import CommandError
from .loading import named_read_errors
from .options import Ihvp
from .settings import StrategySettings, TriageSettings

_CURVATURES = {
    "hessian": "Hessian",
    "gauss_newton": "Gauss-Newton matrix",
    "fisher": "Fisher matrix",
    "empirical_fisher": "empirical Fisher matrix",
}


def make_strategy(
    model: InfluenceModel, source: DataSource, settings: TriageSettings
) -> InverseHessianVectorProduct | None:
    """Return the strategy that the options ask for, fitted here or loaded; None for none.

    Raises
    ------
    CommandError, DataSourceError
        As `fit_strategy` and `load_strategy`.
    """
    metric = settings.metric
    if metric is None:
        return None
    if isinstance(metric, Path):
        return load_strategy(model, source, metric)
    return fit_strategy(model, source, metric, settings.seed, settings.progress)


def fit_strategy(
    model: InfluenceModel,
    source: DataSource,
    settings: StrategySettings,
    seed: int,
    progress: int | str,
) -> InverseHessianVectorProduct:
    """Return a strategy fitted on a training set.

    Parameters
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set.
    settings
        The strategy.
    seed
        Fixes its random choices.
    progress
        How to show progress, as in Keras.

    Raises
    ------
    DataSourceError
        If the data cannot be read to their end.
    """
    strategy, taken = strategy_and_settings(model, settings, seed, progress)
    with named_read_errors(source):
        return strategy(model, train_dataset=source.dataset, **taken)


def strategy_and_settings(
    model: InfluenceModel, settings: StrategySettings, seed: int, progress: int | str
) -> tuple[Any, dict[str, Any]]:
    """Return the class of a strategy, and its arguments but for model and data.

    The arguments are those of `fit_strategy`.
    """
    strategy = strategy_named(settings.ihvp.value, model)
    arguments: dict[str, Any] = {
        **Ihvp[strategy.name].for_all,
        "n_samples_for_hessian": settings.samples,
        "seed": seed,
        "verbose": progress,
    }
    if settings.damping is not None:
        arguments["damping"] = settings.damping
    accepted = strategy.accepted_settings()
    return strategy, {name: value for name, value in arguments.items() if name in accepted}


def load_strategy(
    model: InfluenceModel, source: DataSource, path: Path
) -> InverseHessianVectorProduct:
    """Return the strategy that a file of ``--curvature`` holds.

    Parameters
    ----------
    model
        The model, with the weights, loss and watched layers of the fit.
    source
        The training set, over which some strategies go again.
    path
        The file.

    Raises
    ------
    CommandError, DataSourceError
        If the file is corrupt, or was fitted on another model, or the data cannot be read.
    """
    try:
        with named_read_errors(source):
            return InverseHessianVectorProduct.load(path, model, train_dataset=source.dataset)
    except SavedCurvatureError as error:
        message = (
            "--curvature must be a file that `deel-influence fit` wrote with the same --model, "
            f"--weights and --loss. {error}"
        )
        raise CommandError(message) from error


def metric_of(strategy: InverseHessianVectorProduct) -> str:
    """Return the metric of a strategy in words: curvature, method, damping."""
    if isinstance(strategy, IdentityIHVP):
        return "identity"
    config = strategy.get_config()
    words = Ihvp[strategy.name].metric.format(curvature=_curvature_of(config))
    parts = [words, f"damping {damping_of(strategy)}"]
    if config.get("n_samples_for_hessian") is not None:
        parts.append(f"from a sample of {config['n_samples_for_hessian']:,} examples")
    return ", ".join(parts)


def damping_of(strategy: InverseHessianVectorProduct) -> str:
    """Return the damping as it was asked for and, where a rule gave it, what came of the rule."""
    asked = strategy.get_config()["damping"]
    text = f"{asked:g}" if isinstance(asked, float) else str(asked)
    values = damping_values(strategy)
    if isinstance(asked, float) or values is None:
        return text
    return f"{text} ({_span(values)})"


def damping_values(strategy: InverseHessianVectorProduct) -> np.ndarray | None:
    """Return the dampings of layers or blocks, ``(layers,)``, where the strategy tells them."""
    if isinstance(strategy, KroneckerIHVP):
        return strategy.curvature.damping
    return getattr(strategy, "damping_values", None)


def eigenvalues_of(strategy: InverseHessianVectorProduct) -> str | None:
    """Return the smallest and the largest eigenvalue in words, where the fit gave eigenvalues."""
    if isinstance(strategy, ExactIHVP):
        return f"{_span(strategy.eigenvalues)}, damping included"
    if isinstance(strategy, LowRankIHVP):
        unit = "without damping" if strategy.is_evenly_damped else "in units of the damping"
        return f"{_span(strategy.eigenvalues)} of the {strategy.rank} kept, {unit}"
    if isinstance(strategy, KroneckerIHVP):
        values = [block.values.ravel() for block in strategy.curvature.blocks]
        return f"{_span(np.concatenate(values))}, without damping"
    return None


def _curvature_of(config: dict[str, Any]) -> str:
    if "curvature" in config:
        return _CURVATURES[config["curvature"]]
    # Those in Kronecker factors have a Fisher matrix, true or empirical.
    return _CURVATURES["empirical_fisher" if config.get("fisher") == "empirical" else "fisher"]


def _span(values: np.ndarray) -> str:
    smallest, largest = f"{values.min():.3g}", f"{values.max():.3g}"
    return smallest if smallest == largest else f"{smallest} to {largest}"
