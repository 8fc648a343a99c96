"""One small problem for all rows of a module."""

from __future__ import annotations

import pytest

from tests.errors.small import Small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("small"))
