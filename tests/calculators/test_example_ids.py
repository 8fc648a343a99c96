"""Examples bear the names that their owner gave them, in every result."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_influence.calculators import Scores
from deel_influence.calculators.blocks import InfluenceBlock
from deel_influence.common import InfluenceModel
from deel_influence.ihvp import EKFACIHVP, ExactIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator, InfluenceBreakdownCalculator
from deel_influence.utils import with_ids

N, M = 11, 5
NAMES = np.array([f"mail-{7 * i % N:02d}" for i in range(N)])


@pytest.fixture(scope="module")
def calculator():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return FirstOrderInfluenceCalculator(InfluenceModel(model), (X, Y), "identity")


generator = np.random.default_rng(0)
X, Y = generator.normal(size=(N, 3)).astype("float32"), generator.integers(0, 2, N)
QUERIES = (X[:M] + 1, Y[:M])
FRAME = pd.DataFrame(X, columns=list("abc"), index=NAMES), pd.Series(Y, index=NAMES)


def batches(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(4)


def test_arrays_of_any_form_score_as_the_dataset_that_they_stand_for(calculator):
    expected = calculator.score(batches(X, Y), verbose=0)
    assert expected.ids.tolist() == list(range(N))
    for data in ((X, Y), (tf.constant(X), Y.tolist()), [(X[:6], Y[:6]), (X[6:], Y[6:])]):
        scores = calculator.score(data, verbose=0)
        np.testing.assert_allclose(scores.values, expected.values, rtol=1e-6)
        np.testing.assert_array_equal(scores.ids, expected.ids)


def test_the_index_of_a_data_frame_names_every_result(calculator, tmp_path):
    scores = calculator.score(FRAME, verbose=0)
    assert scores.ids.tolist() == NAMES.tolist()
    best = NAMES[np.argsort(-scores.values)[:3]]
    assert scores.top_k(3).ids.tolist() == best.tolist()
    assert scores.to_pandas()[best[0]] == scores.values.max()
    assert Scores.load(scores.save(tmp_path / "scores")).ids.tolist() == NAMES.tolist()

    matrix, queries, train = calculator.influence_matrix(QUERIES, FRAME, True, verbose=0)
    assert queries.tolist() == list(range(M))
    assert train.tolist() == NAMES.tolist()
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :2]
    (element,) = calculator.top_k(QUERIES, FRAME, k=2, return_ids=True)
    assert element[3].numpy().astype(str).tolist() == NAMES[order].tolist()
    *_, ids = calculator.compute_top_k_from_training_dataset(FRAME, 3, return_ids=True, verbose=0)
    assert ids.numpy().astype(str).tolist() == best.tolist()


def test_a_function_names_the_side_that_it_is_given_for(calculator):
    model = calculator.model.model
    read = InfluenceModel(model, process_batch_for_loss_fn=lambda batch: (batch[0], batch[1], None))
    named = FirstOrderInfluenceCalculator(read, batches(X, Y, NAMES), "identity")
    asked = (batches(*QUERIES), batches(X, Y, NAMES))

    def third(batch):
        return batch[2]

    _, queries, train = named.influence_matrix(*asked, True, id_fn=third, verbose=0)
    assert queries.tolist() == list(range(M))
    assert train.tolist() == NAMES.tolist()
    labels = named.influence_matrix(*asked, True, query_id_fn=lambda b: 10 + b[1], verbose=0)[1]
    assert labels.tolist() == (10 + Y[:M]).tolist()
    (*_, ids), *_ = named.top_k(*asked, k=1, return_ids=True, id_fn=third)
    assert ids.dtype == tf.string
    block = next(named.influence_blocks(*asked, id_fn=third, query_id_fn="content", verbose=0))
    assert block.train_ids.tolist() == NAMES.tolist()
    assert len(set(block.query_ids)) == M


def test_the_content_of_inputs_is_a_name_whatever_the_batches_order_and_label(calculator):
    ids = calculator.score((X, Y), id_fn="content", verbose=0).ids
    assert len(set(ids)) == N
    order = np.random.default_rng(1).permutation(N)
    again = calculator.score(batches(X[order], 1 - Y[order]), id_fn="content", verbose=0).ids
    assert again.tolist() == ids[order].tolist()


def test_equal_examples_have_names_of_their_own(calculator):
    ids = calculator.score((X[[0, 1, 0, 0]], Y[[0, 1, 0, 0]]), id_fn="content", verbose=0).ids
    assert ids[2:].tolist() == [f"{ids[0]}-2", f"{ids[0]}-3"]


def test_positions_are_there_to_be_asked_for(calculator):
    assert calculator.score(FRAME, id_fn="position", verbose=0).ids.tolist() == list(range(N))


def test_groups_and_matrices_go_by_position_whatever_the_names_are(calculator):
    groups = [0, -1, 1, 0, 1, -1, 0, 0, 1, 1, 0]
    for name in ("predict_loss_change", "influence_matrix"):
        method = getattr(calculator, name)
        np.testing.assert_allclose(
            method(QUERIES, FRAME, verbose=0), method(QUERIES, (X, Y), verbose=0), rtol=1e-6
        )
    by_name = calculator.predict_loss_change(QUERIES, FRAME, groups, verbose=0)
    expected = calculator.predict_loss_change(QUERIES, (X, Y), groups, verbose=0)
    np.testing.assert_allclose(by_name, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("groups", "numbers"),
    [
        ([i % 2 == 0 for i in range(N)], [0 if i % 2 == 0 else -1 for i in range(N)]),
        ([["bob", "al"][i % 2] for i in range(N)], [1 - i % 2 for i in range(N)]),
    ],
    ids=["mask", "annotators"],
)
def test_groups_may_be_a_mask_or_names(calculator, groups, numbers):
    np.testing.assert_array_equal(
        calculator.predict_loss_change(QUERIES, (X, Y), groups, verbose=0),
        calculator.predict_loss_change(QUERIES, (X, Y), numbers, verbose=0),
    )


def test_shards_with_names_merge_to_the_whole(calculator):
    parts = [
        calculator.score((FRAME[0][rows], FRAME[1][rows]), verbose=0)
        for rows in (slice(0, 4), slice(4, N))
    ]
    whole = calculator.score(FRAME, verbose=0)
    merged = parts[0].merge(parts[1])
    order = np.argsort(NAMES)
    assert merged.ids.tolist() == NAMES[order].tolist()
    np.testing.assert_allclose(merged.values, whole.values[order], rtol=1e-6)


def test_parts_with_names_and_with_numbers_do_not_merge():
    one, two = Scores(np.array([1]), np.zeros(1)), Scores(np.array(["1"]), np.zeros(1))
    with pytest.raises(ValueError, match="ids of the same type. Received: 1 beside '1'"):
        one.merge(two)
    blocks = [InfluenceBlock(np.arange(1), part.ids, np.zeros((1, 1))) for part in (one, two)]
    with pytest.raises(ValueError, match="ids of the same type"):
        blocks[0].merge(blocks[1])


def test_fits_of_named_shards_draw_as_the_fit_of_the_whole(calculator):
    model, settings = calculator.model, {"damping": 0.1, "seed": 3}
    halves = [tuple(part[rows] for part in FRAME) for rows in (slice(0, 6), slice(6, N))]
    stages = []
    for _ in range(2):
        parts = [EKFACIHVP.sums(model, half, stages, **settings) for half in halves]
        stages.append(parts[0].merge(parts[1]))
    vectors = tf.random.stateless_normal((2, model.nb_params), seed=(0, 0))
    whole = EKFACIHVP(model, FRAME, **settings)
    np.testing.assert_allclose(
        EKFACIHVP.finish(model, stages, **settings).solve(vectors),
        whole.solve(vectors),
        rtol=1e-4,
        atol=1e-5,
    )


def test_strategies_and_other_calculators_take_frames_too(calculator):
    by_frame = ExactIHVP(calculator.model, FRAME, damping=0.1)
    by_dataset = ExactIHVP(calculator.model, batches(X, Y), damping=0.1)
    np.testing.assert_allclose(by_frame.hessian, by_dataset.hessian, rtol=1e-5)
    assert by_frame.num_train_examples == N
    table = InfluenceBreakdownCalculator(calculator.model, FRAME, by_frame)
    assert table.influence_by_layer(QUERIES, FRAME, verbose=0).train_ids.tolist() == NAMES.tolist()


def test_names_that_do_not_fit_are_refused(calculator):
    for option, wrong in (("id_fn", "contents"), ("id_fn", 3), ("query_id_fn", "names")):
        with pytest.raises(ValueError, match=f"'content', 'position' or None. Received: {wrong!r}"):
            next(calculator.influence_blocks(QUERIES, FRAME, **{option: wrong}))
    with pytest.raises(ValueError, match="the id 'a' for 2 examples"):
        with_ids(batches(X, Y), ["a", "a"])
    short = with_ids(batches(X, Y), np.arange(4))
    with pytest.raises(ValueError, match="an id for each example, 4 of them. Received: 0 ids"):
        calculator.score(short, verbose=0)
    long = with_ids(batches(X, Y), np.arange(40))
    with pytest.raises(ValueError, match="an id for each example, 11 of them. Received: 40 ids"):
        calculator.score(long, verbose=0)
