"""Results and calculators say in a line, or in a small table, what they are."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators.blocks import InfluenceBlock
from deel_influence.calculators.scores import Scores
from deel_influence.influence.first_order import FirstOrderInfluenceCalculator
from deel_influence.model.influence_model import InfluenceModel

NAMED = np.array(["<b>", "mail-2", "mail-3"])


def rows(page: str) -> list[list[str]]:
    return [re.findall("<td>(.*?)</td>", row) for row in page.split("<tr>")[2:]]


def test_scores_tell_their_number_and_range_and_show_the_largest() -> None:
    scores = Scores(np.arange(1000), np.linspace(-1, 2, 1000))
    assert repr(scores) == "<Scores of 1000 examples, from −1 to 2>"
    shown = rows(scores._repr_html_())
    assert len(shown) == 10
    assert shown[0] == ["999", "2.00"]


def test_no_scores_can_be_shown_too() -> None:
    empty = Scores(np.empty(0, np.int64), np.empty(0))
    assert repr(empty) == "<Scores of 0 examples>"
    assert rows(empty._repr_html_()) == []


def test_ids_that_are_texts_are_escaped() -> None:
    shown = rows(Scores(NAMED, np.array([3.0, 2.0, 1.0]))._repr_html_())
    assert [row[0] for row in shown] == ["&lt;b&gt;", "mail-2", "mail-3"]


def test_a_block_shows_for_each_query_what_matters_most() -> None:
    values = np.array([[0.0, 2.0, -1.0], [5.0, 0.5, 6.0]])
    block = InfluenceBlock(np.array([7, 8]), NAMED, values)
    assert repr(block) == "<InfluenceBlock of 2 × 3 scores, queries by training examples>"
    assert rows(block._repr_html_()) == [
        ["7", "mail-2: 2, &lt;b&gt;: 0, mail-3: −1"],
        ["8", "mail-3: 6, &lt;b&gt;: 5, mail-2: 0.5"],
    ]


def test_a_block_of_scores_with_parts_tells_its_shape() -> None:
    block = InfluenceBlock(np.arange(2), np.arange(3), np.zeros((2, 3, 4, 5)))
    assert rows(block._repr_html_()) == [["2", "3", "(4, 5)"]]


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, "ihvp_calculator='exact', "),
        ({"ihvp_calculator": "identity"}, "ihvp_calculator='identity', "),
        ({"normalize": True, "seed": 0}, "ihvp_calculator='exact', .*normalize=True, seed=0"),
    ],
)
def test_a_calculator_tells_its_settings_and_its_model(arguments: dict, settings: str) -> None:
    layers = [keras.Input((2,)), keras.layers.Dense(3, name="logits")]
    model = keras.Sequential(layers, name="small")
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensor_slices((np.eye(2), [0, 1])).batch(2)
    calculator = FirstOrderInfluenceCalculator(InfluenceModel(model), data, **arguments)
    text = repr(calculator)
    assert re.match(rf"<FirstOrderInfluenceCalculator\({settings}", text)
    assert "None" not in text
    assert "<InfluenceModel of 'small': 9 parameters of small/logits" in text
    assert len(text) < 300
