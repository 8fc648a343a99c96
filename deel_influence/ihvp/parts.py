"""Fits that are put together of parts, each over some of the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..curvature.sums import FitSums, PartialFit, StageReachedError
from ..gradients.passes import Pass
from ..model.influence_model import BaseInfluenceModel
from ..types import Data, IdFunction
from ..utils.takes_data import TakesData

SETTINGS_OF_THE_FINISH = ("damping", "query_rank", "rcond", "regularizer", "verbose")
"""Settings that the sums of a fit do not depend on: what is made of them may be tried out."""


class FitOfParts(TakesData):
    """What strategies that add up over the examples offer for training sets in shards."""

    fits_by_sums: ClassVar[bool] = False
    """Whether the fit is made of sums over the data, and so can be put together of parts."""

    @classmethod
    def sums(
        cls,
        model: BaseInfluenceModel,
        shard: Data,
        given: Sequence[FitSums] = (),
        id_fn: IdFunction | None = None,
        **settings: Any,
    ) -> FitSums:
        """Return what the next stage of a fit adds up over a part of the training set.

        Parts of other shards, in other processes, `FitSums.merge` to the sums over the whole, of
        which `finish` makes the strategy. ``EKFACIHVP`` has two stages, of which the second needs
        the merged sums of the first; others have one.

        Parameters
        ----------
        model
            The wrapped model.
        shard
            The part, batched.
        given
            The merged sums of the stages before.
        id_fn
            Reads ids ``(b,)`` off a batch: those that the examples have in the whole training
            set, on which random draws depend. None takes those that the data have, and else the
            positions.
        **settings
            Other arguments of the constructor, the same for all parts. The seed is 0 if not given.
            Damping, for one, matters to `finish` alone.

        Raises
        ------
        ValueError
            If the strategy has no such fit, or no stage is left.
        """
        verbose = settings.get("verbose", 0)
        data = Pass(shard, "shard", "Fit", id_fn, verbose=verbose, in_order=False, ahead=True)
        try:
            cls._of_parts(model, PartialFit(given, data), settings)
        except StageReachedError as reached:
            return reached.part
        message = f"Argument `given` holds all stages of {cls.__name__}. Call `finish` with them."
        raise ValueError(message)

    @classmethod
    def finish(cls, model: BaseInfluenceModel, parts: Sequence[FitSums], **settings: Any) -> Any:
        """Return the strategy that the merged sums of all stages give.

        Parameters
        ----------
        model
            The wrapped model.
        parts
            For each stage, in order, the sums over the whole training set; see `sums`.
        **settings
            As for `sums`.

        Raises
        ------
        ValueError
            If a stage is missing, or sums are of another fit.
        """
        return cls._of_parts(model, PartialFit(parts), settings)

    @classmethod
    def _of_parts(cls, model: Any, parts: PartialFit, settings: Mapping[str, Any]) -> Any:
        sampled = settings.get("n_samples_for_hessian") is not None
        if not cls.fits_by_sums or sampled:
            received = "`n_samples_for_hessian`" if sampled else f"{cls.__name__}"
            message = (
                "A fit of parts needs a strategy that adds up over all examples: ExactIHVP, "
                f"KFACIHVP, EKFACIHVP or LoGraIHVP. Received: {received}."
            )
            raise ValueError(message)
        strategy: Any = cls
        return strategy(model, parts, **settings)
