"""Signals against their calculators, what is made of their ranks, and the table of it all."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

from deel_influence.baselines import LossScore, MarginScore
from deel_influence.datasets import DataSource
from deel_influence.errors import LabelError
from deel_influence.evaluation import average_precision
from deel_influence.labels import LabelSuspicion, cross_fit, find_label_issues
from deel_influence.labels.reading import ranked
from deel_influence.labels.signals import SIGNALS, suspicion_of
from deel_influence.model import BaseInfluenceModel
from deel_influence.training_dynamics import AreaUnderMargin, RecordedLoss, TrainingDynamics
from tests.labels.problems import CLASSES, N, build, problem

ORACLES = {
    "loss": lambda p: LossScore(p.model),
    "margin": lambda p: MarginScore(p.model),
    "recorded_loss": lambda p: RecordedLoss(p.model, p.record),
    "recorded_margin": lambda p: AreaUnderMargin(p.model, p.record),
}


def batches(size=16):
    p = problem()
    return tf.data.Dataset.from_tensor_slices((p.x, p.y)).batch(size)


@pytest.fixture(scope="module")
def refits():
    p = problem()
    return cross_fit(build, (p.x, p.y), 3, epochs=4, batch_size=16, verbose=0)


@pytest.mark.parametrize("name", ORACLES)
def test_a_signal_is_what_its_calculator_scores(name):
    p = problem()
    found = find_label_issues(p.model, batches(), dynamics=p.record, signals=[name], verbose=0)
    expected = ORACLES[name](p).score(batches(), verbose=0).values
    np.testing.assert_allclose(found.signals[name], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.suspicion, (rankdata(found.signals[name]) - 1) / (N - 1))


def test_ties_share_their_ranks():
    values = np.array([3.0, 1.0, 3.0, 2.0, 1.0, 9.0])
    np.testing.assert_allclose(ranked(values), (rankdata(values) - 1) / 5)
    assert ranked(np.array([4.0])).tolist() == [0.0]


def test_each_source_adds_its_signals_and_those_of_the_model_count_the_same(refits):
    p = problem()
    known = {"dynamics": p.record, "cross_fit": refits}
    expected = ["head", "neighbours"]
    found = find_label_issues(p.model, batches(), verbose=0)
    assert list(found.signals) == expected
    ranks = [(rankdata(values) - 1) / (N - 1) for values in found.signals.values()]
    np.testing.assert_allclose(found.suspicion, np.mean(ranks, axis=0))
    found = find_label_issues(p.model, batches(), **known, verbose=0)
    assert list(found.signals) == [*expected, "recorded_loss", "in_sample", "held_out"]
    np.testing.assert_allclose(found.suspicion, weighted(found.signals, "held_out"))


THRESHOLDS = {"in_sample": 0.0, "recorded_margin": 0.0, "neighbours": 0.5}


def weighted(signals, unseen):
    """Return the suspicion by its formula, example by example."""
    n = len(signals[unseen])
    disputed = {
        name: {i for i in range(n) if values[i] > THRESHOLDS.get(name, -np.log(0.5))}
        for name, values in signals.items()
    }
    product, total = np.ones(n), 0.0
    for name, values in signals.items():
        weight = len(disputed[name] & disputed[unseen]) / len(disputed[unseen])
        above = n - rankdata(values)
        product *= np.where(above > 0, above / (n - 1), 0.5 / n) ** weight
        total += weight
    return 1 - product ** (1 / total)


@pytest.mark.parametrize("unseen", ["held_out", "recorded_loss", "recorded_margin"])
def test_a_signal_counts_by_what_it_disputes_of_that_which_models_dispute(unseen):
    generator = np.random.default_rng(0)
    others = ("head", "neighbours", "in_sample", "recorded_margin")
    names = dict.fromkeys((*others, unseen))
    signals = {name: generator.normal(size=40) + 0.3 * i for i, name in enumerate(names)}
    if unseen == "recorded_loss":
        signals["recorded_margin"] = -generator.random(40)  # disputes none
    expected = weighted(signals, unseen)
    np.testing.assert_allclose(suspicion_of(signals), expected, rtol=1e-12)
    assert 0 <= expected.min() < expected.max() < 1


def test_signals_that_have_learnt_the_labels_by_heart_are_ignored():
    generator = np.random.default_rng(0)
    held_out = generator.exponential(size=50)
    learnt = {"head": 0.1 * generator.random(50), "neighbours": 0.4 * generator.random(50)}
    found = suspicion_of({**learnt, "held_out": held_out})
    np.testing.assert_array_equal(np.argsort(found), np.argsort(held_out))
    # Nothing tells so where the models dispute no label themselves.
    sure = {**learnt, "held_out": held_out / held_out.max() / 2}
    ranks = np.array([rankdata(values) for values in sure.values()])
    below = np.maximum(50 - ranks, 0.49) / 49
    np.testing.assert_allclose(suspicion_of(sure), 1 - below.prod(axis=0) ** (1 / 3))


def test_a_record_of_margins_serves_where_no_loss_was_recorded():
    p = problem()
    dynamics, model = TrainingDynamics(record=["margin"]), build()
    model.fit(p.x, p.y, epochs=2, verbose=0, callbacks=[dynamics])
    assert "recorded_margin" in LabelSuspicion(p.model, dynamics).signals


def test_wrong_labels_come_first_and_the_right_ones_are_suggested(refits):
    p = problem()
    found = find_label_issues(p.model, batches(), dynamics=p.record, cross_fit=refits, verbose=0)
    assert set(found.order[: p.wrong.sum()]) == set(np.flatnonzero(p.wrong))
    np.testing.assert_array_equal(found.suggested[p.wrong], p.true[p.wrong])
    assert (found.suggested_probability >= found.given_probability).all()
    assert found.interval[0] <= p.wrong.sum() <= found.interval[1]
    assert found.is_issue.sum() == found.estimated_number
    assert found.suspicion[found.is_issue].min() >= found.suspicion[~found.is_issue].max()


def test_the_neighbours_of_a_copy_with_another_label_tell_of_it():
    p = problem()
    x = np.concatenate([p.x, p.x[:1], [[50.0, -50.0]]]).astype("float32")
    y = np.concatenate([p.y, [(p.y[0] + 1) % CLASSES, 0]])
    names = [f"photo {i}" for i in range(N + 2)]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(CLASSES)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    frame = pd.DataFrame(x, index=names)
    found = find_label_issues(BaseInfluenceModel(model), (frame, y), num_neighbours=3, verbose=0)
    assert found.neighbours.shape == (N + 2, 5)
    assert (found.duplicate_of[0], found.neighbours[0, 0]) == (names[N], names[N])
    assert (found.duplicate_of[N], found.neighbours[N, 0]) == (names[0], names[0])
    assert found.outlier_score.argmax() == N + 1
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    near = NearestNeighbors(n_neighbors=5).fit(scaled).kneighbors(return_distance=False)
    np.testing.assert_array_equal(found.neighbours[20], np.array(names)[near[20]])


@pytest.mark.parametrize("size", [7, 16, 90])
def test_batches_do_not_matter(size):
    p = problem()
    found = find_label_issues(p.model, batches(size), verbose=0)
    expected = find_label_issues(p.model, (p.x, p.y), verbose=0)
    np.testing.assert_allclose(found.suspicion, expected.suspicion, atol=1e-9)
    np.testing.assert_array_equal(found.ids, np.arange(N))


def test_texts_and_class_names_go_with_the_data():
    p = problem()
    names = [f"photo {i}.png" for i in range(N)]
    source = DataSource("clouds", batches(), np.array(names), class_names=("red", "green", "blue"))
    found = find_label_issues(p.model, source, verbose=0)
    assert found.ids.tolist() == names
    assert found.class_names == ("red", "green", "blue")
    frame = pd.DataFrame(p.x, columns=["a", "b"], index=names)
    assert find_label_issues(p.model, (frame, p.y), verbose=0).ids.tolist() == names


def test_as_a_calculator_it_follows_ids_through_a_shuffle():
    p = problem()
    examples = {"id": np.arange(N) + 100, "x": p.x, "y": p.y}
    shuffled = tf.data.Dataset.from_tensor_slices(examples).shuffle(N).batch(16)
    model = BaseInfluenceModel(
        p.model.model, process_batch_for_loss_fn=lambda batch: (batch["x"], batch["y"], None)
    )
    scores = LabelSuspicion(model).score(shuffled, id_fn=lambda batch: batch["id"], verbose=0)
    expected = LabelSuspicion(p.model).score(batches(), verbose=0)
    by_id = scores.values[np.argsort(scores.ids)]
    # Sums in another order may swap two ranks.
    np.testing.assert_allclose(by_id, expected.values, atol=0.02)
    assert average_precision(by_id, p.wrong) == 1.0


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_two_classes_of_one_output_are_two_classes(activation):
    p = problem()
    labels = np.minimum(p.y, 1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=activation is None))
    found = find_label_issues(BaseInfluenceModel(model), (p.x, labels), verbose=0)
    np.testing.assert_array_equal(found.labels, labels)
    assert set(found.suggested) <= {0, 1}


def test_one_hot_labels_are_classes():
    p = problem()
    model = keras.models.clone_model(p.model.model)
    model.set_weights(p.model.model.get_weights())
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    found = find_label_issues(BaseInfluenceModel(model), (p.x, np.eye(CLASSES)[p.y]), verbose=0)
    expected = find_label_issues(p.model, (p.x, p.y), verbose=0)
    np.testing.assert_array_equal(found.labels, p.y)
    np.testing.assert_allclose(found.suspicion, expected.suspicion)


def clouds_of(label):
    return problem().x, np.full(N, label)


REFUSED = {
    "unknown": (lambda p: {"signals": ["los"]}, "`signals`.*'los'"),
    "none": (lambda p: {"signals": []}, "`signals`"),
    "no record": (lambda p: {"signals": ["recorded_loss"]}, "`dynamics`.*None"),
    "no refits": (lambda p: {"signals": ["held_out"]}, "`cross_fit`.*None"),
    "one fold": (lambda p: {"num_folds": 1}, "`num_folds`"),
    "no neighbours": (lambda p: {"num_neighbours": 0}, "`num_neighbours`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    settings, match = REFUSED[case]
    p = problem()
    with pytest.raises(ValueError, match=match):
        find_label_issues(p.model, batches(), **settings(p), verbose=0)


def test_labels_that_are_no_classes_are_refused():
    p = problem()
    with pytest.raises(LabelError, match="one label per example"):
        find_label_issues(p.model, clouds_of(0.5), verbose=0)
    with pytest.raises(LabelError, match="below the number of classes.*from -1"):
        find_label_issues(p.model, clouds_of(-1), verbose=0)


def test_other_data_than_the_refits_had_are_refused(refits):
    p = problem()
    other = np.where(np.arange(N) == 5, (p.y + 1) % CLASSES, p.y)
    with pytest.raises(ValueError, match=r"0 examples that it has not, and 1 with another label"):
        find_label_issues(p.model, (p.x, other), cross_fit=refits, verbose=0)
    twice = (np.tile(p.x, (2, 1)), np.tile(p.y, 2))
    with pytest.raises(ValueError, match=f"{N} examples that it has not"):
        find_label_issues(p.model, twice, cross_fit=refits, verbose=0)


def test_every_signal_is_finite(refits):
    p = problem()
    known = {"dynamics": p.record, "cross_fit": refits, "signals": list(SIGNALS)}
    found = find_label_issues(p.model, batches(), **known, verbose=0)
    assert all(np.isfinite(values).all() for values in found.signals.values())
