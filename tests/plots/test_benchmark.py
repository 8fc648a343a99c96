"""Curves of a benchmark are drawn with their spread, and read from where it wrote them."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot

from deel_influence.benchmark import MethodResult, SeedResult
from deel_influence.benchmark.result_folder import ResultFolder
from deel_influence.errors import DataSourceError
from deel_influence.plots import BenchmarkDisplay

N = 30


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    yield
    assert pyplot.get_fignums() == []


def method(name: str, num_seeds: int = 3) -> MethodResult:
    generator = np.random.default_rng(len(name))
    mislabelled = np.arange(N) % 6 == 0
    runs = [
        SeedResult(seed, generator.normal(mislabelled, 1.0), mislabelled, 1.0, 0.9, 0.0, 0.0)
        for seed in range(num_seeds)
    ]
    return MethodResult(name, tuple(runs))


def test_every_method_has_axes_with_its_seeds_their_mean_and_spread(tmp_path):
    results = {"first": method("first"), "other": method("other $x$")}
    figure = BenchmarkDisplay.plot_bench(results, tmp_path / "figure.png", title="digits")
    assert len(figure.axes) == 2
    for axes, (name, result) in zip(figure.axes, results.items(), strict=True):
        spread = result.spread()["roc_auc"]
        summary = f"{name}\nROC AUC {result.roc:.4f} ± {spread:.4f} (3 seeds)"
        assert axes.get_title() == summary
        lines = [line.get_ydata() for line in axes.lines]
        np.testing.assert_allclose(lines[:3], result.curves)
        np.testing.assert_allclose(lines[3], result.mean_curve)
        np.testing.assert_allclose(lines[4], [0, 1])
        assert len(axes.collections) == 1
    assert figure.get_suptitle() == "digits"
    assert (tmp_path / "figure.png").exists()


def test_a_single_seed_has_a_curve_and_no_spread():
    (axes,) = BenchmarkDisplay.plot_bench({"a": method("a", num_seeds=1)}).axes
    assert axes.get_title().endswith("(one seed)")
    assert len(axes.collections) == 0


def test_a_comparison_has_all_mean_curves_in_the_same_axes():
    results = {"first": method("first"), "second": method("second")}
    (axes,) = BenchmarkDisplay.plot_comparison(results, title="digits").axes
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [entry.partition(":")[0] for entry in entries] == ["first", "second"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), results["second"].mean_curve)


def test_results_are_plotted_from_their_folder(tmp_path):
    result = method("first")
    for run in result.runs:
        ResultFolder(tmp_path).write("first", run, settings={})
    figure = BenchmarkDisplay.plot_bench_from_path(tmp_path)
    np.testing.assert_allclose(figure.axes[0].lines[3].get_ydata(), result.mean_curve)


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(DataSourceError, match="holds none"):
        BenchmarkDisplay.plot_bench_from_path(tmp_path)


def test_many_methods_stand_in_several_lines_and_look_different():
    results = {f"method {i}": method("x" * i, num_seeds=1) for i in range(1, 13)}
    figure = BenchmarkDisplay.plot_bench(results)
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (3, 4)
    assert figure.get_figwidth() <= 18
    (axes,) = BenchmarkDisplay.plot_comparison(results).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines[:12]}
    assert len(looks) == 12
