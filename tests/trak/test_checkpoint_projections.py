"""TRAK over several checkpoints, each with a projection of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from deel_influence.calculators import CACHE
from deel_influence.errors import DataSourceError
from deel_influence.gradients.projections import (
    GaussianProjection,
    LoGraProjection,
    MaskProjection,
    Projection,
    RademacherProjection,
    SJLTProjection,
    dense,
)
from deel_influence.model import BaseInfluenceModel
from deel_influence.trak import TRAK, checkpoint_seed
from tests.oracles import assert_close
from tests.trak.problems import (
    QUERIES,
    TRAIN,
    M,
    N,
    batches,
    dense_trak,
    matrix_of,
    network,
    wrapped,
)

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
COUNT, DAMPING = 3, 0.3
Make = Callable[..., Projection]


def own_seed(seed: int, t: int) -> int:
    """Return the seed of a checkpoint's projection by the rule that is documented."""
    return int(np.random.SeedSequence(seed, spawn_key=(t,)).generate_state(1)[0]) if t else seed


def matrices(make: Make, model: BaseInfluenceModel, seed: int) -> list[np.ndarray]:
    return [matrix_of(make(model, seed=own_seed(seed, t))) for t in range(COUNT)]


class Reversed(Projection):
    """A kind of one's own, without a name: some entries, from a random place on."""

    @property
    def size(self) -> int:
        return int(self.projection_dim)

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        start = np.random.default_rng(self.seed).integers(self.layout.size - self.size)
        return tf.convert_to_tensor(vectors)[:, start : start + self.size][:, ::-1]

    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError


WAYS: dict[str, tuple[Callable[[BaseInfluenceModel], dict[str, Any]], Make, int]] = {
    "by name": (
        lambda model: {"projection": "rademacher", "projection_dim": 9, "seed": 4},
        partial(RademacherProjection, projection_dim=9),
        4,
    ),
    "given, whose seed counts": (
        lambda model: {"projection": GaussianProjection(model, 9, seed=2), "seed": 4},
        partial(GaussianProjection, projection_dim=9),
        2,
    ),
    "by its settings": (
        lambda model: {"projection": SJLTProjection(model, 9, 5, nonzeros=2).get_config()},
        partial(SJLTProjection, projection_dim=9, nonzeros=2),
        5,
    ),
    "mask": (
        lambda model: {"projection": "mask", "projection_dim": 20},
        partial(MaskProjection, projection_dim=20),
        0,
    ),
    "logra": (
        lambda model: {"projection": "logra", "projection_dim": (2, 2)},
        partial(LoGraProjection, projection_dim=(2, 2)),
        0,
    ),
    "of one's own": (
        lambda model: {"projection": Reversed(model, 11, seed=1)},
        partial(Reversed, projection_dim=11),
        1,
    ),
}


@pytest.mark.parametrize(("options", "make", "seed"), WAYS.values(), ids=WAYS)
def test_each_checkpoint_has_a_projection_of_its_own(options, make, seed):
    nets = [network() for _ in range(COUNT)]
    models = [wrapped(net) for net in nets]
    trak = TRAK(models, batches(), damping=DAMPING, verbose=0, **options(models[0]))
    expected, own = dense_trak(nets, matrices(make, models[0], seed), DAMPING)
    # Partial last batches on both sides, and m is not n.
    scores = trak.influence_matrix(batches(*QUERIES, 2), batches(size=7), verbose=0)
    assert scores.shape == (M, N)
    assert_close(scores, expected, 1e-8)
    assert_close(trak.score(batches(size=11), verbose=0).values, np.diag(own), 1e-8)
    for t in range(COUNT):
        assert_close(matrix_of(trak.projection_of(t)), matrices(make, models[0], seed)[t], 1e-15)


def test_vectors_and_top_lists_are_those_of_all_projections(tmp_path):
    nets = [network() for _ in range(COUNT)]
    models = [wrapped(net) for net in nets]
    trak = TRAK(models, batches(), "gaussian", 9, DAMPING, seed=4, verbose=0)
    make = partial(GaussianProjection, projection_dim=9)
    expected, _ = dense_trak(nets, matrices(make, models[0], 4), DAMPING)
    path = tmp_path / "vectors"
    trak.compute_influence_vector(batches(), path)
    for cache in (CACHE.NO_CACHE, CACHE.MEMORY, CACHE.DISK):
        best = trak.top_k(
            batches(*QUERIES, 2),
            batches(),
            4,
            influence_vector_in_cache=cache,
            load_influence_vector_ds_path=path if cache is CACHE.DISK else None,
            return_ids=True,
        )
        found = [(values, ids) for _, values, _, ids in best]
        order = np.argsort(-expected, axis=1)[:, :4]
        np.testing.assert_array_equal(np.concatenate([ids for _, ids in found]), order)
        values = np.concatenate([values for values, _ in found])
        assert_close(values, np.take_along_axis(expected, order, axis=1), 1e-8)


def test_vectors_of_other_projections_are_refused(tmp_path):
    models = [wrapped(network()) for _ in range(2)]
    first, other = (TRAK(models, batches(), "sjlt", 9, 0.3, seed, verbose=0) for seed in (0, 1))
    first.compute_influence_vector(batches(), tmp_path / "vectors")
    with pytest.raises(DataSourceError):
        other.top_k(
            batches(*QUERIES),
            batches(),
            influence_vector_in_cache=CACHE.DISK,
            load_influence_vector_ds_path=tmp_path / "vectors",
        )


class Counted(TRAK):
    """TRAK that counts how often its hooks are traced."""

    traced = 0

    def _features(self, gradients):
        self.traced += 1
        return super()._features(gradients)


