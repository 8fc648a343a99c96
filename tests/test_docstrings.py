"""The examples in docstrings are right."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import deel_influence

DOCTEST_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> list[str]:
    found = pkgutil.walk_packages(deel_influence.__path__, "deel_influence.")
    origins = {info.name: importlib.util.find_spec(info.name).origin for info in found}
    return [name for name, file in origins.items() if ">>> " in Path(file).read_text("utf-8")]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_the_module_are_right(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=DOCTEST_OPTIONS)
    assert result.attempted > 0
    assert result.failed == 0
