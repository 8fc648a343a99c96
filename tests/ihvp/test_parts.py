"""Fits that are put together of parts equal those of one pass over everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import Scores
from deel_influence.curvature.sums import FitSums
from deel_influence.errors import DataSourceError
from deel_influence.ihvp import (
    EKFACIHVP,
    KFACIHVP,
    ExactIHVP,
    InverseHessianVectorProduct,
    LoGraIHVP,
    NystromIHVP,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel

N = 23
HERE = Path(__file__).resolve().parents[2]


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(5, "tanh"),
        keras.layers.LayerNormalization(),
        keras.layers.Dense(3),
    ]
    return keras.Sequential([keras.Input((4,)), *layers])


def wrapped() -> BaseInfluenceModel:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Its third part is the id.
    return BaseInfluenceModel(network(), loss_function=loss, process_batch_for_loss_fn=read)


def read(batch):
    return batch[0], batch[1], None


def ids_of(batch):
    return batch[2]


def examples(rows=slice(None), size: int = 6) -> tf.data.Dataset:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 4)).astype("float32")
    arrays = (x, generator.integers(0, 3, N), np.arange(N))
    return tf.data.Dataset.from_tensor_slices(tuple(a[rows] for a in arrays)).batch(size)


# Uneven, out of order, and in batches of another size than those of the whole.
SHARDS = [examples(slice(9, None), 4), examples(slice(0, 9), 5)]

STRATEGIES = {
    "exact": (ExactIHVP, {"damping": 0.1}),
    "gauss-newton": (ExactIHVP, {"damping": 0.1, "curvature": "gauss_newton"}),
    "kfac": (KFACIHVP, {"damping": 0.1, "seed": 3}),
    "ekfac": (EKFACIHVP, {"damping": "auto", "seed": 3}),
    "logra": (LoGraIHVP, {"projection_dim": (2, 2), "damping": 0.1, "fisher": "true", "seed": 3}),
}
NUM_STAGES = {EKFACIHVP: 2}


def fitted_of_parts(strategy, model, settings, folder=None):
    stages: list[FitSums] = []
    for _ in range(NUM_STAGES.get(strategy, 1)):
        parts = [
            strategy.sums(model, shard, stages, ids_of, **settings, verbose=0) for shard in SHARDS
        ]
        if folder is not None:
            parts = [
                FitSums.load(part.save(folder / f"{len(stages)}-{i}"))
                for i, part in enumerate(parts)
            ]
        one, two = parts
        stages.append(two.merge(one))
    return strategy.finish(model, stages, **settings, verbose=0)


@pytest.mark.filterwarnings("ignore::deel_influence.errors.CurvatureWarning")
@pytest.mark.parametrize("case", STRATEGIES.values(), ids=STRATEGIES)
def test_a_fit_of_two_parts_equals_that_of_the_whole(case, tmp_path):
    strategy, settings = case
    model = wrapped()
    whole = strategy(model, examples(), **settings, verbose=0)
    # In another process nobody has looked at the data when the parts are put together.
    parts = fitted_of_parts(strategy, model, settings, tmp_path)
    assert parts.num_train_examples == N
    vectors = np.random.default_rng(1).normal(size=(3, model.nb_params)).astype("float32")
    np.testing.assert_allclose(
        parts.multiply(vectors), whole.multiply(vectors), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(parts.solve(vectors), whole.solve(vectors), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::deel_influence.errors.CurvatureWarning")
def test_parts_are_finished_by_a_process_that_has_no_data():
    stages = [
        one.merge(two)
        for one, two in [[ExactIHVP.sums(wrapped(), s, (), ids_of, damping=0.1) for s in SHARDS]]
    ]
    model = wrapped()
    finished = ExactIHVP.finish(model, stages, damping=0.1)
    expected = ExactIHVP(model, examples(), damping=0.1, verbose=0)
    np.testing.assert_allclose(finished.hessian, expected.hessian, rtol=1e-4, atol=1e-6)


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    model = wrapped()
    one, two = (EKFACIHVP.sums(model, s, (), ids_of, damping=0.1, seed=3) for s in SHARDS)
    other_seed = EKFACIHVP.sums(model, SHARDS[1], (), ids_of, damping=0.1, seed=4)
    with pytest.raises(ValueError, match="of the same stage of the same fit"):
        one.merge(other_seed)
    by_position = [KFACIHVP.sums(model, s, damping=0.1) for s in SHARDS]
    with pytest.raises(ValueError, match="ids that are in both, such as .*Pass `id_fn=`"):
        by_position[0].merge(by_position[1])
    merged = one.merge(two)
    with pytest.raises(ValueError, match="Received: 1 of them; those of 'Eigenvalues' come next"):
        EKFACIHVP.finish(model, [merged], damping=0.1, seed=3)
    with pytest.raises(ValueError, match="or sums of another fit"):
        EKFACIHVP.finish(model, [merged], approximation="reduce", seed=3)
    with pytest.raises(ValueError, match="holds all stages of KFACIHVP"):
        KFACIHVP.sums(model, SHARDS[0], by_position[:1], damping=0.1)
    with pytest.raises(ValueError, match="Received: NystromIHVP"):
        NystromIHVP.sums(model, SHARDS[0], damping=0.1)
    with pytest.raises(ValueError, match="Received: `n_samples_for_hessian`"):
        ExactIHVP.sums(model, SHARDS[0], n_samples_for_hessian=3)
    with pytest.raises(ValueError, match="`id_fn` must give every example an id of its own"):
        ExactIHVP.sums(model, SHARDS[0], id_fn=lambda batch: 0 * batch[2])
    path = one.save(tmp_path / "part")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataSourceError, match="part of a fit"):
        FitSums.load(path)


def test_what_is_made_of_the_sums_may_be_tried_out():
    model = wrapped()
    sums = KFACIHVP.sums(model, examples(), id_fn=ids_of, seed=3)
    for damping in (0.1, 0.5):
        whole = KFACIHVP(model, examples(), damping=damping, seed=3, verbose=0)
        vectors = np.ones((1, model.nb_params), "float32")
        solved = KFACIHVP.finish(model, [sums], damping=damping, seed=3).solve(vectors)
        np.testing.assert_allclose(solved, whole.solve(vectors), rtol=1e-5)


SCORE = """
import sys
from tests.ihvp.test_parts import SHARDS, ids_of, wrapped
from deel_influence.calculators import SelfInfluenceCalculator
model, shard = wrapped(), SHARDS[int(sys.argv[2])]
calculator = SelfInfluenceCalculator.load(sys.argv[1], model, shard)
calculator.score(shard, id_fn=ids_of, verbose=0).save(sys.argv[3])
"""


@pytest.mark.filterwarnings("ignore::deel_influence.errors.CurvatureWarning")
def test_two_processes_each_score_half_with_a_saved_fit(tmp_path):
    model = wrapped()
    strategy = fitted_of_parts(EKFACIHVP, model, {"damping": 0.1, "seed": 3})
    assert isinstance(strategy, InverseHessianVectorProduct)
    calculator = FirstOrderInfluenceCalculator(model, examples(), strategy)
    path = calculator.save(tmp_path / "calculator")
    files = [str(tmp_path / f"scores-{shard}.npz") for shard in (0, 1)]
    workers = [
        subprocess.Popen([sys.executable, "-c", SCORE, str(path), str(i), file], cwd=HERE)
        for i, file in enumerate(files)
    ]
    assert [worker.wait() for worker in workers] == [0, 0]
    merged = Scores.load(files[0]).merge(Scores.load(files[1]))
    whole = [calculator.score(shard, id_fn=ids_of, verbose=0) for shard in SHARDS]
    expected = whole[0].merge(whole[1])
    np.testing.assert_array_equal(merged.ids, np.arange(N))
    np.testing.assert_array_equal(merged.values, expected.values)
    one_pass = calculator.score(examples(), verbose=0).values
    np.testing.assert_allclose(merged.values, one_pass, rtol=1e-5)
