"""Functions and methods that take data in any form."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar

import tensorflow as tf

from .intake import as_dataset

_ANNOTATIONS = ("Data", "Data | None", "Data | PartialFit")
_MODELS = ("model", "influence_model", "model_influence")
_HOLDERS = ("self", "calculator")

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_data(function: Function) -> Function:
    """Have a function take data in any form where its arguments are annotated as `Data`."""
    names = _data_arguments(function)
    order = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def converting(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(order, args, strict=False)) | kwargs
        for name in names:
            value = given.get(name)
            if value is None or isinstance(value, tf.data.Dataset):
                continue
            converted = _converted(value, name, _model_among(given))
            if order.index(name) < len(args):
                place = order.index(name)
                args = (*args[:place], converted, *args[place + 1 :])
            else:
                kwargs[name] = converted
        return function(*args, **kwargs)

    return converting  # type: ignore[return-value]


class TakesData:
    """What takes data in any form in its methods, where arguments are annotated as `Data`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have the methods convert them, as `takes_data` does."""
        super().__init_subclass__(**kwargs)
        for name, member in list(vars(cls).items()):
            function = getattr(member, "__func__", member)  # of a class method
            if isinstance(function, FunctionType) and _data_arguments(function):
                converting = takes_data(function)
                setattr(cls, name, converting if function is member else classmethod(converting))


def _data_arguments(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.items()
    return [name for name, found in parameters if found.annotation in _ANNOTATIONS]


def _converted(value: Any, argument: str, model: Any) -> Any:
    # Sums of a fit stand in the place of data; those who take them know what they are.
    return value if getattr(value, "stands_for_data", False) else as_dataset(value, argument, model)


def _model_among(given: Mapping[str, Any]) -> Any:
    named = (given[name] for name in _MODELS if name in given)
    held = (getattr(given.get(name), "model", None) for name in _HOLDERS)
    return next(named, None) or next(filter(None, held), None)
