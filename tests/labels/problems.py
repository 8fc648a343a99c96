"""A small network on three clouds of points, some of whose labels are wrong, and a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import keras
import numpy as np

from deel_influence.labels import LabelIssues
from deel_influence.model import BaseInfluenceModel
from deel_influence.training_dynamics import RecordedDynamics, TrainingDynamics

N, CLASSES = 90, 3
HOSTILE = ("=1+1", "<script>alert(1)</script>", "\x1b[2Jcat")


@dataclass(frozen=True)
class Problem:
    x: np.ndarray
    y: np.ndarray
    wrong: np.ndarray
    true: np.ndarray
    model: BaseInfluenceModel
    record: RecordedDynamics


def build() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(CLASSES)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), loss)
    return model


def clouds() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    classes = np.arange(N) % CLASSES
    centres = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return (centres[classes] + generator.normal(size=(N, 2)) * 0.6).astype("float32"), classes


@cache
def problem() -> Problem:
    x, true = clouds()
    wrong = np.zeros(N, bool)
    wrong[[3, 17, 40, 66, 71, 88]] = True
    y = np.where(wrong, (true + 1) % CLASSES, true)
    keras.utils.set_random_seed(0)
    model, dynamics = build(), TrainingDynamics()
    model.fit(x, y, epochs=12, batch_size=16, verbose=0, callbacks=[dynamics])
    return Problem(x, y, wrong, true, BaseInfluenceModel(model), dynamics.recorded)


def issues(ids=(4, 2, 9), names=("cat", "dog", "cow"), suspicion=(0.1, 0.9, 0.5)) -> LabelIssues:
    n = len(ids)
    return LabelIssues(
        ids=np.array(ids),
        labels=np.arange(n) % 3,
        suggested=(np.arange(n) + 1) % 3,
        given_probability=np.linspace(0.1, 0.3, n),
        suggested_probability=np.linspace(0.6, 0.8, n),
        suspicion=np.array(suspicion),
        is_issue=np.array(suspicion) > 0.6,
        outlier_score=np.linspace(0.2, 0.9, n),
        duplicate_of=np.array([None, ids[2], ids[1]], object),
        neighbours=np.array([[ids[1], ids[2]], [ids[2], ids[0]], [ids[1], ids[0]]]),
        signals={"head": np.arange(n) * 2.0, "neighbours": np.arange(n) / 3},
        class_names=names,
        estimated_number=1,
        interval=(0, 2),
    )
