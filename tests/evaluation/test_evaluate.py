"""`evaluate`: the table for calculators whose worth is known, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from deel_influence.errors import (
    DatasetOrderError,
    MissingExtraError,
    NonFiniteError,
    UnsupportedModelError,
)
from deel_influence.evaluation.evaluating import evaluate
from deel_influence.evaluation.ground_truth import GroundTruth
from deel_influence.evaluation.subsets import leave_one_out
from tests.evaluation.known_effects import M, N, Pairs, Single, batches, judged, known_effects


class Changes(Pairs):
    """A calculator that predicts its fixed scores as changes of the loss."""

    def predict_loss_change(self, queries, train_set, verbose="auto"):
        return self.scores


@pytest.fixture(scope="module")
def known() -> SimpleNamespace:
    return known_effects()


@pytest.mark.parametrize("truth", ["halves", "quality"])
def test_the_true_effects_score_one_reversed_ones_minus_one_and_random_ones_nothing(known, truth):
    calculators = {"true": Pairs(known.effects), "reversed": Pairs(-known.effects)}
    table = judged(known, calculators, getattr(known, truth)).table
    assert table["LDS"]["true"] == pytest.approx(1.0)
    assert table["LDS"]["reversed"] == pytest.approx(-1.0)
    # 5 queries, 30 subsets: the standard error is about 0.1.
    assert abs(table["LDS"]["random"]) < 0.3
    assert table["LDS low"]["random"] < 0 < table["LDS high"]["random"]


@pytest.mark.parametrize("truth", ["ones", "groups"])
def test_removals_are_correlated_with_the_actual_changes(known, truth):
    calculators = {"true": Pairs(known.effects), "reversed": Pairs(-known.effects)}
    table = judged(known, calculators, getattr(known, truth)).table
    for measure in ("Pearson", "Spearman"):
        np.testing.assert_allclose(table[measure][["true", "reversed"]], [1.0, -1.0])
    assert "LDS" not in table


def test_scores_of_a_number_that_is_better_when_higher_are_turned(known):
    calculators = {"true": Pairs(known.effects), "margin": Pairs(-known.effects)}
    found = judged(known, calculators, known.quality, opposite=["margin"])
    assert found.table["LDS"]["margin"] == found.table["LDS"]["true"]
    assert found.correlations["margin"]["true"] == pytest.approx(1.0)


def test_scores_of_examples_on_their_own_are_turned_too():
    wrong = np.arange(N) < 3
    calculators = {"margin": Single(-1.0 * wrong)}
    found = evaluate(calculators, batches(N), mislabelled=wrong, opposite=["margin"], verbose=0)
    assert found.table["ROC AUC"]["margin"] == 1.0


def test_several_truths_have_columns_of_their_own(known):
    truths = {"halves": known.halves, "one by one": known.ones}
    table = judged(known, {"true": Pairs(known.effects)}, truths).table
    columns = {"halves: LDS", "halves: LDS low", "one by one: Pearson", "one by one: slope"}
    assert columns <= set(table)


def test_known_wrong_labels_give_the_measures_of_a_search():
    wrong = np.arange(N) < 3
    calculators = {"best": Single(wrong * 1.0), "worst": Single(-1.0 * wrong)}
    table = evaluate(
        calculators, batches(N), mislabelled=wrong, budgets=(0.25, 0.5), verbose=0
    ).table
    assert table.loc["best", ["ROC AUC", "average precision"]].tolist() == [1.0, 1.0]
    assert table["recall at 25%"].tolist() == [1.0, 0.0, 0.25]
    assert table["ROC AUC"].tolist() == [1.0, 0.0, 0.5]


def test_what_a_calculator_cannot_give_is_missing_with_a_reason(known):
    wrong = np.arange(N) < 3
    calculators = {"pairs": Pairs(known.effects), "single": Single(np.arange(N))}
    found = judged(known, calculators, known.ones, mislabelled=wrong)
    assert np.isnan(found.table["ROC AUC"]["pairs"])
    assert "scores examples for queries" in found.missing["pairs"]["ROC AUC"]
    assert "predicts no change of a loss" in found.missing["pairs"]["slope"]
    assert "scores examples on their own" in found.missing["single"]["Spearman"]
    assert "No Pearson, Spearman of single" not in str(found)
    assert "No Pearson, Spearman, slope of single: Single scores" in str(found)
    for method, row in found.table.iterrows():
        assert set(row.index[row.isna()]) == set(found.missing[method])


def test_a_slope_of_equal_predictions_is_missing_with_a_reason(known):
    found = judged(known, {"same": Changes(np.ones((M, N)))}, known.ones)
    assert found.missing["same"]["slope"] == "it predicts the same change for all removals"
    assert found.table["Pearson"]["same"] == 0.0


def test_a_slope_needs_a_prediction_of_the_same_number(known):
    truth = GroundTruth(
        known.ones.kept, -known.ones.outputs, -known.ones.full_outputs, higher_is_better=True
    )
    calculators = {"loss": Changes(known.effects), "margin": Changes(-known.effects)}
    found = judged(known, calculators, truth, opposite=["margin"])
    assert found.table["slope"]["margin"] == pytest.approx(1.0)
    assert found.missing["loss"]["slope"] == "it predicts another number than that of the truth"
    np.testing.assert_allclose(found.table["Pearson"][["loss", "margin"]], 1.0)


def test_a_method_that_is_not_for_the_model_is_missing_and_others_go_on(known):
    def make():
        message = "no Dense layer"
        raise UnsupportedModelError(message)

    found = judged(known, {"bad": make, "true": Pairs(known.effects)}, known.halves)
    assert found.missing["bad"]["LDS"] == "UnsupportedModelError: no Dense layer"
    assert found.table["LDS"]["true"] == pytest.approx(1.0)


def test_other_failures_are_not_hidden(known):
    def make():
        message = "a bug"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="a bug"):
        judged(known, {"bad": make}, known.halves)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(known, value):
    scores = known.effects.copy()
    scores[2, 3] = value
    with pytest.raises(NonFiniteError, match=r"1 of 60 scores of pairs by 'ill'.*\[2, 3\]"):
        judged(known, {"ill": Pairs(scores)}, known.halves)


def test_correlations_tell_how_far_calculators_agree(known):
    calculators = {
        "true": Pairs(known.effects),
        "cubes": Pairs(known.effects**3),
        "reversed": Pairs(-known.effects),
        "constant": Pairs(np.ones((M, N))),
    }
    found = judged(known, calculators, known.halves).correlations
    expected = [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    np.testing.assert_allclose(found, expected)
    assert list(found) == ["true", "cubes", "reversed"]


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": None}, "there is nothing to compare"),
        ({"queries": None}, "`queries` must be the queries of `truth`.* queries=None"),
        ({"train_set": batches(N + 1)}, "13 examples and 5 queries, and a truth of 12 and 5"),
        ({"mislabelled": np.arange(N)}, "mask of dtype bool for the 12 examples"),
        ({"calculators": {}}, "at least one calculator"),
        ({"opposite": ["nobody"]}, "opposite=\\['nobody'\\]"),
        ({"calculators": {"few": Pairs(np.zeros((M, 2)))}}, r"\(5, 2\) from 'few'"),
        ({"calculators": {"f": dict}, "folder": "x"}, "`model` must be given with `folder`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(known, change, message):
    given = {
        "calculators": {"true": Pairs(known.effects)},
        "train_set": known.train_set,
        "queries": known.queries,
        "truth": known.halves,
        "verbose": 0,
    }
    with pytest.raises(ValueError, match=message):
        evaluate(**{**given, **change})


def without_differences(truth: GroundTruth) -> GroundTruth:
    return GroundTruth(truth.kept, np.ones_like(truth.outputs), truth.full_outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": (5, 10)}, "`budgets` must hold shares"),
        ({"mislabelled": np.zeros(N, bool)}, "`mislabelled` must mark some"),
        ({"num_resamples": 0}, "`num_resamples` must be a whole number >= 1"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"truth": without_differences}, "must differ in the output"),
        ({"truth": "one"}, "at least two removals"),
    ],
)
def test_what_leaves_nothing_to_compare_is_refused_before_anything_is_computed(
    known, change, message
):
    calculator = Pairs(known.effects)
    given = {"truth": known.halves, "mislabelled": np.arange(N) < 3, **change}
    if given["truth"] == "one":
        given["truth"] = GroundTruth(leave_one_out(N, [0]), np.ones((1, 1, M)), np.zeros((1, M)))
    elif callable(given["truth"]):
        given["truth"] = given["truth"](known.halves)
    with pytest.raises(ValueError, match=message):
        judged(known, {"true": calculator}, **given)
    assert calculator.calls == 0


@pytest.mark.parametrize("argument", ["train_set", "queries"])
def test_data_that_change_their_order_are_refused(known, argument):
    given = {"train_set": known.train_set, "queries": known.queries}
    given[argument] = given[argument].unbatch().shuffle(12).batch(4)
    with pytest.raises(DatasetOrderError, match=f"`{argument}` must yield .* the same order"):
        evaluate({"true": Pairs(known.effects)}, truth=known.halves, verbose=0, **given)


@pytest.mark.parametrize("value", [3, dict])
def test_what_is_no_calculator_is_refused(known, value):
    with pytest.raises(TypeError, match=r"Received: 'odd', .*(int|dict)"):
        judged(known, {"odd": value}, known.halves)


def test_a_class_that_needs_arguments_is_refused_and_one_that_does_not_makes_its_own(known):
    with pytest.raises(TypeError, match=r"'it', the class Pairs\. Pass Pairs\(\.\.\.\), or lambda"):
        judged(known, {"it": Pairs}, known.halves)

    class Ready(Pairs):
        def __init__(self):
            super().__init__(known.effects)

    found = judged(known, {"it": Ready}, known.halves)
    assert found.table["LDS"]["it"] == pytest.approx(1.0)


def test_one_name_that_is_no_list_of_names_is_refused(known):
    with pytest.raises(TypeError, match=r"the text 'mine'\. Pass \['mine'\]"):
        judged(known, {"mine": Pairs(known.effects)}, known.halves, opposite="mine")


def test_pandas_is_asked_for_before_anything_is_computed(known, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    calculator = Pairs(known.effects)
    with pytest.raises(MissingExtraError, match=r"deel-influence\[evaluation\]"):
        judged(known, {"true": calculator}, known.halves)
    assert calculator.calls == 0
