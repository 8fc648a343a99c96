"""The evidence pages say what the reproductions wrote, and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
PAGES = ROOT / "docs" / "evidence"


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    """The functions that make the pages."""
    return runpy.run_path(str(BENCHMARKS / "evidence_pages.py"), run_name="evidence_pages")


@pytest.fixture(scope="module")
def results(pages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the reproductions wrote."""
    return pages["read_results"]()


@pytest.fixture
def evidence() -> ModuleType:
    """What the reproductions share."""
    return importlib.import_module("evidence")


def test_every_page_holds_what_was_measured(pages, results):
    expected = {name: pages["result_part"](result) for name, result in results.items()}
    assert {name: pages["measured_part"](name) for name in results} == expected


def test_the_results_page_holds_all_that_was_measured(pages, results):
    assert pages["measured_part"]("index") == pages["index_part"](results)


def test_every_experiment_has_a_script_a_page_and_a_full_result(results):
    scripts = {path.stem for path in (BENCHMARKS / "reproductions").glob("*.py")}
    described = {path.stem for path in PAGES.glob("*.md")} - {"index", "data"}
    assert described == set(results)
    assert described <= scripts
    assert {result["form"] for result in results.values()} == {"full"}


def test_every_picture_is_there_and_small(results):
    pictures = [PAGES / "images" / r["figure"] for r in results.values() if r["figure"]]
    assert pictures
    assert all(path.stat().st_size < 200_000 for path in pictures)


def test_a_bound_that_is_missed_is_said_on_the_results_page(pages, results):
    name, result = next(iter(results.items()))
    missed = {
        "quantity": "share of something",
        "published": 0.9,
        "measured": 0.1,
        "at_least": 0.5,
        "at_most": None,
        "reached": False,
    }
    text = pages["index_part"]({name: {**result, "rows": [missed]}})
    assert "share of something: 0.1, where ≥ 0.5 is asked (published: 0.9)" in text


def test_figures_are_held_against_their_bounds(evidence, tmp_path):
    options = evidence.Options("smoke", None, tmp_path, tmp_path)
    record = evidence.Evidence("name", "title", "source", options, {})
    record.add("above", 0.6, at_least=0.5)
    record.add("below", 0.4, at_least=0.5)
    record.add("in range", 1.0, at_least=0.9, at_most=1.1)
    record.add("nan", float("nan"), at_least=0.5)
    record.add("free", 2.0, published=3.0)
    written = json.loads(record.save().read_text())
    assert [row["reached"] for row in written["rows"]] == [True, False, True, False, None]
    assert written["command"] == "python benchmarks/reproductions/name.py --form smoke"


def test_the_command_has_all_that_was_given(evidence, tmp_path):
    options = evidence.Options("full", tmp_path, tmp_path, tmp_path)
    record = evidence.Evidence("name", "title", "source", options, {}, num_workers=4)
    command = json.loads(record.save().read_text())["command"]
    assert command == "python benchmarks/reproductions/name.py --data-dir FOLDER --workers 4"


def test_a_resumed_run_is_called_so(evidence, pages, results, tmp_path):
    options = evidence.Options("full", None, tmp_path, tmp_path, resumed=True)
    record = evidence.Evidence("name", "title", "source", options, {})
    record.add("share of something", 0.5)
    written = json.loads(record.save().read_text())
    assert written["resumed"] is True
    assert "resumed, the last call took 0 s." in pages["result_part"](written)
    assert "resumed, the last call took 0 s |" in pages["index_part"]({"name": written})
    at_once = {**written, "resumed": False, "seconds": 90.0}
    assert ", 90 s.\n" in pages["result_part"](at_once)


def test_data_that_is_nowhere_is_asked_for(evidence, tmp_path, capsys):
    with pytest.raises(evidence.MissingDataError, match="spambase.npz"):
        evidence.load_data("spambase", tmp_path)
    assert "spambase.npz" in capsys.readouterr().err
    with pytest.raises(evidence.MissingDataError, match="DEEL_INFLUENCE_DATA") as raised:
        evidence.load_data("spambase", None)
    assert raised.value.code == os.EX_NOINPUT
    # A process of its own hands the error to the one that started it.
    assert pickle.loads(pickle.dumps(raised.value)).code == os.EX_NOINPUT


def test_mnist_is_downloaded_in_its_original_order(evidence, monkeypatch):
    images, labels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.arange(6)
    halves = (images[:4], labels[:4]), (images[4:], labels[4:])
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: halves)
    found = evidence.load_data("mnist", None)
    np.testing.assert_array_equal(found["x_train"], images[:4])
    np.testing.assert_array_equal(found["y_train"], labels[:4])
    np.testing.assert_array_equal(found["x_test"], images[4:])
    np.testing.assert_array_equal(found["y_test"], labels[4:])


def test_cifar_is_read_from_tensorflow_datasets(evidence, monkeypatch):
    def load(name: str, split: str, **_: Any) -> tuple[np.ndarray, np.ndarray]:
        assert name == "cifar10"
        count = {"train": 3, "test": 2}[split]
        return np.full((count, 2, 2, 3), count), np.arange(count)

    tfds = SimpleNamespace(load=load, as_numpy=lambda arrays: arrays)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    found = evidence.load_data("cifar10_12k", None)
    assert {name: len(array) for name, array in found.items()} == {
        "x_train": 3,
        "y_train": 3,
        "x_test": 2,
        "y_test": 2,
    }


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("", "done in"),
        ("raise SystemExit(3)", "FAILED after"),
        (
            f"import os, sys; print('needs wine.npz.', file=sys.stderr); os._exit({os.EX_NOINPUT})",
            "skipped: needs wine.npz",
        ),
    ],
)
def test_an_experiment_without_its_data_is_skipped_and_has_not_failed(
    script, end, monkeypatch, tmp_path
):
    reproduce = importlib.import_module("reproduce")
    monkeypatch.setattr(reproduce, "SCRIPTS", tmp_path)
    (tmp_path / "some.py").write_text(script)
    assert reproduce.run("some", "short").startswith(end)
