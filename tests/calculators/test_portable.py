"""Models, strategies and calculators can be copied, and sent to another process."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DeelInfluenceError
from deel_influence.ihvp import EKFACIHVP, ConjugateGradientDescentIHVP, InverseHessianVectorProduct
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.trac_in import GradientCosine

N, LOSS = 22, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HERE = Path(__file__).resolve().parents[2]

SCORE = """
import pickle, sys
import numpy as np, tensorflow as tf
with open(sys.argv[1], "rb") as file:
    calculator = pickle.load(file)
arrays = np.load(sys.argv[2])
data = tf.data.Dataset.from_tensor_slices((arrays["x"], arrays["y"])).batch(8)
values = calculator.score(data, verbose=0).values
changes = calculator.predict_loss_change(data.take(1), data, verbose=0)
np.savez(sys.argv[3], values=values, changes=changes)
"""


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 6)).astype("float32")
    return {"x": x, "y": generator.integers(0, 3, N)}


@pytest.fixture(scope="module")
def data(arrays) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((arrays["x"], arrays["y"])).batch(8)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(loss=LOSS)
    return model


def first_order(data: tf.data.Dataset, **options) -> FirstOrderInfluenceCalculator:
    model = BaseInfluenceModel(network())
    ihvp = EKFACIHVP(model, data, damping=0.1, seed=0, verbose=0)
    return FirstOrderInfluenceCalculator(model, data, ihvp, **options)


def pickled(thing: object) -> object:
    return pickle.loads(pickle.dumps(thing))


WAYS = {"copy": copy.deepcopy, "pickle": pickled}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_copy_of_a_calculator_gives_the_same_scores_and_shares_no_weight(data, way, used):
    calculator = first_order(data, measurement="margin", normalize="theta")
    expected = first_order(data, measurement="margin", normalize="theta")
    if used:
        calculator.influence_matrix(data, data, verbose=0)
    other = way(calculator)
    for variable in calculator.model.model.weights:
        variable.assign(variable + 1.0)
    assert other.model is other.ihvp_calculator.model
    matrix = other.influence_matrix(data, data, verbose=0)
    np.testing.assert_allclose(
        matrix, expected.influence_matrix(data, data, verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_of_a_method_without_a_strategy_gives_the_same_scores(data, way):
    calculator = GradientCosine(InfluenceModel(network()))
    expected = calculator.influence_matrix(data, data, verbose=0)
    found = way(calculator).influence_matrix(data, data, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_of_a_model_watches_the_same_weights_with_the_same_settings(data, way):
    settings = {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}, "weight_decay": 0.1}
    model = InfluenceModel(network(), start_layer=0, **settings)
    (batch,) = data.take(1)
    expected = model.batch_jacobian_tensor(batch)
    other = way(model)
    assert other.weights[0] is other.model.layers[0].kernel
    np.testing.assert_allclose(other.batch_jacobian_tensor(batch), expected, rtol=1e-5)
    np.testing.assert_allclose(other.regularization(), model.regularization())


def test_a_calculator_scores_in_another_process(data, arrays, tmp_path):
    calculator = first_order(data)
    (tmp_path / "calculator").write_bytes(pickle.dumps(calculator))
    np.savez(tmp_path / "data.npz", **arrays)
    files = [str(tmp_path / name) for name in ("calculator", "data.npz", "scores.npz")]
    subprocess.run([sys.executable, "-c", SCORE, *files], check=True, cwd=HERE)
    with np.load(files[-1]) as found:
        values, changes = found["values"], found["changes"]
    np.testing.assert_allclose(values, calculator.score(data, verbose=0).values, rtol=1e-5)
    expected = calculator.predict_loss_change(data.take(1), data, verbose=0)
    np.testing.assert_allclose(changes, expected, rtol=1e-4, atol=1e-7)


def test_a_strategy_that_goes_over_the_data_is_copied_and_not_pickled(data):
    model = BaseInfluenceModel(network())
    ihvp = ConjugateGradientDescentIHVP(model, train_dataset=data, damping=0.5)
    vectors = np.ones((1, model.nb_params), "float32")
    np.testing.assert_allclose(
        copy.deepcopy(ihvp).solve(vectors), ihvp.solve(vectors), rtol=1e-3, atol=1e-5
    )
    with pytest.raises(TypeError, match="Use `save`, and `load` with `train_dataset=`"):
        pickle.dumps(ihvp)


def test_a_loaded_fit_predicts_changes_on_a_part_of_the_training_set(data, tmp_path):
    whole = first_order(data)
    expected = whole.predict_loss_change(data.take(1), data, verbose=0)
    path = whole.ihvp_calculator.save(tmp_path / "fit")
    loaded = InverseHessianVectorProduct.load(path, whole.model)
    assert loaded.num_train_examples == N
    part = data.take(1)
    calculator = FirstOrderInfluenceCalculator(whole.model, part, loaded)
    changes = calculator.predict_loss_change(part, part, verbose=0)
    np.testing.assert_allclose(changes, expected[:, :8], rtol=1e-5, atol=1e-8)


def test_errors_of_a_copy_are_those_of_the_original(data):
    other = copy.deepcopy(first_order(data))
    other.model.model.weights[0].assign_add(other.model.model.weights[0])
    with pytest.raises(DeelInfluenceError, match="must not change"):
        other.score(data, verbose=0)
