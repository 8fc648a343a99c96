"""The benchmark measures what it says, on noise that stays, and repeats nothing."""

from __future__ import annotations

import importlib.util
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score, roc_auc_score

from deel_influence.baselines import LossScore
from deel_influence.benchmark import (
    FunctionFactory,
    MethodResult,
    SeedResult,
    load_results,
    results_table,
    summaries,
)
from deel_influence.common import InfluenceModel
from deel_influence.errors import (
    DatasetOrderError,
    DataSourceError,
    EmptyDatasetError,
    MissingExtraError,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from tests.benchmark.problems import (
    CLASSES,
    RATIO,
    CountedFactory,
    CountedTraining,
    N,
    digits,
    evaluator,
    files_of,
    splits,
)

GRADIENT_NORM = FunctionFactory(
    lambda dataset, model, _: FirstOrderInfluenceCalculator(
        InfluenceModel(model), dataset, ihvp_calculator="identity"
    )
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """Two methods and two seeds; the results, their folder, and the number of trainings."""
    folder = tmp_path_factory.mktemp("results")
    training = CountedTraining()
    factories = {"exact": CountedFactory(), "norm": GRADIENT_NORM}
    results = evaluator(training).bench(factories, 2, folder, seed=3, verbose=False)
    return results, folder, training.count


def read_labels(dataset: tf.data.Dataset) -> np.ndarray:
    return np.stack([y.numpy() for _, y in dataset])


@pytest.mark.parametrize("one_hot", [False, True], ids=["classes", "one-hot"])
def test_the_noise_is_the_same_on_every_pass_and_the_images_stay(one_hot):
    dataset, flipped = evaluator(one_hot=one_hot).build_noisy_training_dataset(seed=1)
    first, second = read_labels(dataset), read_labels(dataset)
    np.testing.assert_array_equal(first, second)
    assert dataset.element_spec[1] == splits(one_hot)[0].element_spec[1]
    labels = first.argmax(axis=1) if one_hot else first
    x, y = digits()
    np.testing.assert_array_equal(np.flatnonzero(labels != y[:N]), flipped)
    assert len(flipped) == round(RATIO * N)
    np.testing.assert_array_equal(np.stack([x.numpy() for x, _ in dataset]), x[:N])


def test_another_seed_flips_other_labels():
    noisy = evaluator().build_noisy_training_dataset
    assert set(noisy(1)[1]) != set(noisy(2)[1])
    np.testing.assert_array_equal(noisy(1)[1], noisy(1)[1])


def test_the_areas_are_those_of_scikit_learn(finished):
    results, _, _ = finished
    for result in results.values():
        for run in result.runs:
            assert run.roc_auc == pytest.approx(roc_auc_score(run.mislabelled, run.scores))
            expected = average_precision_score(run.mislabelled, run.scores)
            assert run.average_precision == pytest.approx(expected)
        assert result.roc == pytest.approx(np.mean([run.roc_auc for run in result.runs]))
    assert results["exact"].roc > 0.8


def test_two_seeds_give_two_curves_of_the_share_found(finished):
    curves, mean_curve, roc = finished[0]["norm"]
    assert curves.shape == (2, N)
    assert not np.array_equal(curves[0], curves[1])
    np.testing.assert_allclose(mean_curve, curves.mean(axis=0))
    run = finished[0]["norm"].runs[0]
    in_order = run.mislabelled[np.argsort(-run.scores, kind="stable")]
    # Without ties the curve is the running count.
    assert len(np.unique(run.scores)) == N
    np.testing.assert_allclose(curves[0], np.cumsum(in_order) / in_order.sum())
    assert roc == finished[0]["norm"].roc


def test_the_spread_is_that_of_the_seeds(finished):
    result = finished[0]["norm"]
    np.testing.assert_allclose(result.curve_spread, np.std(result.curves, axis=0, ddof=1))
    areas = [run.roc_auc for run in result.runs]
    assert result.spread()["roc_auc"] == pytest.approx(np.std(areas, ddof=1))


def test_the_methods_share_the_trained_models(finished):
    results, _, num_trainings = finished
    assert num_trainings == 2
    for a, b in zip(results["exact"].runs, results["norm"].runs, strict=True):
        np.testing.assert_array_equal(a.mislabelled, b.mislabelled)
        assert a.test_accuracy == b.test_accuracy
    assert results["exact"].runs[0].test_accuracy > 0.7


def test_a_method_gets_the_same_scores_alone_as_beside_others(finished):
    alone = evaluator().evaluate(GRADIENT_NORM, 1, seed=3, verbose=False)
    np.testing.assert_allclose(alone.runs[0].scores, finished[0]["norm"].runs[0].scores, rtol=1e-4)
    assert alone.name == "experiment"


def test_every_run_has_a_file_and_every_method_a_summary(finished):
    results, folder, _ = finished
    assert files_of(folder) == [
        f"{method}/{file}"
        for method in ("exact", "norm")
        for file in ("results.json", "seed_000003.npz", "seed_000004.npz")
    ]
    summary = json.loads((folder / "exact" / "results.json").read_text("utf-8"))
    assert [seed["seed"] for seed in summary["seeds"]] == [3, 4]
    assert summary["mean"]["roc_auc"] == pytest.approx(results["exact"].roc)
    assert summary["settings"]["factory"]["class"] == "CountedFactory"
    assert summary["settings"]["factory"]["attributes"]["ihvp_mode"] == "exact"


def test_results_on_disk_are_the_results(finished):
    results, folder, _ = finished
    loaded = load_results(folder)
    assert list(loaded) == ["exact", "norm"]
    for name, result in results.items():
        np.testing.assert_array_equal(loaded[name].curves, result.curves)
        assert loaded[name].to_dict() == result.to_dict()
    np.testing.assert_array_equal(
        load_results(folder / "norm")["norm"].curves, results["norm"].curves
    )


def test_tables_have_a_row_per_seed_and_a_row_per_method(finished):
    results, _, _ = finished
    frame = results["exact"].to_pandas()
    assert list(frame.index) == [3, 4]
    table = results_table(results)
    assert table.loc["exact", "roc_auc"] == pytest.approx(frame["roc_auc"].mean())
    assert table.loc["exact", "roc_auc_spread"] == pytest.approx(frame["roc_auc"].std())
    assert isinstance(table, pd.DataFrame)


def test_a_finished_benchmark_computes_nothing(finished, tmp_path):
    _, folder, _ = finished
    training, factory = CountedTraining(), CountedFactory()
    again = evaluator(training).bench({"exact": factory}, 2, folder, seed=3, verbose=False)
    assert (training.count, factory.count) == (0, 0)
    np.testing.assert_array_equal(again["exact"].curves, finished[0]["exact"].curves)


def test_after_an_interruption_only_what_is_missing_is_computed(tmp_path):
    broken = evaluator(CountedTraining(fail_at=1))
    with pytest.raises(KeyboardInterrupt):
        broken.bench({"a": CountedFactory("identity")}, 2, tmp_path, verbose=False)
    assert len(load_results(tmp_path)["a"].runs) == 1
    training, factory = CountedTraining(), CountedFactory("identity")
    results = evaluator(training).bench({"a": factory}, 2, tmp_path, verbose=False)
    assert (training.count, factory.count) == (1, 1)
    assert [run.seed for run in results["a"].runs] == [0, 1]
    summary = json.loads((tmp_path / "a" / "results.json").read_text("utf-8"))
    assert summary["mean"]["roc_auc"] == pytest.approx(results["a"].roc)


def test_a_method_that_is_added_trains_only_for_its_own_runs(finished, tmp_path):
    training = CountedTraining()
    bench = evaluator(training).bench
    bench({"a": GRADIENT_NORM}, 1, tmp_path, verbose=False)
    bench({"a": GRADIENT_NORM, "b": GRADIENT_NORM}, 1, tmp_path, verbose=False)
    assert training.count == 2
    scores = [result.runs[0].scores for result in load_results(tmp_path).values()]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"config": {"note": "other"}}, "`config`"),
        ({"influence_batch_size": 50}, "`influence_batch_size`"),
        ({"mislabeling_ratio": 0.2}, "`mislabeling_ratio` .0.1 there, 0.2 here.*flipped labels"),
    ],
)
def test_results_of_another_benchmark_are_refused(finished, settings, match):
    _, folder, _ = finished
    with pytest.raises(ValueError, match=match):
        evaluator(**settings).bench({"exact": CountedFactory()}, 1, folder, seed=3, verbose=False)


