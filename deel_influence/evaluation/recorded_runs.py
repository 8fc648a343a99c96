"""Repeating a recorded run without some of its examples: the truth of unrolled influence."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import keras
import numpy as np

from ..unrolled.recorded_run import RecordedRun, retrain
from ..utils.digests import array_digest, settings_digest
from .positions import checked_positions


class RunRetraining:
    """Repeat a recorded run on some of the examples: ``(positions, seed) -> keras.Model``.

    The others have weight zero in every step, and all else is as it was: with it,
    `deel_influence.evaluation.retrain` finds what a linear datamodelling score *of this run*
    compares with. A seed has no part in it.

    Parameters
    ----------
    run
        What `record_fit` recorded.
    from_step
        From which step on the others have weight zero.

    Raises
    ------
    ValueError
        If the run has no such step.
    """

    def __init__(self, run: RecordedRun, from_step: int = 0) -> None:
        self.run = run
        self.from_step = run.checked_step(from_step)

    def __call__(self, positions: np.ndarray, seed: int = 0) -> keras.Model:  # noqa: ARG002
        """Return a new model, compiled with the loss, after the run on some of the examples.

        Parameters
        ----------
        positions
            Of the examples among those that were recorded, each once, int, shape ``(k,)``.
        seed
            Without effect: what is drawn is what the run drew.

        Raises
        ------
        NonFiniteError
            If the weights end as NaN or infinity.
        """
        return retrain(self.run, self._weights(positions), self.from_step)

    def in_place(self, positions: np.ndarray, seed: int = 0) -> keras.Model:  # noqa: ARG002
        """Return the same model object each time: measure it before the next call.

        Parameters
        ----------
        positions, seed
            As for a call.
        """
        state = self.run.state_after(self._weights(positions), self.from_step)
        return self.run.load(self._network, state)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the models depend on beside positions, as JSON can hold it."""
        return {
            "run": settings_digest(self.run.settings),
            "initial": array_digest(*(part.numpy() for part in self.run.checkpoints.read(0))),
            "from_step": self.from_step,
        }

    @cached_property
    def _network(self) -> keras.Model:
        return self.run.new_network()

    def _weights(self, positions: np.ndarray) -> np.ndarray:
        weights = np.zeros(self.run.num_examples)
        weights[checked_positions(positions, self.run.num_examples)] = 1.0
        return weights
