"""Predictions after their strongest support was removed."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.evaluation.top_removal import brittleness, query_loss_difference

# A nearest neighbour decides: query 0 rests on two examples of class 0, query 1 on three.
INPUTS = np.array([0.0, 0.1, 5.0, 5.1, 5.2, 10.0, 10.1, 10.2, 10.3, 10.4])
CLASSES = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
QUERIES = np.array([-6.0, 7.4])
SUPPORT = -np.abs(QUERIES[:, None] - INPUTS) - 100.0 * (CLASSES == 1)


def train(positions, seed):  # noqa: ARG001 - without randomness
    return INPUTS[positions], CLASSES[positions]


def predict(model):
    inputs, classes = model
    return classes[np.abs(QUERIES[:, None] - inputs).argmin(axis=1)]


def run(scores=SUPPORT, sizes=(2, 3, 5), **options):
    return brittleness(scores, train, predict, list(sizes), verbose=0, **options)


def test_a_prediction_changes_once_all_that_it_rests_on_is_gone():
    result = run()
    np.testing.assert_array_equal(result.sizes, [2, 3, 5])
    np.testing.assert_array_equal(result.changed, [[0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(result.share, [0.0, 0.5, 1.0])


def test_the_wrong_way_round_nothing_changes():
    np.testing.assert_array_equal(run(-SUPPORT).share, 0.0)


def test_random_removals_change_as_much_as_chance_does():
    result = run(sizes=(3,), num_random=4000)
    # Query 1 changes when exactly its three neighbours are drawn, query 0 never.
    chance = 3 * 2 * 1 / (10 * 9 * 8)
    bound = 4 * np.sqrt(chance / 4000)
    np.testing.assert_allclose(result.changed_at_random, [[0.0, chance]], atol=bound)
    np.testing.assert_allclose(result.share_at_random, chance / 2, atol=bound)


def test_equal_scores_remove_examples_at_random():
    flat = np.zeros_like(SUPPORT)
    removed = []

    def remember(positions, seed):
        removed.append(tuple(sorted(set(range(10)) - set(positions))))
        return train(positions, seed)

    for seed in range(20):
        brittleness(flat, remember, predict, [2], num_random=1, seed=seed, verbose=0)
    assert len(set(removed)) > 15


def test_every_seed_is_compared_with_the_full_training_of_the_same_seed():
    def seeded(positions, seed):
        inputs, classes = train(positions, seed)
        return inputs, (classes + seed) % 2

    np.testing.assert_array_equal(
        brittleness(SUPPORT, seeded, predict, [2, 3, 5], seeds=(0, 1), verbose=0).changed,
        run().changed,
    )


def test_a_share_of_the_seeds_is_told():
    def forgetful(positions, seed):
        return train(np.arange(10) if seed == 1 else positions, seed)

    result = brittleness(SUPPORT, forgetful, predict, [5], seeds=(0, 1, 2, 3), verbose=0)
    np.testing.assert_array_equal(result.changed, [[0.75, 0.75]])


def test_a_run_that_was_killed_resumes_and_gives_the_same(tmp_path):
    calls = []

    def stops(positions, seed):
        calls.append(len(positions))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return train(positions, seed)

    arguments = [predict, [2, 3, 5]]
    with pytest.raises(KeyboardInterrupt):
        brittleness(SUPPORT, stops, *arguments, folder=tmp_path, verbose=0)
    resumed = brittleness(SUPPORT, stops, *arguments, folder=tmp_path, verbose=0)
    np.testing.assert_array_equal(resumed.changed, run().changed)
    np.testing.assert_array_equal(resumed.changed_at_random, run().changed_at_random)
    # Of 22 models, some of equal removals, five were there already.
    assert len(calls) - 6 <= 22 - 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": SUPPORT * np.nan}, r"`scores` must hold no NaN"),
        ({"scores": SUPPORT[0]}, r"`scores` must have the shape \(m, n\)"),
        ({"sizes": (10,)}, r"`sizes` must hold whole numbers from 1 to 9.*sizes=\[10\]"),
        ({"sizes": (0, 2)}, r"so that some of the 10 examples go and some stay"),
        ({"sizes": (0.5,)}, r"Received: sizes=\[0\.5\]"),
        ({"sizes": ()}, r"Received: sizes=\[\]"),
        ({"num_random": 0}, r"`num_random` must be at least 1\. Received: num_random=0"),
    ],
)
def test_unusable_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)


def test_results_compare_as_objects_do():
    first, second = run(), run()
    assert first != second
    assert len({first, second}) == 2


NOISE = np.random.default_rng(0).normal(size=(12, 40))
"""What each of 40 examples adds to the loss of each of 12 queries when it is gone."""


def losses_without(positions, seed):
    """Train a model whose losses are sums over what is gone, so that the truth is known."""
    gone = np.setdiff1d(np.arange(40), positions)
    return (1.0 + seed) * NOISE[:, gone].sum(axis=1)


def difference(scores=NOISE, **options):
    arguments = {"share": 0.1, "num_random": 6, "verbose": 0, **options}
    return query_loss_difference(scores, losses_without, lambda losses: losses, **arguments)


def test_the_query_loss_difference_is_that_of_the_largest_terms_and_of_random_ones():
    result = difference(seeds=(0, 1))
    assert result.size == 4
    top = np.sort(NOISE, axis=1)[:, -4:].sum(axis=1)
    np.testing.assert_allclose(result.changes, 1.5 * top)  # the mean of the two seeds
    assert result.changes_at_random.shape == (6, 12)
    np.testing.assert_allclose(result.per_query, 1.5 * top - result.changes_at_random.mean(axis=0))
    np.testing.assert_allclose(result.difference, result.per_query.mean())
    low, high = result.interval
    assert 0 < low < result.difference < high
    turned = query_loss_difference(
        NOISE,
        losses_without,
        lambda losses: -losses,
        0.1,
        num_random=6,
        seeds=(0, 1),
        higher_is_better=True,
        verbose=0,
    )
    np.testing.assert_allclose(turned.changes, result.changes)


def test_scores_that_know_nothing_have_an_interval_around_zero():
    """In 40 draws of scores, 0 is outside an interval of 95 % a few times, and not most of them."""
    outside = 0
    for seed in range(40):
        scores = np.random.default_rng([1, seed]).normal(size=NOISE.shape)
        low, high = difference(scores, seed=seed, num_random=20, num_resamples=200).interval
        outside += not low <= 0 <= high
    assert outside <= 10


@pytest.mark.parametrize("share", [0.0, 1.0, 0.99])
def test_a_share_that_leaves_nothing_in_or_out_is_refused(share):
    with pytest.raises(ValueError, match=r"`share` must lie between 0 and 1"):
        difference(share=share)
