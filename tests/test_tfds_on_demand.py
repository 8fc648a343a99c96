"""TensorFlow Datasets is loaded where it is asked for, and one line says why it is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deel_influence.datasets import load_digits_dataset, load_source
from deel_influence.errors import MissingExtraError
from tests import source_rules

ROOT = Path(__file__).resolve().parents[1]
DATASETS = "deel_influence.datasets"
OF_TFDS = [
    f"{DATASETS}.{name}"
    for name in ("tfds", "tfds_source", "preparation", "digits.digits_dataset_builder")
]
OF_EXTRAS = ["deel_influence.shards.beam"]
"""What is there only with an extra that `all` leaves out."""
IMPORT_ALL = """
import importlib, sys
for name in ("tensorflow_datasets", "tensorflow_metadata"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_everything_but_what_reads_from_it_is_imported_without_it() -> None:
    modules = {module.name for module in source_rules.package_modules()}
    assert set(OF_TFDS) <= modules
    process = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *sorted(modules - {*OF_TFDS, *OF_EXTRAS})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


@pytest.fixture(params=["tensorflow_datasets", "tensorflow_metadata"])
def _hidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one of the packages be missing; the second is one that the first imports."""
    parts = [name for name in sys.modules if name.startswith(f"{request.param}.")]
    for name in [*OF_TFDS, *parts]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, request.param, None)


def from_the_package() -> object:
    from deel_influence.datasets import Digits

    return Digits


@pytest.mark.usefixtures("_hidden")
@pytest.mark.parametrize(
    "ask",
    [lambda: load_source("tfds:digits"), load_digits_dataset, from_the_package],
    ids=["source", "digits", "builder"],
)
def test_without_it_one_line_says_what_to_install(ask, caplog) -> None:
    with pytest.raises(MissingExtraError, match="pip install tensorflow-datasets") as error:
        ask()
    assert len(str(error.value).splitlines()) == 1
    # TensorFlow Datasets logs a traceback where it cannot import a part of itself.
    assert caplog.records == []


@pytest.mark.usefixtures("_hidden")
def test_without_it_a_file_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=np.zeros((3, 2)), y=np.arange(3))
    source = load_source(str(tmp_path / "train.npz"))
    assert [y.tolist() for _, y in source.dataset.as_numpy_iterator()] == [[0, 1, 2]]
