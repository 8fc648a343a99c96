"""The number of wrong labels and the classes that they confuse."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.labels.confident_joint import (
    calibrated,
    confident_joint,
    estimate_wrong_labels,
)


def by_definition(probabilities, labels):
    """Follow Northcutt, Jiang and Chuang, equations 1 to 3, one example after the other."""
    n, c = probabilities.shape
    thresholds = [
        np.mean([probabilities[i, j] for i in range(n) if labels[i] == j]) for j in range(c)
    ]
    counts = np.zeros((c, c))
    for i in range(n):
        reached = [j for j in range(c) if probabilities[i, j] >= thresholds[j]]
        if reached:
            counts[labels[i], max(reached, key=lambda j: probabilities[i, j])] += 1
    for j in range(c):
        counts[j] *= (labels == j).sum() / counts[j].sum()
    return counts


def test_a_case_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 1, 1])
    # Thresholds 0.6 and 0.8: the third example, labelled 0, is counted for 1; the last for none.
    np.testing.assert_allclose(confident_joint(probabilities, labels), [[2, 1], [0, 2]])


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_definition(seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([0.5] * 4, 80)
    labels = np.array([generator.choice(4, p=row) for row in probabilities])
    found = confident_joint(probabilities, labels)
    np.testing.assert_allclose(found, by_definition(probabilities, labels))
    assert found.sum() == pytest.approx(80)


def test_a_class_that_nothing_is_confident_of_counts_as_right():
    probabilities = np.array([[0.4, 0.35, 0.25], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1]])
    joint = confident_joint(probabilities, np.array([2, 0, 1, 1]))
    assert joint[2].sum() == 1
    assert not joint[:, 2][:2].any()


def noisy(n, share, c=5, spread=6.0, seed=0):
    """Draw true probabilities, the labels that they give, and labels of which a share is wrong."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([1 / (c * spread)] * c, n)
    true = np.array([generator.choice(c, p=row) for row in probabilities])
    wrong = generator.random(n) < share
    labels = np.where(wrong, (true + generator.integers(1, c, n)) % c, true)
    seen = (1 - share) * probabilities + share * (1 - probabilities) / (c - 1)
    return np.log(seen), labels, wrong


@pytest.mark.parametrize("refitted", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_the_number_of_uniform_mistakes_is_found(share, refitted):
    log_probabilities, labels, wrong = noisy(10_000, share)
    probabilities = np.exp(log_probabilities)
    held_out = probabilities if refitted else None
    found = estimate_wrong_labels(probabilities, probabilities, held_out, labels)
    assert found.number == pytest.approx(wrong.sum(), rel=0.25)
    assert found.interval[0] <= wrong.sum() <= found.interval[1]


def test_models_that_have_not_seen_the_labels_are_believed():
    log_probabilities, labels, wrong = noisy(10_000, 0.2)
    by_heart = np.where(np.eye(5)[labels] > 0, 0.96, 0.01)
    assert estimate_wrong_labels(by_heart, by_heart, None, labels).number == 0
    found = estimate_wrong_labels(by_heart, by_heart, np.exp(log_probabilities), labels)
    assert found.number == pytest.approx(wrong.sum(), rel=0.25)
    assert found.interval[0] > 0


def test_the_interval_holds_the_number_as_often_as_it_should():
    held = 0
    for seed in range(20):
        log_probabilities, labels, wrong = noisy(1000, 0.15, seed=seed)
        unused = np.full((1000, 5), 0.2)
        found = estimate_wrong_labels(unused, unused, np.exp(log_probabilities), labels)
        held += found.interval[0] <= wrong.sum() <= found.interval[1]
    assert held >= 18


def test_the_surest_tenth_tells_the_number_and_others_the_interval():
    labels = np.repeat([0, 1], 1000)
    sure = np.linspace(0.99, 0.51, 1000)  # the first of each class are the surest
    sure = np.stack([np.append(sure, 1 - sure), np.append(1 - sure, sure)], axis=1)
    # Wrong are 10 of the first 50, 30 of the first 100 and 80 of the first 200.
    wrong = np.r_[:10, 50:70, 100:150]
    labels[wrong], labels[1000 + wrong] = 1, 0
    found = estimate_wrong_labels(sure, sure, sure, labels)
    assert found.number == 600
    low = 0.1 - 1.96 * np.sqrt(0.1 * 0.9 / 100)
    high = 0.4 + 1.96 * np.sqrt(0.4 * 0.6 / 400)
    np.testing.assert_allclose(found.interval, (2000 * low, 2000 * high), atol=6)


def test_the_number_is_halfway_between_each_class_and_all():
    labels = np.repeat([0, 1], [1030, 970])  # 30 labels of class 1 are wrong
    sure = np.where(np.arange(2000) < 1000, 0.9, 0.2)
    sure[1000:1030] = 0.1  # among the surest of class 1, and the surest of all are of class 0
    sure = np.stack([sure, 1 - sure], axis=1)
    sure[:1000] = 0.95, 0.05
    found = estimate_wrong_labels(sure, sure, sure, labels)
    assert found.number == round(2000 * (970 / 2000 * 30 / 97) / 2)


def test_right_labels_of_a_sure_model_are_left_alone():
    labels = np.arange(200) % 4
    sure = np.where(np.eye(4)[labels] > 0, 0.97, 0.01)
    found = estimate_wrong_labels(sure, sure, None, labels)
    assert found.number == 0
    assert found.interval[0] == 0
    # A few examples prove nothing.
    assert 0 < found.interval[1] <= 20


def test_without_refits_the_middle_of_three_estimates_is_taken():
    labels = np.arange(100) % 2
    sure = np.where(np.eye(2)[labels] > 0, 0.9, 0.1)
    doubtful = sure.copy()
    doubtful[:40] = 1 - sure[:40]  # which speak against forty labels
    assert estimate_wrong_labels(sure, doubtful, None, labels).number == 0
    found = estimate_wrong_labels(doubtful, sure, None, labels)
    assert found.number == 40
    assert found.interval == (0, 100)


def test_a_temperature_makes_sure_probabilities_modest():
    log_probabilities, labels, _ = noisy(2000, 0.1)
    modest = calibrated(3 * log_probabilities, labels)
    np.testing.assert_allclose(np.exp(modest).sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(modest), np.exp(log_probabilities), atol=0.06)
