"""Public names whose module is imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def on_demand(package: str, **homes: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package, which imports the module of a name that is missing.

    Parameters
    ----------
    package
        The package's ``__name__``.
    homes
        For each name the module that defines it, relative to the package.
    """

    def get(name: str) -> Any:
        if name not in homes:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message)
        return getattr(importlib.import_module(homes[name], package), name)

    return get