def test_another_calculator_under_the_same_name_is_refused(finished):
    _, folder, _ = finished
    factory = CountedFactory(dataset_hessian_size=50)
    with pytest.raises(ValueError, match="dataset_hessian_size"):
        evaluator().bench({"exact": factory}, 1, folder, seed=3, verbose=False)


def test_another_function_under_the_same_name_is_refused(finished):
    _, folder, _ = finished
    other = FunctionFactory(lambda _, model, __: LossScore(InfluenceModel(model)))
    with pytest.raises(ValueError, match="`factory`"):
        evaluator().bench({"norm": other}, 1, folder, seed=3, verbose=False)


@pytest.mark.parametrize("name", ["training_dataset", "test_dataset"])
def test_results_of_other_data_of_the_same_size_are_refused(finished, name):
    _, folder, _ = finished
    benchmark = evaluator()
    setattr(benchmark, name, getattr(benchmark, name).map(lambda x, y: (x + 1, y)))
    with pytest.raises(ValueError, match=f"`{name}`"):
        benchmark.bench({"exact": CountedFactory()}, 1, folder, seed=3, verbose=False)


def test_a_new_seed_under_other_settings_than_those_of_the_folder_is_refused(finished):
    _, folder, _ = finished
    training, factory = CountedTraining(), CountedFactory(damping=0.5)
    with pytest.raises(ValueError, match=r"seed_000003.*damping"):
        evaluator(training).bench({"exact": factory}, 1, folder, seed=9, verbose=False)
    assert training.count == 0


