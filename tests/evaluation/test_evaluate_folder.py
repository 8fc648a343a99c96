"""`evaluate` with a folder, and evaluations that were saved or drawn."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from deel_influence.errors import CurvatureSizeError, DataSourceError
from deel_influence.evaluation.calculator_scores import calculator_settings
from deel_influence.evaluation.evaluating import evaluate
from deel_influence.evaluation.evaluation import Evaluation
from deel_influence.influence.first_order import FirstOrderInfluenceCalculator
from deel_influence.model.influence_model import InfluenceModel
from deel_influence.trac_in.gradient_dot import GradientDot
from deel_influence.trac_in.tracin import TracIn
from deel_influence.utils.records import RecordKind
from tests.evaluation.known_effects import M, N, Pairs, Single, batches, judged, known_effects


@pytest.fixture(scope="module")
def known() -> SimpleNamespace:
    return known_effects()


def counted(known):
    """Functions that make calculators, and how often they were called."""
    calls = {"good": 0, "bad": 0}

    def make(name, scores):
        calls[name] += 1
        return Pairs(scores)

    return {
        "good": lambda: make("good", known.effects),
        "bad": lambda: make("bad", -known.effects),
    }, calls


@pytest.fixture(scope="module")
def some_model() -> InfluenceModel:
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(2, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.Input((1,)), layer])
    return InfluenceModel(
        model, loss_function=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )


def test_a_killed_evaluation_goes_on_and_gives_the_same_table(known, some_model, tmp_path):
    calculators, calls = counted(known)

    def killed():
        raise KeyboardInterrupt

    options = {"folder": tmp_path / "scores", "model": some_model}
    with pytest.raises(KeyboardInterrupt):
        judged(known, {**calculators, "last": killed}, known.halves, **options)
    assert calls == {"good": 1, "bad": 1}
    first = judged(known, calculators, known.halves, **options)
    again = judged(known, calculators, known.halves, **options)
    assert calls == {"good": 1, "bad": 1}
    # The seconds too: those of the first run are kept.
    pd.testing.assert_frame_equal(first.table, again.table, check_exact=True)
    plain = judged(known, calculators, known.halves)
    measures = ["LDS", "LDS low", "LDS high"]
    pd.testing.assert_frame_equal(first.table[measures], plain.table[measures], check_exact=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_set": batches(N, 0.5)}, "other training examples"),
        ({"queries": batches(M, 0.5)}, "other queries"),
        ({"truth": "ones"}, "another ground truth"),
        ({"mislabelled": np.arange(N) < 2}, "other wrong labels"),
        ({"settings": {"damping": 2}}, "`damping` 1 where 2 is given"),
    ],
)
def test_a_folder_of_another_evaluation_is_refused(known, tmp_path, change, message):
    given = {
        "train_set": known.train_set,
        "queries": known.queries,
        "truth": known.halves,
        "mislabelled": np.arange(N) < 3,
        "settings": {"damping": 1},
        "folder": tmp_path,
        "num_resamples": 10,
        "verbose": 0,
    }
    calculators = {"true": Pairs(known.effects)}
    evaluate(calculators, **given)
    if "truth" in change:
        change = {"truth": known.ones}
    with pytest.raises(DataSourceError, match=f"`folder`.*{message}"):
        evaluate(calculators, **{**given, **change})


def test_a_folder_does_not_care_how_the_data_are_batched(known, tmp_path):
    calculator = Pairs(known.effects)
    judged(known, {"true": calculator}, known.halves, folder=tmp_path)
    other = known.train_set.unbatch().batch(5)
    evaluate(
        {"true": calculator}, other, known.queries, truth=known.halves, folder=tmp_path, verbose=0
    )
    assert calculator.calls == 1


def test_another_calculator_by_the_same_name_is_refused(known, tmp_path):
    judged(known, {"it": Pairs(known.effects)}, known.halves, folder=tmp_path)
    with pytest.raises(DataSourceError, match="'it' one that differs in class"):
        judged(known, {"it": Single(np.arange(N))}, known.halves, folder=tmp_path)


@pytest.mark.filterwarnings("ignore:1 of 5 queries have no gradient")
def test_a_calculator_that_is_made_anew_goes_on_from_its_scores(
    known, some_model, tmp_path, monkeypatch
):
    def made():
        return FirstOrderInfluenceCalculator(some_model, known.train_set, "exact")

    first = judged(known, {"it": made()}, known.halves, folder=tmp_path)
    # It computes nothing, although each has drawn a seed of its own.
    monkeypatch.delattr(FirstOrderInfluenceCalculator, "_scores_of_batch")
    again = judged(known, {"it": made()}, known.halves, folder=tmp_path)
    pd.testing.assert_frame_equal(first.table, again.table, check_exact=True)


def influence(model, **settings):
    dataset = settings.pop("dataset", batches(N))
    return FirstOrderInfluenceCalculator(model, dataset, "identity", **settings)


@pytest.mark.parametrize(
    ("make", "settings", "part"),
    [
        (influence, {"measurement": "margin"}, "measurement"),
        (influence, {"normalize": True}, "normalize"),
        (influence, {"dataset": batches(N, 0.5)}, "train_dataset"),
        (GradientDot, {"measurement": "logit"}, "measurement"),
        (GradientDot, {"projection": "gaussian", "projection_dim": 1}, "settings"),
        (lambda model, rate=0.1: TracIn([model], rate), {"rate": 0.2}, "settings"),
    ],
)
def test_calculators_of_other_settings_are_told_apart(some_model, make, settings, part):
    known, other = calculator_settings(make(some_model)), make(some_model, **settings)
    other = calculator_settings(other)
    assert [name for name in known if other[name] != known[name]] == [part]
    assert calculator_settings(make(some_model)) == known


def test_the_checkpoint_that_is_loaded_last_tells_no_calculator_apart(known, some_model, tmp_path):
    files = [tmp_path / f"{epoch}.weights.h5" for epoch in range(2)]
    copy = keras.models.clone_model(some_model.model)
    for file in files:
        copy.set_weights([weight + 1.0 for weight in copy.get_weights()])
        copy.save_weights(file)
    calculator = TracIn(files, 0.1, model=some_model)
    before = calculator_settings(calculator)
    calculator.score(known.train_set, verbose=0)
    assert calculator_settings(calculator) == before
    others = TracIn([files[0], files[0]], 0.1, model=some_model)
    assert calculator_settings(others) != before


def test_data_that_a_fit_takes_in_any_order_need_not_come_in_the_same(some_model):
    shuffled = batches(N).unbatch().shuffle(N).batch(4)
    first, second = (calculator_settings(influence(some_model, dataset=shuffled)) for _ in "ab")
    assert first == second


def test_a_loss_of_the_user_is_not_taken_for_the_control(known, some_model, tmp_path):
    options = {"folder": tmp_path, "model": some_model, "mislabelled": np.arange(N) < 3}
    own = {"loss": lambda: Single(np.arange(N)), "true": Pairs(known.effects)}
    judged(known, own, known.halves, **options)
    del own["loss"]
    with pytest.raises(DataSourceError, match="'loss' one that differs in class"):
        judged(known, own, known.halves, **options)


def test_what_the_memory_was_too_small_for_is_tried_again(known, tmp_path):
    class Large(Pairs):
        def influence_matrix(self, queries, train_set, verbose="auto"):
            if not self.calls:
                self.calls += 1
                message = "no room"
                raise CurvatureSizeError(message)
            return self.scores

    calculator = Large(known.effects)
    tables = [
        judged(known, {"it": calculator}, known.halves, folder=tmp_path).table for _ in range(2)
    ]
    assert np.isnan(tables[0]["LDS"]["it"])
    assert tables[1]["LDS"]["it"] == pytest.approx(1.0)


def test_a_damaged_file_is_named(known, tmp_path):
    judged(known, {"it": Pairs(known.effects)}, known.halves, folder=tmp_path)
    (file,) = tmp_path.glob("it_*.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataSourceError, match=file.name):
        judged(known, {"it": Pairs(known.effects)}, known.halves, folder=tmp_path)


def test_what_a_killed_write_left_is_passed_over(known, tmp_path):
    (tmp_path / ".it_12345678.npz.99.tmp.npz").write_bytes(b"half")
    found = judged(known, {"it": Pairs(known.effects)}, known.halves, folder=tmp_path)
    assert found.table["LDS"]["it"] == pytest.approx(1.0)


def test_an_evaluation_is_read_as_it_was_saved(known, tmp_path):
    calculators = {"true": Pairs(known.effects), "single": Single(np.arange(N) ** 2.0)}
    # Numbers of NumPy are none to JSON.
    options = {"budgets": np.float32([0.1, 0.5]), "num_resamples": np.int64(10)}
    saved = judged(known, calculators, known.ones, mislabelled=np.arange(N) < 3, **options)
    folder = saved.save(tmp_path / "results")
    loaded = Evaluation.load(folder)
    pd.testing.assert_frame_equal(loaded.table, saved.table, check_exact=True)
    assert loaded.missing == saved.missing
    assert loaded.settings == saved.settings
    assert str(loaded) == str(saved)
    csv = pd.read_csv(folder / "table.csv", index_col="method")
    pd.testing.assert_frame_equal(csv, saved.table)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "cannot be read"), ("other", "of version 0")]
)
def test_a_saved_evaluation_that_cannot_be_read_is_refused(known, tmp_path, content, message):
    judged(known, {"true": Pairs(known.effects)}, known.halves).save(tmp_path)
    file = tmp_path / "evaluation.json"
    if content == "other":
        RecordKind("saved evaluation", "", version=0).write(file, {})
    else:
        file.write_text(content)
    with pytest.raises(DataSourceError, match=message):
        Evaluation.load(tmp_path)


def test_each_truth_and_the_search_have_a_panel(known, tmp_path):
    truths = {"halves": known.halves, "one by one": known.ones}
    calculators = {"true": Pairs(known.effects), "single": Single(np.arange(N) ** 2.0)}
    found = judged(known, calculators, truths, mislabelled=np.arange(N) < 3)
    figure = found.plot(tmp_path / "evaluation.png")
    assert (tmp_path / "evaluation.png").stat().st_size > 0
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "halves: LDS, 95 % interval"
    assert titles[1] == "one by one: Spearman with removals"
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["random", "true"]
    assert len(figure.axes) == 3


def test_what_could_not_be_made_is_tried_again(known, some_model, tmp_path):
    attempts = []

    def make():
        attempts.append(1)
        if len(attempts) == 1:
            message = "no room"
            raise CurvatureSizeError(message)
        return Pairs(known.effects)

    options = {"folder": tmp_path, "model": some_model}
    tables = [judged(known, {"it": make}, known.halves, **options).table for _ in range(2)]
    assert np.isnan(tables[0]["LDS"]["it"])
    assert tables[1]["LDS"]["it"] == pytest.approx(1.0)
