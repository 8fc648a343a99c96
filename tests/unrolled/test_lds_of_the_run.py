"""Unrolled influence puts the repetitions of a smooth run into order."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from deel_influence.evaluation import (
    QueryOutputs,
    RunRetraining,
    linear_datamodelling_score,
    random_subsets,
    retrain,
)
from deel_influence.unrolled import UnrolledInfluenceCalculator, record_fit
from tests.unrolled.runs import arrays


def test_the_linear_datamodelling_score_of_a_smooth_run_is_near_one() -> None:
    n, queries = 60, arrays(4, 9)
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(6, activation="tanh")
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    run = record_fit(model, arrays(n, 0), epochs=6, batch_size=20, verbose=0)
    scores = UnrolledInfluenceCalculator(run).influence_matrix(queries, verbose=0)
    training, kept = RunRetraining(run), random_subsets(n, 12, fraction=0.9)
    truth = retrain(training, QueryOutputs(*queries), kept, verbose=0)
    assert linear_datamodelling_score(scores, kept, truth.outputs[0]).score > 0.9
    # A repetition with all of the examples is the run.
    assert np.allclose(truth.full_outputs[0], QueryOutputs(*queries)(model), rtol=1e-6)
    with pytest.raises(ValueError, match="positions"):
        training(np.array([n]))
