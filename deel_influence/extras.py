"""Optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import MissingExtraError

# Packages whose name is not that of their module.
_PACKAGES = {
    "PIL": "pillow",
    "apache_beam": "apache-beam",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
}


def require(module_name: str, extra: str, needed_by: str) -> Any:
    """Import and return a module of a package that an extra of this library installs.

    Parameters
    ----------
    module_name
        The module.
    extra
        The extra.
    needed_by
        What needs it, as the beginning of a sentence: ``"Reports need"``.

    Raises
    ------
    MissingExtraError
        If the package, or another one that it imports itself, is not installed.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        package = missing.partition(".")[0]
        # A package that is there but lacks a part of itself is broken, not missing.
        if missing != package and not f"{module_name}.".startswith(f"{missing}."):
            raise
        message = (
            f"{needed_by} the package {_PACKAGES.get(package, package)!r}, which is not "
            f'installed. Install it with: pip install "deel-influence[{extra}]"'
        )
        raise MissingExtraError(message) from error
