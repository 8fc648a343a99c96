"""Examples with several classes at once: each class is a question of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from deel_influence.baselines import LossScore
from deel_influence.datasets import DataSource
from deel_influence.errors import DecisionsError, LabelError, UnsupportedModelError
from deel_influence.evaluation import average_precision
from deel_influence.labels import (
    Decisions,
    LabelIssues,
    LabelSuspicion,
    apply_decisions,
    cross_fit,
    find_label_issues,
    label_studio_tasks,
    run_digest,
)
from deel_influence.labels.confident_joint import calibrated, estimate_wrong_labels
from deel_influence.labels.head import (
    TOLERANCE,
    held_out_head,
    held_out_log_odds,
    standardised,
    stratified_folds,
)
from deel_influence.model import BaseInfluenceModel
from deel_influence.report import Triage, run_triage, write_report
from deel_influence.training_dynamics import TrainingDynamics
from deel_influence.utils.label_sets import LabelSets
from tests.report.page_reader import read_page

N, NAMES = 120, ("left", "low", "far")
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


def network(loss=BINARY, activation=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation)])
    model.compile(keras.optimizers.Adam(0.1), loss)
    return model


@cache
def problem():
    """Return inputs, rows of 0 and 1 of which some are wrong, the right ones, and a model."""
    x = np.random.default_rng(0).normal(size=(N, 2)).astype("float32")
    right = np.stack([x[:, 0] < 0, x[:, 1] < -0.3, x.sum(axis=1) > 1], axis=1)
    given = right.copy()
    wrong = np.arange(3, N, 12)
    given[wrong, wrong % 3] ^= True
    model = network()
    model.fit(x, given.astype("float32"), epochs=20, verbose=0)
    return x, given, right, BaseInfluenceModel(model)


def data():
    x, given, *_ = problem()
    return x, given.astype("float32")


@pytest.fixture(scope="module")
def found():
    return find_label_issues(problem()[3], source(*data()), num_folds=4, verbose=0)


def source(x, y):
    return DataSource("x", batched(x, y), class_names=NAMES)


def batched(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)


def folds_of(given):
    _, numbers = np.unique(given, axis=0, return_inverse=True)
    sizes = given.sum(axis=1)
    # In the order of the numbers of sets: smaller ones first, those of earlier classes before.
    keys = [(size, *(~row)) for size, row in zip(sizes, given, strict=True)]
    order = {key: number for number, key in enumerate(sorted(set(keys)))}
    assert len(order) == numbers.max() + 1
    return stratified_folds(np.array([order[key] for key in keys]), 4)


@pytest.mark.parametrize("strength", [1e-3, 0.03, 1.0])
def test_each_class_has_the_head_that_scikit_learn_finds(strength):
    x, given, *_ = problem()
    rows, folds = standardised(x), np.arange(N) % 4
    log_odds = held_out_log_odds(rows, given, folds, strength)
    inputs = np.concatenate([rows, np.ones((N, 1))], axis=1)
    for fold in range(4):
        held = folds == fold
        # λ/2 ‖w‖² beside the mean loss, as of two opposite columns of a softmax.
        inverse = 1 / (strength * (~held).sum())
        head = LogisticRegression(C=inverse, fit_intercept=False, tol=1e-10, max_iter=10_000)
        weights = np.concatenate([head.fit(inputs[~held], given[~held, k]).coef_ for k in range(3)])
        # The fit ends where the gradient is a hundredth of that of the penalty; the Hessian is at
        # least that of the penalty, so that all weights together are off by a hundredth.
        off = TOLERANCE * np.linalg.norm(weights) * np.linalg.norm(inputs[held], axis=1)
        errors = np.abs(log_odds[held] - inputs[held] @ weights.T)
        assert (errors <= off[:, None]).all()


def test_each_class_has_the_head_of_two_classes():
    x, given, *_ = problem()
    rows, folds = standardised(x), np.arange(N) % 4
    log_odds = held_out_log_odds(rows, given, folds)
    for k in range(3):
        both = held_out_head(rows, given[:, k].astype(np.int64), 2, folds)
        # Each is known to about a hundredth of the weights, as above.
        np.testing.assert_allclose(log_odds[:, k], both[:, 1] - both[:, 0], atol=0.04)


def test_signals_are_those_of_the_most_suspicious_class(found):
    x, given, _, model = problem()
    every = ["loss", "head", "neighbours"]
    asked = find_label_issues(model, data(), signals=every, num_folds=4, verbose=0).signals
    logits = model.model.predict(x, verbose=0).astype(np.float64)
    losses = np.log1p(np.exp(np.where(given, -logits, logits)))
    np.testing.assert_allclose(asked["loss"], losses.max(axis=1), rtol=1e-4, atol=1e-6)
    log_odds = held_out_log_odds(standardised(x), given, folds_of(given))
    held_out = np.where(given, 1, -1) * log_odds
    np.testing.assert_allclose(asked["head"], np.log1p(np.exp(-held_out)).max(axis=1), rtol=1e-6)
    near = NearestNeighbors(n_neighbors=10).fit(standardised(x)).kneighbors(return_distance=False)
    others = (given[near] != given[:, None]).mean(axis=1)
    np.testing.assert_allclose(asked["neighbours"], others.max(axis=1))
    assert list(found.signals) == ["head", "neighbours"]
    ranks = [(rankdata(asked[name]) - 1) / (N - 1) for name in found.signals]
    np.testing.assert_allclose(found.suspicion, np.mean(ranks, axis=0))


def test_wrong_sets_come_first_and_right_ones_are_suggested(found):
    _, given, right, model = problem()
    wrong = (given != right).any(axis=1)
    np.testing.assert_array_equal(found.given_sets, given)
    assert (found.suggested_sets == right)[wrong].mean() > 0.9
    precision = average_precision(found.suspicion, wrong)
    by_loss = LossScore(model).score(data(), verbose=0).values
    assert precision > max(0.85, average_precision(by_loss, wrong))
    scores = LabelSuspicion(model, num_folds=4).score(data(), verbose=0)
    np.testing.assert_allclose(scores.values, found.suspicion, rtol=1e-6)


def test_numbers_and_probabilities_are_those_of_the_classes(found):
    x, given, *_ = problem()
    log_odds = held_out_log_odds(standardised(x), given, folds_of(given))
    near = NearestNeighbors(n_neighbors=10).fit(standardised(x)).kneighbors(return_distance=False)
    numbers, chances, none = [], 1.0, np.ones(3)
    for k in range(3):
        labels = given[:, k].astype(np.int64)
        two = np.stack([0 * log_odds[:, k], log_odds[:, k]], axis=1)
        head = np.exp(calibrated(two, labels))
        share = given[near, k].mean(axis=1)
        one = estimate_wrong_labels(head, np.stack([1 - share, share], axis=1), None, labels)
        numbers.append(one.number)
        none *= 1 - np.array([one.number, *one.interval]) / N
        chances = chances * head[np.arange(N), labels]
    assert found.wrong_entries.tolist() == numbers
    expected = [round(N * (1 - part)) for part in none]
    assert [found.estimated_number, *found.interval] == expected
    assert found.interval[0] <= 10 <= found.interval[1]
    assert found.is_issue.sum() == found.estimated_number
    np.testing.assert_allclose(found.given_probability, chances, rtol=1e-6)
    assert (found.suggested_probability >= found.given_probability - 1e-12).all()


def test_tables_name_the_sets_and_go_through_files(found, tmp_path):
    frame = found.to_pandas()
    expected = [" + ".join(np.array(NAMES)[row]) or "(none)" for row in problem()[1]]
    assert frame["label_name"].tolist() == expected
    found.to_csv(tmp_path / "issues.csv")
    found.to_parquet(tmp_path / "issues.parquet")
    read = pd.read_csv(tmp_path / "issues.csv", keep_default_na=False)
    assert read["label_name"].tolist() == expected
    assert pd.read_parquet(tmp_path / "issues.parquet")["label_name"].tolist() == expected
    loaded = LabelIssues.load(found.save(tmp_path / "issues"))
    pd.testing.assert_frame_equal(loaded.to_pandas(), frame)
    assert loaded.wrong_entries.tolist() == found.wrong_entries.tolist()
    np.testing.assert_array_equal(loaded.suggested_sets, found.suggested_sets)
    assert "<td>(none)</td>" in found._repr_html_()
    (task, *_) = label_studio_tasks(found, list("x" * N))
    assert task["data"]["given"] == found.label_text(found.labels[found.order[0]])


def test_shards_with_other_sets_merge_in_any_order(found):
    keep = found.given_sets.sum(axis=1) < 2
    one, other = (part_of(found, part) for part in (keep, ~keep))
    merged = one.merge(other)
    assert merged.ids.tolist() == list(range(N))
    np.testing.assert_array_equal(merged.given_sets, found.given_sets)
    np.testing.assert_array_equal(merged.suggested_sets, found.suggested_sets)
    assert merged.wrong_entries.tolist() == (2 * found.wrong_entries).tolist()
    pd.testing.assert_frame_equal(other.merge(one).to_pandas(), merged.to_pandas())
    unnamed = replace(other, class_names=replace(other.class_names, classes=None))
    with pytest.raises(ValueError, match="class names"):
        one.merge(unnamed)


def part_of(issues, part):
    """Return the issues of some examples, with the sets numbered anew."""
    names = ("suggested", "given_probability", "suggested_probability", "suspicion", "is_issue")
    columns = {name: getattr(issues, name)[part] for name in (*names, "ids", "labels")}
    columns |= {name: getattr(issues, name)[part] for name in ("outlier_score", "duplicate_of")}
    columns |= {"neighbours": issues.neighbours[part]}
    signals = {name: values[part] for name, values in issues.signals.items()}
    rows = issues.given_sets[part], issues.suggested_sets[part]
    sets, columns["labels"], columns["suggested"] = LabelSets.numbered(*rows, NAMES)
    return replace(issues, **columns, signals=signals, class_names=sets)


def test_the_page_shows_sets_and_its_decisions_are_applied(found, tmp_path):
    x, given, _, model = problem()
    examples = source(*data())
    triage = run_triage(model, LossScore(model), examples, verbose=0)
    logits = model.model.predict(x, verbose=0)
    predicted = triage.class_names.members[triage.predicted]
    np.testing.assert_array_equal(predicted, logits > 0)
    triage.to_parquet(tmp_path / "scores.parquet")
    triage = Triage.from_parquet(tmp_path / "scores.parquet")
    page = read_page(write_report(tmp_path, triage, examples, issues=found, top=N))
    assert [cell.text.split("%")[0].rsplit(" ", 1)[0].strip() for cell in cells(page)] == [
        found.label_text(found.labels[i]) for i in found.order
    ]
    (classes,) = page.find_all("table", class_="plain")
    rows = [[cell.text for cell in row.find_all("td")] for row in classes.find_all("tr")[1:]]
    added, removed = found.suggested_sets & ~given, given & ~found.suggested_sets
    counts = [given, added, removed]
    assert [row[0] for row in rows] == list(NAMES)
    np.testing.assert_array_equal(
        np.array(rows)[:, 1:].astype(int).T,
        [*(one.sum(axis=0) for one in counts), found.wrong_entries],
    )
    (table,) = page.find_all("table", id="examples")
    run = table.attributes["data-run"]
    assert run == run_digest(found.ids, given)
    names = [
        option.attributes["value"] for option in page.find_all("option", **{"data-number": "0"})
    ]
    assert names == ["(none)"]
    chosen = found.order[: found.estimated_number]
    texts = [found.label_text(found.suggested[i]) for i in chosen]
    decisions = Decisions(chosen, ["relabel"] * len(chosen), texts, run)
    _, clean = apply_decisions(data(), decisions, class_names=NAMES)
    assert clean.dtype == np.float32
    np.testing.assert_array_equal(clean[chosen] > 0, found.suggested_sets[chosen])
    others = np.setdiff1d(np.arange(N), chosen)
    np.testing.assert_array_equal(clean[others] > 0, given[others])


def cells(page):
    return page.find_all("td", **{"data-key": "given"})


ROWS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]])


def decided(*labels, rows=ROWS, ids=(0, 2)):
    kinds = ["relabel" if label else "drop" for label in labels]
    return Decisions(ids, kinds, labels, run_digest(np.arange(len(rows)), rows))


@pytest.mark.parametrize("make", [np.array, np.ndarray.tolist, np.ndarray.astype])
def test_a_set_may_be_one_that_no_example_had(make):
    y = ROWS.astype(bool) if make is np.ndarray.astype else make(ROWS)
    x, labels = apply_decisions(
        (np.arange(4), y), decided("far + low + left", ""), class_names=NAMES
    )
    assert x.tolist() == [0, 1, 3]
    assert np.asarray(labels).tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 0]]
    _, labels = apply_decisions((np.arange(4), y), decided("(none)", "1 + 2"))
    assert np.asarray(labels)[[0, 2]].tolist() == [[0, 0, 0], [0, 1, 1]]


def test_batched_data_and_names_that_look_like_formulas_are_corrected():
    names = ("=1+1", "a\tb", "@x")
    decisions = decided("'=1+1 + a\\tb", "@x")
    result = apply_decisions(batched(np.arange(4), ROWS), decisions, class_names=names)
    found = np.concatenate([labels.numpy() for _, labels in result])
    assert found[[0, 2]].tolist() == [[1, 1, 0], [0, 0, 1]]


def test_one_hot_rows_are_sets_where_the_run_took_them_for_some():
    rows = np.eye(3)[[2, 0, 1, 1]]
    _, labels = apply_decisions((np.arange(4), rows), decided("0 + 1", "(none)", rows=rows))
    assert labels[[0, 2]].tolist() == [[1, 1, 0], [0, 0, 0]]
    one = Decisions([0], ["relabel"], ["1"], run_digest(np.arange(4), [2, 0, 1, 1]))
    _, labels = apply_decisions((np.arange(4), rows), one)
    assert labels[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("label", ["left + up", "left +", "3", "left, low"])
def test_sets_of_unknown_classes_are_refused_by_line(label):
    with pytest.raises(
        DecisionsError, match=r"class of the data \(\(none\), left, low, far\).*line 1"
    ):
        apply_decisions((np.arange(4), ROWS), decided(label, ""), class_names=NAMES)


def test_decisions_about_other_rows_are_refused():
    other = ROWS.copy()
    other[3, 2] = 1
    with pytest.raises(DecisionsError, match="about these examples"):
        apply_decisions((np.arange(4), other), decided("left", ""), class_names=NAMES)


def test_what_has_no_rule_for_sets_is_refused():
    x, y = data()
    model = problem()[3]
    with pytest.raises(ValueError, match=r"`signals` must name some of loss, head, neighbours"):
        find_label_issues(model, (x, y), signals=["margin"], verbose=0)
    dynamics = TrainingDynamics(record=["loss"])
    other = network()
    other.fit(x, y, epochs=1, verbose=0, callbacks=[dynamics])
    with pytest.raises(ValueError, match=r"`dynamics`.*must be None where.*Received: dynamics"):
        find_label_issues(BaseInfluenceModel(other), (x, y), dynamics=dynamics, verbose=0)
    with pytest.raises(LabelError, match="must be 0 or 1.*Received: values from 0 to 0.9"):
        find_label_issues(model, (x, 0.9 * y), verbose=0)
    with pytest.raises(UnsupportedModelError, match="one label for each example"):
        cross_fit(network, (x, y), epochs=1, verbose=0)


def test_probabilities_are_read_as_logits_are():
    x, given, *_ = problem()
    model = network("binary_crossentropy", "sigmoid")
    model.set_weights(problem()[3].model.get_weights())
    found = find_label_issues(BaseInfluenceModel(model), data(), signals=["loss"], verbose=0)
    other = find_label_issues(problem()[3], data(), signals=["loss"], verbose=0)
    np.testing.assert_allclose(found.signals["loss"], other.signals["loss"], rtol=1e-3, atol=1e-4)
