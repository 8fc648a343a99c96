"""The factories of Influenciae: settings now, model and data later."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.takes_data import TakesData
from .base import InverseHessianVectorProduct
from .conjugate_gradients import ConjugateGradientDescentIHVP
from .exact import ExactIHVP
from .lissa import LissaIHVP


class InverseHessianVectorProductFactory(TakesData, ABC):
    """Makes strategies of one kind.

    Parameters
    ----------
    settings
        The arguments of the strategy beside model and data.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    @abstractmethod
    def build(
        self, model_influence: BaseInfluenceModel, dataset: Data
    ) -> InverseHessianVectorProduct:
        """Return a strategy fitted on a dataset. To be implemented by subclasses."""


class ExactIHVPFactory(InverseHessianVectorProductFactory):
    """Makes `ExactIHVP` objects; takes its settings."""

    def build(
        self, model_influence: BaseInfluenceModel, dataset: Data
    ) -> InverseHessianVectorProduct:
        return ExactIHVP(model_influence, dataset, **self._settings)


class CGDIHVPFactory(InverseHessianVectorProductFactory):
    """Makes `ConjugateGradientDescentIHVP` objects.

    Parameters
    ----------
    feature_extractor, extractor_layer
        Without effect: the frozen part of the model is found without being named.
    n_cgd_iters
        Steps of each solve; see `ConjugateGradientDescentIHVP`, as for its default.
    settings
        Its other arguments.
    """

    def __init__(
        self,
        feature_extractor: Any = -1,  # noqa: ARG002 - kept for users of Influenciae
        n_cgd_iters: int | None = None,
        extractor_layer: Any = None,  # noqa: ARG002 - kept for users of Influenciae
        **settings: Any,
    ) -> None:
        super().__init__(n_opt_iters=n_cgd_iters, **settings)

    def build(
        self, model_influence: BaseInfluenceModel, dataset: Data
    ) -> InverseHessianVectorProduct:
        return ConjugateGradientDescentIHVP(
            model_influence, train_dataset=dataset, **self._settings
        )


class LissaIHVPFactory(InverseHessianVectorProductFactory):
    """Makes `LissaIHVP` objects.

    Parameters
    ----------
    feature_extractor, extractor_layer
        Without effect: the frozen part of the model is found without being named.
    n_cgd_iters
        Steps of each solve; see `LissaIHVP`, as for its default.
    damping, scale
        As for `LissaIHVP`, and with its defaults, which are not those of Influenciae.
    settings
        Its other arguments.
    """

    def __init__(
        self,
        feature_extractor: Any = -1,  # noqa: ARG002 - kept for users of Influenciae
        n_cgd_iters: int | None = None,
        extractor_layer: Any = None,  # noqa: ARG002 - kept for users of Influenciae
        damping: Any = "auto",
        scale: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(n_opt_iters=n_cgd_iters, damping=damping, scale=scale, **settings)

    def build(
        self, model_influence: BaseInfluenceModel, dataset: Data
    ) -> InverseHessianVectorProduct:
        return LissaIHVP(model_influence, train_dataset=dataset, **self._settings)