def test_a_summary_that_was_not_written_is_made_up_for(finished, tmp_path):
    results, folder, _ = finished
    shutil.copytree(folder / "exact", tmp_path / "exact")
    (tmp_path / "exact" / "results.json").unlink()
    evaluator().bench({"exact": CountedFactory()}, 2, tmp_path, seed=3, verbose=False)
    summary = json.loads((tmp_path / "exact" / "results.json").read_text("utf-8"))
    assert summary["mean"]["roc_auc"] == pytest.approx(results["exact"].roc)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_file_is_named_with_the_remedy(finished, tmp_path, share):
    shutil.copytree(finished[1] / "exact", tmp_path / "exact")
    path = tmp_path / "exact" / "seed_000003.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (
        lambda: load_results(tmp_path),
        lambda: evaluator().bench({"exact": CountedFactory()}, 1, tmp_path, 3, verbose=False),
    ):
        with pytest.raises(DataSourceError, match=r"seed_000003.*Delete that file"):
            read()


@pytest.mark.parametrize("name", ["rps/l2", "", ".."])
def test_a_name_that_is_no_folder_is_refused_before_the_training(tmp_path, name):
    training = CountedTraining()
    factories = {"good": GRADIENT_NORM, name: GRADIENT_NORM}
    with pytest.raises(ValueError, match=f"Received: '{name}'"):
        evaluator(training).bench(factories, 1, tmp_path)
    assert training.count == 0


@pytest.mark.parametrize("factory", [CountedFactory, lambda *_: None])
def test_what_is_no_factory_is_refused_before_the_training(factory):
    training = CountedTraining()
    with pytest.raises(TypeError, match="for 'b'"):
        evaluator(training).bench({"a": GRADIENT_NORM, "b": factory}, 1)
    assert training.count == 0


@pytest.mark.parametrize(
    ("epochs_to_save", "error", "match"),
    [
        ([3, 10], ValueError, r"\[3, 10\] with epochs=10, whose last one is 9"),
        ([-1], ValueError, "epochs_to_save=-1"),
        (3, TypeError, "in brackets"),
    ],
)
def test_epochs_that_the_training_does_not_reach_are_refused(epochs_to_save, error, match):
    with pytest.raises(error, match=match):
        CountedTraining(epochs_to_save=epochs_to_save)


