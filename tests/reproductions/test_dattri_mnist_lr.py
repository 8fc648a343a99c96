"""The reproduction of dattri's benchmark runs, and its pieces are what they are said to be."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.reproductions.small_mnist import write_ten_classes


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("dattri_mnist_lr")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ten_classes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def result(script: ModuleType, data_dir: Path) -> dict[str, Any]:
    """What a smoke run writes."""
    script.main(["--form", "smoke", "--data-dir", str(data_dir), "--out", str(data_dir)])
    return json.loads((data_dir / "dattri_mnist_lr.json").read_text())


def test_every_figure_is_a_correlation_or_an_area(result, data_dir):
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    assert np.isfinite(list(measured.values())).all()
    assert all(-1 <= value <= 1 for value in measured.values())
    assert {"LDS, ekfac", "LDS, ekfac, 2 models", "leave-one-out, trak-1"} <= set(measured)
    assert set(result["details"]["lds"]["ekfac"]["settings"]) == {"damping"}
    assert (data_dir / "dattri_mnist_lr.png").exists()


def test_the_best_on_validation_is_reported_for_the_other_half(script, result, data_dir):
    measured = {row["quantity"]: row["measured"] for row in result["rows"]}
    detection, lds = result["details"]["detection"], result["details"]["lds"]
    best = max(detection, key=lambda label: detection[label]["validation"])
    assert measured[f"AUC of wrong labels of the best ({best})"] == detection[best]["auc"]
    best = max(("ekfac", "ekfac, 2 checkpoints", "trak-1"), key=lambda x: lds[x]["validation"])
    assert result["details"]["best single-model strategy"] == best
    assert measured[f"LDS of the best single-model strategy ({best})"] == lds[best]["lds"]

    comparison = comparison_of(script.SETTINGS["smoke"], data_dir)
    for label, row in detection.items():
        assert row["validation"] == comparison.detections[label, 0, 0]["auc"]
        assert row["auc"] == comparison.detections[label, 0, 1]["auc"]
    outputs = comparison.outputs(1)
    scores = {}
    for place in range(2):
        sums = np.array(comparison.scores["ekfac", place]["predictions"])
        per_query = [spearmanr(sums[:, q], outputs[:, q]).statistic for q in range(8)]
        scores[place] = np.array(per_query)
    chosen = max(scores, key=lambda place: scores[place][comparison.validation].mean())
    tested = scores[chosen][~comparison.validation].mean()
    assert lds["ekfac"]["settings"] == script.SETTINGS["smoke"]["pairs"]["ekfac"]["grid"][chosen]
    assert lds["ekfac"]["lds"] == pytest.approx(tested, abs=1e-12)


def test_some_entries_are_run_again_and_the_rest_stays_as_it_was(
    script, result, data_dir, tmp_path
):
    shutil.copytree(data_dir / "pieces", tmp_path / "pieces")
    earlier = json.loads(json.dumps(result))
    earlier["environment"]["date"] = "2020-01-02T03:04:05+00:00"
    for label in ("trak-1", "ekfac"):
        earlier["details"]["lds"][label] |= {"lds": 0.123, "validation": -0.5}
    path = tmp_path / "dattri_mnist_lr.json"
    path.write_text(json.dumps(earlier))
    options = ["--form", "smoke", "--data-dir", str(data_dir), "--out", str(tmp_path)]
    script.main([*options, "--only", "trak-.*"])
    found = json.loads(path.read_text())
    details = found["details"]
    assert details["lds"]["trak-1"] == result["details"]["lds"]["trak-1"]
    assert details["lds"]["ekfac"]["lds"] == 0.123
    measured = {row["quantity"]: row["measured"] for row in found["rows"]}
    assert measured["LDS, ekfac"] == 0.123
    assert measured["LDS, trak-1"] == result["details"]["lds"]["trak-1"]["lds"]
    assert {"leave-one-out, trak-1, as of 2020-01-02", "leave-one-out, ekfac"} <= set(measured)
    assert details["detection"] == result["details"]["detection"]
    assert found["environment"] == earlier["environment"]
    assert found["command"] == earlier["command"]
    (again,) = found["again"]
    assert again["entries"] == "trak-.*"
    assert again["command"].endswith('--form smoke --data-dir FOLDER --only "trak-.*"')
    assert again["environment"]["date"] > earlier["environment"]["date"]
    pages = importlib.import_module("evidence_pages")
    text = pages.result_part(found)
    assert " on 2020-01-02, " in text
    assert f"`{again['command']}` on {again['environment']['date'][:10]}, " in text


def test_entries_that_are_not_there_are_not_run_again(script):
    again = importlib.import_module("dattri_again")
    with pytest.raises(ValueError, match=r"Received: 'lost', which matches none of ekfac, "):
        again.entries_like(script.SETTINGS["smoke"], "lost")
    part = again.entries_like(script.SETTINGS["full"], "trak-10")
    assert list(part["pairs"]) == list(part["single"]) == ["trak-10"]
    assert part["models"] == {"half": 50}


def comparison_of(settings: dict[str, Any], data_dir: Path) -> Any:
    """Return what a run with these settings left in a folder."""
    evidence, pieces, run = map(importlib.import_module, ("evidence", "pieces", "dattri_run"))
    options = evidence.Options("smoke", data_dir, data_dir, data_dir)
    folder = pieces.pieces_folder("dattri_mnist_lr", options, settings)
    comparison = run.Comparison(settings, options, folder, num_workers=1)
    comparison.compute()
    assert options.resumed
    return comparison


def test_a_published_figure_without_an_entry_is_refused(script):
    report = importlib.import_module("dattri_report")
    published = {**script.PUBLISHED, "auc": {"loss": 0.9, "lost": 0.9}}
    with pytest.raises(ValueError, match="'auc'. Received: lost"):
        report.check_published(script.SETTINGS["full"], published)


def test_figures_published_in_words_are_not_drawn():
    report = importlib.import_module("dattri_report")
    rows = {label: {"lds": 0.2, "interval": [0.1, 0.3]} for label in ("first", "second")}
    figure = report.draw("title", rows, {"first": "~0.98", "second": 0.5})
    (points,) = [line for line in figure.axes[0].lines if line.get_label() == "published"]
    assert list(points.get_xdata()) == [0.5]
    report.plt.close(figure)


def test_the_notes_name_what_was_left_out_to_save_time(script):
    report = importlib.import_module("dattri_report")
    tried_once, not_asked = report.notes_of(script.SETTINGS["smoke"])
    assert tried_once.endswith(": ekfac, 2 checkpoints; trak-1.")
    assert "these methods: ekfac; trak. Other" in not_asked


def test_a_tenth_of_the_labels_is_wrong_and_all_others_are_right(script, data_dir):
    dattri = importlib.import_module("dattri")
    bench = dattri.Bench(script.SETTINGS["smoke"], str(data_dir), str(data_dir))
    differ = bench.labels(noise=1) != bench.y
    np.testing.assert_array_equal(differ, bench.mislabelled(1))
    assert differ.sum() == 6
    assert (bench.mislabelled(0) != bench.mislabelled(1)).any()
    assert set(bench.labels(noise=1)) <= set(range(10))


def test_each_half_has_a_seed_of_its_own():
    dattri = importlib.import_module("dattri")
    seeds = {
        dattri.own_seed(np.array(rows), seed)
        for rows in ([0, 1], [0, 2], [1, 2])
        for seed in (0, 1)
    }
    assert len(seeds) == 6
    assert dattri.own_seed(np.array([0, 1]), 0) == dattri.own_seed(np.array([0, 1], np.int32), 0)


def test_sums_over_subsets_have_the_score_of_their_rank_correlations():
    dattri = importlib.import_module("dattri")
    generator = np.random.default_rng(0)
    predictions, outputs = generator.normal(size=(2, 12, 3))
    per_query, interval = dattri.datamodelling(predictions, outputs, num_resamples=20)
    expected = [spearmanr(predictions[:, q], outputs[:, q]).statistic for q in range(3)]
    np.testing.assert_allclose(per_query, expected, atol=1e-12)
    assert interval[0] < interval[1]


def test_the_best_of_some_numbers_is_no_nan():
    run = importlib.import_module("dattri_run")
    assert run.place_of_best([np.nan, 0.1, 0.3, -0.2]) == 2
