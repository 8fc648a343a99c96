"""What the code of functions and methods refers to by name."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from dataclasses import dataclass
from typing import Any

import keras

# Known by name: another release may write the same computation in another way.
_LIBRARIES = ("builtins", "keras", "numpy", "tensorflow")

_STORES = ("STORE_ATTR", "STORE_GLOBAL", "STORE_DEREF")

# What all layers, models and losses share runs in every call, and is no setting of one.
_SHARED = frozenset({*keras.Model.__mro__, *keras.losses.Loss.__mro__})


@dataclass(frozen=True)
class Reads:
    """What a function's code, and that of the functions within it, refers to by name.

    Attributes
    ----------
    globals
        Global variables, in order.
    names
        Attributes, and texts that may be the name of one.
    written
        Attributes and variables of other scopes that the code sets: state, and no settings.
    """

    globals: tuple[str, ...]
    names: frozenset[str]
    written: frozenset[str]


@functools.lru_cache(maxsize=4096)
def read_by(code: types.CodeType) -> Reads:
    """Return what code refers to by name."""
    steps = list(dis.get_instructions(code))
    texts = [part for part in code.co_consts if isinstance(part, str)]
    inner = [read_by(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    loaded = [step.argval for step in steps if step.opname == "LOAD_GLOBAL"]
    stored = [step.argval for step in steps if step.opname in _STORES]
    return Reads(
        tuple(dict.fromkeys([*loaded, *(name for part in inner for name in part.globals)])),
        frozenset([*code.co_names, *texts]).union(*(part.names for part in inner)),
        frozenset(stored).union(*(part.written for part in inner)),
    )


@functools.lru_cache(maxsize=1024)
def methods_of(kind: type, called: frozenset[str]) -> tuple[types.FunctionType, ...]:
    """Return the methods of a class that run when an object of it is called, or a method of those.

    Parameters
    ----------
    kind
        The class. Getters of its properties count as methods, and so does what it overrides; what
        Keras's layers do does not, of which the arguments tell enough.
    called
        Names of further methods that may be called.
    """
    bases = [base for base in kind.__mro__ if base not in _SHARED and not _is_keras_layer(base)]
    pending = ["call", "compute_mask"] if hasattr(kind, "call") else ["__call__"]
    pending += sorted(called)
    found: dict[str, list[types.FunctionType]] = {}
    for name in pending:  # which grows
        if name not in found:
            members = [_function_in(vars(base)[name]) for base in bases if name in vars(base)]
            found[name] = [member for member in members if isinstance(member, types.FunctionType)]
            for function in found[name]:
                pending += sorted(read_by(function.__code__).names)
    return tuple(function for functions in found.values() for function in functions)


@functools.lru_cache(maxsize=1024)
def arguments_of(kind: type) -> frozenset[str]:
    """Return the names under which an object may hold the arguments that it was made with."""
    makers = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    functions = [maker for maker in makers if isinstance(maker, types.FunctionType)]
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return frozenset(names | {f"_{name}" for name in names})


def is_of_library(value: Any) -> bool:
    """Tell whether a function or class is what a library has under that name."""
    if not has_library_module(value):
        return False
    found: Any = sys.modules.get(value.__module__)
    for part in getattr(value, "__qualname__", value.__name__).split("."):
        found = getattr(found, part, None)
    return found is value


def has_library_module(value: Any) -> bool:
    """Tell whether a function or class was written in a library's module."""
    module = getattr(value, "__module__", None) or ""
    return module.partition(".")[0] in _LIBRARIES


def _is_keras_layer(kind: type) -> bool:
    return issubclass(kind, keras.layers.Layer) and is_of_library(kind)


def _function_in(member: Any) -> Any:
    """Return the function in a property, a static method or a class method."""
    member = getattr(member, "fget", None) or getattr(member, "__func__", member)
    return inspect.unwrap(member) if callable(member) else member
