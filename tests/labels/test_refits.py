"""Training on all folds but one, against the same done by hand."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    DataSourceError,
    LabelError,
    NonFiniteError,
    UnsupportedModelError,
)
from deel_influence.labels import CrossFit, cross_fit
from deel_influence.labels.reading import losses_of, margins_of
from tests.labels.problems import CLASSES, N, build, problem

FOLDS, EPOCHS, SEED = 3, 2, 5


@pytest.fixture(scope="module")
def found():
    p = problem()
    settings = {"epochs": EPOCHS, "batch_size": 16, "seed": SEED, "verbose": 0}
    return cross_fit(build, (p.x, p.y), FOLDS, **settings)


def test_it_is_what_fit_and_predict_give(found):
    p = problem()
    held_out, losses = np.zeros((N, CLASSES)), np.zeros(N)
    in_sample, margins = np.zeros((N, CLASSES)), np.zeros(N)
    for fold in range(FOLDS):
        held = found.folds == fold
        keras.utils.set_random_seed(SEED * FOLDS + fold)
        model, after = build(), []
        told = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_, m=model, a=after: a.append(m(p.x).numpy())
        )
        model.fit(p.x[~held], p.y[~held], epochs=EPOCHS, batch_size=16, verbose=0, callbacks=[told])
        for logits in after:
            said = tf.nn.log_softmax(logits.astype(np.float64)).numpy()
            held_out[held] += np.exp(said[held]) / EPOCHS
            losses[held] += losses_of(said, p.y)[held] / EPOCHS
            others = EPOCHS * (FOLDS - 1)
            in_sample[~held] += np.exp(said[~held]) / others
            margins[~held] += margins_of(said, p.y)[~held] / others
    np.testing.assert_allclose(found.held_out, held_out, rtol=1e-4)
    np.testing.assert_allclose(found.held_out_losses, losses, rtol=1e-4)
    np.testing.assert_allclose(found.in_sample, in_sample, rtol=1e-4)
    np.testing.assert_allclose(found.in_sample_margins, margins, rtol=1e-3, atol=1e-4)


def test_the_same_arguments_give_the_same_numbers_and_other_seeds_do_not(found):
    p = problem()
    settings = {"epochs": EPOCHS, "batch_size": 16, "verbose": 0}
    np.random.seed(3)
    again = cross_fit(build, (p.x, p.y), FOLDS, seed=SEED, **settings)
    np.testing.assert_array_equal(again.held_out, found.held_out)
    other = cross_fit(build, (p.x, p.y), FOLDS, seed=SEED + 1, **settings)
    assert (other.folds != found.folds).any()


def test_it_goes_through_a_file(found, tmp_path):
    loaded = CrossFit.load(found.save(tmp_path / "refits"))
    np.testing.assert_array_equal(loaded.in_sample_margins, found.in_sample_margins)
    assert repr(loaded) == f"<CrossFit of {N} examples, {FOLDS} models>"
    with pytest.raises(DataSourceError, match="cross-fit"):
        CrossFit.load(tmp_path / "nothing")


def kept_run(folder, **others):
    p = problem()
    settings = {"epochs": EPOCHS, "batch_size": 16, "seed": SEED, "verbose": 0} | others
    x = settings.pop("x", p.x)
    return cross_fit(settings.pop("build", build), (x, p.y), FOLDS, path=folder, **settings)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """A folder of a run that ended in its second training."""
    folder, fit = tmp_path_factory.mktemp("refits"), keras.Model.fit

    def fitted_once(model, *args, **settings):
        if list(folder.iterdir()):
            raise KeyboardInterrupt
        return fit(model, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "fit", fitted_once)
        with pytest.raises(KeyboardInterrupt):
            kept_run(folder)
    return folder


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(found, cut_off, tmp_path, monkeypatch):
    folder, trained = tmp_path / "copy", []
    shutil.copytree(cut_off, folder)
    fit = keras.Model.fit
    monkeypatch.setattr(keras.Model, "fit", lambda *a, **k: (trained.append(1), fit(*a, **k)))
    resumed = kept_run(folder)
    assert len(trained) == FOLDS - 1
    again = kept_run(folder)
    assert len(trained) == FOLDS - 1
    for name in ("folds", "held_out", "held_out_losses", "in_sample", "in_sample_margins"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(found, name))
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def other_build():
    model = build()
    model.compile("sgd", model.loss)
    return model


OTHER_RUNS = {
    "epochs": ({"epochs": EPOCHS + 1}, "epochs differ"),
    "seed": ({"seed": SEED + 1}, "seed differ"),
    "data": ({"x": np.zeros((N, 2), "float32")}, "data differ"),
    "build": ({"build": other_build}, "build differ"),
}


@pytest.mark.parametrize("case", OTHER_RUNS)
def test_a_folder_of_another_run_is_refused(case, cut_off):
    others, match = OTHER_RUNS[case]
    with pytest.raises(DataSourceError, match=match):
        kept_run(cut_off, **others)


def test_it_is_read_in_the_order_of_the_examples(found):
    ids = np.array([7, 3, 50])
    part = found.of(ids, problem().y[ids])
    np.testing.assert_array_equal(part.held_out, found.held_out[ids])


def test_ids_of_another_type_are_other_examples(found):
    with pytest.raises(ValueError, match="2 examples that it has not.*'7'"):
        found.of(np.array(["7", "3"]), problem().y[[7, 3]])


def test_a_training_that_diverges_is_told():
    p = problem()
    with pytest.raises(NonFiniteError, match="without fold 0"):
        cross_fit(build, (p.x * np.float32(np.nan), p.y), 2, epochs=1, verbose=0)


def test_sample_weights_and_dicts_reach_the_training():
    p = problem()
    inputs = {"a": keras.Input((1,), name="a"), "b": keras.Input((1,), name="b")}

    def of_two():
        both = keras.layers.Concatenate()(list(inputs.values()))
        model = keras.Model(inputs, keras.layers.Dense(CLASSES)(both))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    x = {"a": p.x[:, :1], "b": p.x[:, 1:]}
    settings = {"epochs": 2, "batch_size": 8, "verbose": 0, "folds": 2}
    plain = cross_fit(of_two, (x, p.y, np.ones(N)), **settings)
    heavy = cross_fit(of_two, (x, p.y, np.where(p.y == 0, 50.0, 1.0)), **settings)
    assert heavy.held_out[:, 0].mean() > plain.held_out[:, 0].mean() + 0.1


@pytest.mark.parametrize("folds", [1, N + 1, 2.5])
def test_so_many_folds_are_refused(folds):
    p = problem()
    with pytest.raises(ValueError, match="`folds`"):
        cross_fit(build, (p.x, p.y), folds, epochs=1, verbose=0)


def test_what_does_not_fit_is_refused():
    p = problem()
    with pytest.raises(UnsupportedModelError, match="`build`.*compiled"):
        cross_fit(lambda: keras.Sequential([keras.Input((2,))]), (p.x, p.y), epochs=1, verbose=0)
    with pytest.raises(LabelError, match="below the number of classes"):
        cross_fit(build, (p.x, p.y + 1), epochs=1, verbose=0)
