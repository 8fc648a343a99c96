"""Strategies by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from enum import Enum
from typing import Any

import tensorflow as tf

from ..curvature.dense import check_dense_memory
from ..errors import CurvatureSizeError, IgnoredArgumentWarning
from ..model.influence_model import BaseInfluenceModel
from ..utils.datasets import sample_examples
from .arnoldi import ArnoldiIHVP
from .astra import AstraIHVP
from .base import InverseHessianVectorProduct
from .conjugate_gradients import ConjugateGradientDescentIHVP
from .datainf import DataInfIHVP
from .ekfac import EKFACIHVP
from .exact import ExactIHVP
from .factories import InverseHessianVectorProductFactory
from .identity import IdentityIHVP
from .kfac import KFACIHVP
from .lissa import LissaIHVP
from .logra import LoGraIHVP
from .nystrom import NystromIHVP
from .woodbury import WoodburyIHVP

AUTO = "auto"
PRESETS: Mapping[str, tuple[type[InverseHessianVectorProduct], Mapping[str, Any]]] = {
    "ekfac_cg": (
        ConjugateGradientDescentIHVP,
        {"curvature": "gauss_newton", "preconditioner": "ekfac", "tolerance": 1e-3},
    ),
}
"""Names that stand for a strategy with some of its settings.

``"ekfac_cg"``: conjugate gradients on the Gauss-Newton matrix of all examples with EKFAC as their
preconditioner, the first step of which is the best multiple of EKFAC's own answer.
"""
EXACT_UP_TO = 3000
"""How many watched parameters ``"auto"`` inverts the Hessian of: a matter of seconds."""


class IHVPCalculator(Enum):
    """The strategies, by the names that `ihvp_calculator=` takes."""

    Exact = ExactIHVP
    Cgd = ConjugateGradientDescentIHVP
    Lissa = LissaIHVP
    Arnoldi = ArnoldiIHVP
    Nystrom = NystromIHVP
    Kfac = KFACIHVP
    Ekfac = EKFACIHVP
    DataInf = DataInfIHVP
    Woodbury = WoodburyIHVP
    Logra = LoGraIHVP
    Astra = AstraIHVP
    Identity = IdentityIHVP

    @staticmethod
    def from_string(ihvp_calculator: str) -> IHVPCalculator:
        """Return the strategy of that name.

        Raises
        ------
        ValueError
            If there is none.
        """
        for member in IHVPCalculator:
            if member.value.name == str(ihvp_calculator).lower():
                return member
        names = [AUTO, *(member.value.name for member in IHVPCalculator), *PRESETS]
        message = (
            f"Argument `ihvp_calculator` must be one of {names}, an IHVPCalculator or an "
            f"InverseHessianVectorProduct. Received: {ihvp_calculator!r}."
        )
        raise ValueError(message)


def strategy_named(name: str, model: BaseInfluenceModel) -> type[InverseHessianVectorProduct]:
    """Return the strategy of a name; ``"auto"`` chooses by the size of the model.

    It takes `ExactIHVP` for up to `EXACT_UP_TO` watched parameters, if the matrix fits in memory,
    and `EKFACIHVP` beyond.

    Raises
    ------
    ValueError
        If there is none.
    """
    if str(name).lower() != AUTO:
        return IHVPCalculator.from_string(name).value
    if model.nb_params > EXACT_UP_TO:
        return EKFACIHVP
    try:
        check_dense_memory(model)
    except CurvatureSizeError:
        return EKFACIHVP
    return ExactIHVP


def resolve_ihvp(
    ihvp_calculator: Any,
    model: BaseInfluenceModel,
    train_dataset: tf.data.Dataset,
    **settings: Any,
) -> InverseHessianVectorProduct:
    """Return a fitted strategy for a name, an `IHVPCalculator`, a class, a factory or a strategy.

    Names are those of `IHVPCalculator`, of `PRESETS`, and ``"auto"``; see `strategy_named`.

    Parameters
    ----------
    ihvp_calculator
        What the user passed.
    model, train_dataset
        What the strategy is fitted on, unless it is fitted already.
    settings
        Passed on to the strategies that take them. A factory is given a sample of the data where
        ``n_samples_for_hessian`` asks for one.

    Raises
    ------
    ValueError
        For an unknown name, a strategy fitted for another model, or a sample for a strategy that
        takes none.

    Warns
    -----
    IgnoredArgumentWarning
        If a sample is asked for beside a strategy that is fitted already.
    """
    preset: Mapping[str, Any] = {}
    if isinstance(ihvp_calculator, InverseHessianVectorProduct):
        _check_fitted(ihvp_calculator, model, settings)
        return ihvp_calculator
    if isinstance(ihvp_calculator, InverseHessianVectorProductFactory):
        size = settings.get("n_samples_for_hessian")
        if size is not None:
            train_dataset = sample_examples(train_dataset, size, settings.get("seed"))
        return ihvp_calculator.build(model, train_dataset)
    if isinstance(ihvp_calculator, IHVPCalculator):
        strategy = ihvp_calculator.value
    elif isinstance(ihvp_calculator, type) and issubclass(
        ihvp_calculator, InverseHessianVectorProduct
    ):
        strategy = ihvp_calculator
    elif str(ihvp_calculator).lower() in PRESETS:
        strategy, preset = PRESETS[str(ihvp_calculator).lower()]
    else:
        strategy = strategy_named(ihvp_calculator, model)
    taken = {name: value for name, value in settings.items() if name in strategy.settings}
    sampled = "n_samples_for_hessian" in strategy.settings
    if settings.get("n_samples_for_hessian") is not None and not sampled:
        message = (
            f"Argument `n_samples_for_hessian` has no effect on {strategy.__name__}, which takes "
            f"no sample. Received: {settings['n_samples_for_hessian']}. Leave it out."
        )
        raise ValueError(message)
    return strategy(model, train_dataset=train_dataset, **{**preset, **taken})


def _check_fitted(
    ihvp: InverseHessianVectorProduct, model: BaseInfluenceModel, settings: dict[str, Any]
) -> None:
    if ihvp.model is not model:
        message = (
            "Argument `ihvp_calculator` must be fitted on the same InfluenceModel as the "
            "calculator. Received: one of another model."
        )
        raise ValueError(message)
    if settings.get("n_samples_for_hessian") is not None:
        message = (
            "Argument `n_samples_for_hessian` has no effect beside a strategy that is fitted "
            f"already. Received: {settings['n_samples_for_hessian']} with an "
            f"{type(ihvp).__name__} object. Give it to that object instead."
        )
        warnings.warn(message, IgnoredArgumentWarning, stacklevel=4)
