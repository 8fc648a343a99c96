"""The settings of a strategy, said once: by the signature of its constructor."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from ..utils.arguments import settings_of

_NO_SETTINGS = ("model", "train_dataset", "train_hessian", "extractor_layer", "feature_extractor")


Kind = TypeVar("Kind", bound="HasSettings")


class HasSettings:
    """What knows the settings that its constructor was called with."""

    config: dict[str, Any]
    """The settings by name: what the constructor was called with, beside model and data."""

    def __new__(cls: type[Kind], *args: Any, **kwargs: Any) -> Kind:
        """Note the settings."""
        new = super().__new__(cls)
        new.config = settings_of(cls, args, kwargs, _NO_SETTINGS)
        return new

    @classmethod
    def accepted_settings(cls) -> set[str]:
        """Return the names of the arguments that the strategy takes."""
        return set(inspect.signature(cls.__init__).parameters) - {"self"}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, beside model and data, that make such a strategy again."""
        return dict(self.config)