def test_each_run_prints_a_line_on_request(finished, capsys):
    results, folder, _ = finished
    evaluator().bench({"exact": CountedFactory()}, 1, folder, seed=3)
    line = capsys.readouterr().out
    assert line.startswith("exact, seed 3: ROC AUC ")
    assert f"{results['exact'].runs[0].roc_auc:.4f}" in line


def test_tensorboard_gets_the_areas_and_the_mean_curve(finished, tmp_path, monkeypatch):
    results, _, _ = finished
    written = []
    monkeypatch.setattr(summaries, "require_tensorboard", lambda: None)
    monkeypatch.setattr(tf.summary, "scalar", lambda *args, step: written.append((*args, step)))
    summaries.write_summaries(tmp_path / "logs", {"exact": results["exact"]})
    areas = [(value, step) for name, value, step in written if name == "roc_auc"]
    assert areas == [(run.roc_auc, run.seed) for run in results["exact"].runs]
    curve = [(value, step) for name, value, step in written if name != "roc_auc"]
    assert len(curve) == 100
    assert curve[-1] == (1.0, 100)
    assert curve[49][0] == pytest.approx(results["exact"].mean_curve[round(N / 2) - 1])


def test_without_tensorboard_the_benchmark_does_not_begin(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    training = CountedTraining()
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        evaluator(training).evaluate(GRADIENT_NORM, 1, use_tensorboard=True)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        CountedTraining(use_tensorboard=True)
    assert training.count == 0


def test_a_single_seed_has_no_spread_and_valid_json():
    run = SeedResult(0, np.arange(4.0), np.arange(4) > 2, np.nan, 1.0, 0.0, 0.0)
    result = MethodResult("a", (run,))
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["spread"]["roc_auc"] is None
    assert content["mean"]["train_accuracy"] is None
    assert np.isnan(result.curve_spread).all()


def test_examples_of_equal_score_have_a_curve_that_no_order_favours():
    run = SeedResult(0, np.zeros(4), np.arange(4) > 1, 1.0, 1.0, 0.0, 0.0)
    np.testing.assert_allclose(run.curve, [0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mislabeling_ratio": 0.0}, "between 0 and 1"),
        ({"mislabeling_ratio": 1.0}, "between 0 and 1"),
        ({"mislabeling_ratio": 0.001}, f"flips 0 of {N}"),
    ],
)
def test_a_ratio_that_leaves_nothing_to_find_is_refused_before_the_training(settings, match):
    training = CountedTraining()
    with pytest.raises(ValueError, match=match):
        evaluator(training, **settings).evaluate(GRADIENT_NORM, 1, verbose=False)
    assert training.count == 0


def test_batches_are_refused_with_the_remedy():
    train, test = splits()
    with pytest.raises(ValueError, match="unbatch"):
        type(evaluator())(train.batch(8), test, CountedTraining(), CLASSES, RATIO)


def test_a_training_set_that_changes_its_order_is_refused():
    train, test = splits()
    shuffled = train.shuffle(N, reshuffle_each_iteration=True)
    benchmark = type(evaluator())(shuffled, test, CountedTraining(), CLASSES, RATIO)
    with pytest.raises(DatasetOrderError, match="training_dataset"):
        benchmark.build_noisy_training_dataset()


def test_an_empty_training_set_is_refused():
    train, test = splits()
    benchmark = type(evaluator())(train.take(0), test, CountedTraining(), CLASSES, RATIO)
    with pytest.raises(EmptyDatasetError, match="training_dataset"):
        benchmark.build_noisy_training_dataset()


def test_no_seed_at_all_is_refused():
    with pytest.raises(ValueError, match="nbr_of_evaluation"):
        evaluator().evaluate(GRADIENT_NORM, 0)


def test_an_empty_folder_holds_no_results(tmp_path):
    with pytest.raises(DataSourceError, match="holds none"):
        load_results(tmp_path)
