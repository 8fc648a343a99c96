"""Optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from deel_influence.errors import MissingExtraError


def require(module_name: str) -> Any:
    """Import and return a module that the extra ``report`` installs.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A package that is there but lacks a part of itself is broken, not missing.
        if error.name != module_name:
            raise
        message = (
            f"Reports need the package {module_name!r}, which is not installed. "
            'Install it with: pip install "deel-influence[report]"'
        )
        raise MissingExtraError(message) from error