@pytest.mark.parametrize(("room", "hooks"), [(0, 4), (2**30, 2)])
@pytest.mark.parametrize(("form", "maps"), [("held", 1), ("drawn", 1), ("own", COUNT)])
def test_one_trace_serves_all_checkpoints(form, maps, room, hooks, monkeypatch):
    monkeypatch.setattr("deel_influence.trak.trak.bytes_to_hold", lambda: room)
    monkeypatch.setattr(dense, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(dense, "DRAWN_ENTRIES", 50)
    monkeypatch.setattr(dense, "bytes_to_hold", lambda: 2**30 if form == "held" else 0)
    nets = [network() for _ in range(COUNT)]
    models = [wrapped(net) for net in nets]
    make = partial(Reversed if form == "own" else GaussianProjection, projection_dim=9)
    trak = Counted(models, batches(), make(models[0]), damping=DAMPING, verbose=0)
    expected, own = dense_trak(nets, matrices(make, models[0], 0), DAMPING)
    for _ in range(2):
        scores = trak.influence_matrix(batches(*QUERIES, 2), batches(), verbose=0)
        assert_close(scores, expected, 1e-8)
        assert_close(trak.score(batches(), verbose=0).values, np.diag(own), 1e-8)
    # Of the fit, the queries and, unless the fit has kept what they need, the training examples
    # and the self-influence.
    assert trak.traced == hooks * maps


def test_regressions_with_weights_average_over_their_own_projections():
    """For the prediction f of a linear layer, ``∇f = (x, 1)`` and ``-∂ℓ/∂f = 2 w (y - f)``."""
    nets = [keras.Sequential([keras.Input((6,)), layers.Dense(1)]) for _ in range(COUNT)]
    models = [BaseInfluenceModel(net, loss_function="mse") for net in nets]
    generator = np.random.default_rng(0)
    x, y, weights = (generator.normal(size=(N, width)) for width in (6, 1, 1))
    weights = np.abs(weights[:, 0])
    train = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(8)
    queries = tf.data.Dataset.from_tensor_slices((x[:M] + 1, y[:M])).batch(2)
    trak = TRAK(
        models,
        train,
        "gaussian",
        4,
        seed=3,
        output_function=lambda _, outputs: outputs[:, 0],
        verbose=0,
    )
    extended = [np.concatenate([rows, np.ones((len(rows), 1))], axis=1) for rows in (x[:M] + 1, x)]
    products, pulls = [], []
    for t, net in enumerate(nets):
        matrix = matrix_of(GaussianProjection(models[0], 4, seed=own_seed(3, t)))
        asked, rows = (values @ matrix.T for values in extended)
        products.append(asked @ np.linalg.solve(rows.T @ rows, rows.T))
        pulls.append(2 * weights * (y - net(x).numpy())[:, 0])
    expected = np.mean(products, axis=0) * np.mean(pulls, axis=0)
    assert_close(trak.influence_matrix(queries, train, verbose=0), expected, 1e-9)


def test_a_kind_that_takes_no_seed_serves_one_checkpoint_and_no_more():
    class Fixed(Reversed):
        def __init__(self, model):
            super().__init__(model, 11, 0)

    model = wrapped(network())
    scores = TRAK(model, batches(), Fixed(model), damping=DAMPING, verbose=0).influence_matrix(
        batches(*QUERIES), batches(*TRAIN), verbose=0
    )
    expected, _ = dense_trak([model.model], [matrix_of(Fixed(model))], DAMPING)
    assert_close(scores, expected, 1e-8)
    with pytest.raises(TypeError, match=r"settings of its `get_config`, .* Received: Fixed"):
        TRAK([model, model], batches(), Fixed(model), damping=DAMPING, verbose=0)


def test_seeds_of_checkpoints_are_different_and_the_first_is_the_given_one():
    seeds = {checkpoint_seed(seed, t) for seed in range(20) for t in range(50)}
    assert len(seeds) == 20 * 50
    assert [checkpoint_seed(seed, 0) for seed in (0, 7)] == [0, 7]
    assert checkpoint_seed(7, 3) == own_seed(7, 3)


def test_an_ensemble_is_nearer_to_the_unprojected_scores_with_projections_of_its_own():
    """Errors of one projection for all stay, and those of own ones fall as ``1/T``.

    At a damping well above the eigenvalues of ``ΦᵀΦ`` scores are inner products over it, whose
    errors under a projection to k numbers have ``(‖g‖²‖g'‖² + (gᵀg')²)/k`` for a variance. With
    ``(gᵀg')² ≈ ‖g‖²‖g'‖²/10`` on average, the effective number of directions of these gradients
    being about ten, k = 8 leaves a correlation of ``(1 + 1.3)^-½ = 0.66`` to one projection, and
    ``(1 + 1.3/5)^-½ = 0.89`` to the mean of five: 0.23 more, of which half is asked for.
    """
    margin, count, damping = 0.11, 5, 1e5
    net = network()
    nets = [keras.models.clone_model(net) for _ in range(count)]
    for near in nets:  # of one training: what the projections do not average, nothing does
        near.set_weights([w + 1e-3 * np.ones_like(w) for w in net.get_weights()])
    models = [wrapped(near) for near in nets]
    whole, _ = dense_trak(nets, [np.eye(models[0].nb_params)] * count, damping)
    gains = []
    for seed in range(3):
        trak = TRAK(models, batches(), "gaussian", 8, damping, seed, verbose=0)
        own = trak.influence_matrix(batches(*QUERIES), batches(*TRAIN), verbose=0)
        one = matrix_of(GaussianProjection(models[0], 8, seed=seed))
        shared, _ = dense_trak(nets, [one] * count, damping)
        own, shared = (spearmanr(s, whole, axis=None).statistic for s in (own, shared))
        gains.append(own - shared)
    assert np.mean(gains) > margin
