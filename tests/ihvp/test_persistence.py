"""Fitted strategies on disk: what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import SavedCurvatureError, UnsupportedModelError
from deel_influence.ihvp import (
    EKFACIHVP,
    KFACIHVP,
    ArnoldiIHVP,
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    IdentityIHVP,
    IHVPCalculator,
    InverseHessianVectorProduct,
    NystromIHVP,
)
from deel_influence.model import BaseInfluenceModel
from deel_influence.model.fingerprint import model_fingerprint
from tests.ihvp.problems import batches, convex, right_hand_sides, skips
from tests.oracles import assert_close

pytestmark = pytest.mark.usefixtures("float64")

SAMPLED = [m.value for m in IHVPCalculator if m.value.name != "identity"]


@pytest.mark.parametrize("strategy", SAMPLED, ids=lambda s: s.name)
def test_what_was_saved_is_loaded_with_the_same_products(strategy, tmp_path):
    model = skips()
    options = {"curvature": "gauss_newton"} if strategy in (NystromIHVP, ArnoldiIHVP) else {}
    fitted = strategy(model, train_dataset=batches(), damping=[1.0, 0.5, 0.7], seed=1, **options)
    path = fitted.save(tmp_path / "curvature")
    loaded = InverseHessianVectorProduct.load(path, model, batches())
    assert type(loaded) is strategy
    assert json.dumps(loaded.get_config()) == json.dumps(fitted.get_config())
    vectors = right_hand_sides(model)
    assert_close(loaded.solve(vectors), fitted.solve(vectors), 1e-10)
    assert_close(loaded.multiply(vectors), fitted.multiply(vectors), 1e-10)


@pytest.mark.parametrize("strategy", [s for s in SAMPLED if s.needs_data], ids=lambda s: s.name)
def test_a_strategy_that_goes_over_the_data_asks_for_them_when_loaded(strategy, tmp_path):
    model = convex()
    path = strategy(model, train_dataset=batches(), damping=0.5).save(tmp_path / "c.npz")
    with pytest.raises(ValueError, match=r"go over the training set.*`train_dataset=`"):
        InverseHessianVectorProduct.load(path, model)


def test_a_file_is_refused_for_other_weights_loss_or_layers(tmp_path):
    model = skips()
    path = EKFACIHVP(model, batches(), seed=0).save(tmp_path / "c")
    last = model.model.layers[-1]
    last.kernel.assign_add(last.kernel * 0.001)
    with pytest.raises(SavedCurvatureError, match="other weights"):
        EKFACIHVP.load(path, model)
    with pytest.raises(SavedCurvatureError, match=r"another loss .*mean_squared_error"):
        EKFACIHVP.load(path, BaseInfluenceModel(model.model, loss_function="mse"))
    head = BaseInfluenceModel(model.model, last.kernel, model.loss_function.loss)
    with pytest.raises(SavedCurvatureError, match="other watched layers"):
        EKFACIHVP.load(path, head)
    with pytest.raises(SavedCurvatureError, match="holds the strategy 'ekfac', no KFACIHVP"):
        KFACIHVP.load(path, model)


def test_a_file_that_is_missing_or_corrupt_is_refused(tmp_path):
    model = convex()
    with pytest.raises(SavedCurvatureError, match="is not there"):
        ExactIHVP.load(tmp_path / "nothing", model)
    path = ExactIHVP(model, batches(), damping=0.1).save(tmp_path / "c")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SavedCurvatureError, match="cannot be read"):
        ExactIHVP.load(path, model)


def test_a_file_without_one_of_its_arrays_is_refused(tmp_path):
    model = convex()
    path = ExactIHVP(model, batches(), damping=0.1).save(tmp_path / "c")
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files if name != "eigenvalues"}
    np.savez(path, **kept)
    with pytest.raises(SavedCurvatureError, match="was changed since it was written"):
        ExactIHVP.load(path, model)


def test_a_model_that_changed_after_the_fit_is_not_saved_nor_solved_for(tmp_path):
    model = convex()
    ekfac = EKFACIHVP(model, batches(), seed=0, verbose=0)
    cgd = ConjugateGradientDescentIHVP(model, batches(), damping=0.5)
    model.model.layers[-1].kernel.assign_add(model.model.layers[-1].kernel)
    with pytest.raises(SavedCurvatureError, match=r"must not change.*Fit again"):
        ekfac.save(tmp_path / "c")
    with pytest.raises(SavedCurvatureError, match=r"must not change.*Fit again"):
        cgd.solve(np.eye(15))


def test_a_file_is_refused_for_another_regulariser_or_activation(tmp_path):
    def build(activation, penalty):
        dense = keras.layers.Dense(3, activation, kernel_regularizer=penalty)
        model = keras.Sequential([keras.Input((4,)), dense])
        model.set_weights([np.ones((4, 3)), np.zeros(3)])
        return BaseInfluenceModel(model, loss_function="mse")

    targets = tf.data.Dataset.from_tensor_slices((np.eye(4), np.eye(4)[:, :3])).batch(2)
    path = ExactIHVP(build("tanh", "l2"), targets, damping=5.0, verbose=0).save(tmp_path / "c")
    ExactIHVP.load(path, build("tanh", "l2"))
    for other in (build("relu", "l2"), build("tanh", None)):
        with pytest.raises(SavedCurvatureError, match="architecture, activation or regulariser"):
            ExactIHVP.load(path, other)


def test_a_file_is_refused_for_a_loss_with_another_constant_inside(tmp_path):
    def scaled(factor):
        def loss(targets, outputs):
            return factor * keras.ops.mean(keras.ops.square(targets - outputs), axis=-1)

        return loss

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    one, two = (BaseInfluenceModel(model, loss_function=scaled(f)) for f in (1.0, 2.0))
    x = np.random.default_rng(0).normal(size=(9, 4))
    dataset = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(4)
    path = ExactIHVP(one, dataset, damping=0.1, verbose=0).save(tmp_path / "c")
    ExactIHVP.load(path, BaseInfluenceModel(model, loss_function=scaled(1.0)))
    with pytest.raises(SavedCurvatureError, match="another loss"):
        ExactIHVP.load(path, two)


def minus(number):
    """Return a lambda without a source, as notebooks and files of models have them."""
    return eval(f"lambda z: z - {number}")


class Misspelt(keras.layers.Layer):
    """A layer that trains, and whose configuration fails."""

    def __init__(self, factor):
        super().__init__()
        self._factor = factor

    def call(self, inputs):
        return inputs * self._factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def with_layer(layer):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), layer])
    model.add(keras.layers.Dense(1))
    model.set_weights([np.full(v.shape, 0.5) for v in model.weights])
    return BaseInfluenceModel(model, model.layers[-1].weights, loss_function="mse")


@pytest.mark.parametrize("make", [lambda n: keras.layers.Lambda(minus(n)), Misspelt])
def test_a_fit_survives_a_lambda_and_is_refused_for_another(make, tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 4))
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(4)
    # Numbers that are new to the process, of which TensorFlow keeps those that it meets.
    one, two = np.random.default_rng().uniform(1, 2, 2).tolist()
    model = with_layer(make(one))
    ekfac = EKFACIHVP(model, data, seed=0, verbose=0)
    path = ekfac.save(tmp_path / "c")
    products = ekfac.solve(np.eye(4))
    assert_close(EKFACIHVP.load(path, model).solve(np.eye(4)), products, 1e-10)
    assert_close(EKFACIHVP.load(path, with_layer(make(one))).solve(np.eye(4)), products, 1e-10)
    with pytest.raises(SavedCurvatureError, match="architecture, activation or regulariser"):
        EKFACIHVP.load(path, with_layer(make(two)))


def test_a_fit_is_loaded_for_a_saved_model_with_a_lambda(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 4))
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(4)
    model = with_layer(keras.layers.Lambda(minus(1.5)))
    ekfac = EKFACIHVP(model, data, seed=0, verbose=0)
    path = ekfac.save(tmp_path / "c")
    model.model.save(tmp_path / "model.keras")
    keras_model = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    loaded = BaseInfluenceModel(keras_model, keras_model.layers[-1].weights, loss_function="mse")
    assert_close(EKFACIHVP.load(path, loaded).solve(np.eye(4)), ekfac.solve(np.eye(4)), 1e-10)


def test_a_watched_weight_that_the_model_has_lost_is_named():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    wrapped = BaseInfluenceModel(model, model.layers[-1].weights, loss_function="mse")
    fitted = IdentityIHVP(wrapped)
    model.pop()
    with pytest.raises(UnsupportedModelError, match=r"Received: .*kernel.*`quantize\(\)`.*Wrap"):
        fitted.check_unchanged()


def test_a_strategy_that_goes_over_the_data_is_refused_other_data(tmp_path):
    model = convex()
    path = ConjugateGradientDescentIHVP(model, batches(), damping=0.5).save(tmp_path / "c")
    with pytest.raises(SavedCurvatureError, match="12 examples .* fitted on 30"):
        InverseHessianVectorProduct.load(path, model, batches(n=12))


def test_dots_in_names_are_kept_and_numbers_of_numpy_are_saved(tmp_path):
    model = convex()
    options = {"rank": np.int64(5), "damping": np.float32(0.25), "seed": np.int32(3)}
    first = NystromIHVP(model, batches(), **options).save(tmp_path / "damping_0.25")
    second = NystromIHVP(model, batches(), rank=5, damping=0.5).save(tmp_path / "damping_0.5")
    assert first.name == "damping_0.25.npz"
    assert NystromIHVP.load(tmp_path / "damping_0.25", model).damping == 0.25
    assert NystromIHVP.load(second, model).damping == 0.5


class HoldsAModel:
    """A loss that refers to much more than its settings."""

    def __init__(self, model, weight):
        self.model, self.weight, self.itself = model, weight, self

    def __call__(self, targets, outputs):
        return self.weight * keras.ops.mean(keras.ops.square(targets - outputs), axis=-1)


def test_a_loss_that_holds_a_model_and_itself_is_told_by_its_plain_settings():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    one, same, two = (
        model_fingerprint(BaseInfluenceModel(model, loss_function=HoldsAModel(model, weight)))
        for weight in (1.0, 1.0, 2.0)
    )
    assert one == same
    assert one != two


PRINT_FINGERPRINT = """
import keras
from deel_influence.model.fingerprint import model_fingerprint
from deel_influence.model import BaseInfluenceModel

def loss(targets, outputs):
    known = outputs.dtype in {"float16", "float32", "float64", "bfloat16"}
    return keras.ops.mean([abs(v) for v in [targets - outputs]][0], axis=-1) if known else targets

known = {"float32", "float16"}
layers = [keras.layers.Dense(1, kernel_initializer="ones")]
layers.append(keras.layers.Lambda(lambda z: z * 1.25 if z.dtype in known else z))
model = keras.Sequential([keras.Input((2,)), *layers])
print(model_fingerprint(BaseInfluenceModel(model, loss_function=loss)))
"""


def test_losses_and_layers_are_described_alike_in_every_process():
    def fingerprint(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PRINT_FINGERPRINT]
        done = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=120
        )
        return done.stdout

    assert fingerprint("1") == fingerprint("2") != ""
