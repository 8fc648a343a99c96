"""What functions, losses and layers compute, as values that JSON can hold.

Computations that differ have different descriptions, and the same one has the same in every
process, before and after its model was saved and loaded. So functions are described by their code
and by the values that it reads: constants, defaults, closures, globals, and attributes of the
objects whose methods they are. Configurations are not asked for: Keras writes lambdas into them as
bytes that depend on reference counts, and those of a user's layers may fail.
"""

from __future__ import annotations

import builtins
import enum
import functools
import hashlib
import inspect
import json
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .code_reading import arguments_of, has_library_module, is_of_library, methods_of, read_by
from .keras_internals import all_layers

# Of these, training and the regulariser of the objective are told elsewhere.
_NO_COMPUTATION = ("_initializer", "_constraint", "_regularizer")

_OF_KERAS = (keras.layers.Layer, keras.losses.Loss, keras.optimizers.Optimizer)

# Settings that change what is shown, and no result.
_ONLY_SHOWN = frozenset({"verbose", "use_tensorboard"})


def describe(value: Any, known: Iterable[keras.layers.Layer] = ()) -> Any:
    """Return what identifies a computation, or a setting of one.

    Parameters
    ----------
    value
        A function, an object that is called, or what they hold.
    known
        Layers that are described elsewhere, and stand here by the name of their class; so do
        their weights.

    Examples
    --------
    >>> describe(lambda x: x - 1) == describe(lambda z: z - 1)
    True
    >>> describe(lambda x: x - 1) == describe(lambda x: x - 2)
    False
    """
    return _Walk(known).of(value)


def describe_settings(value: Any) -> Any:
    """Return what identifies settings, and objects that hold settings.

    As `describe`, but that objects which are no part of Keras count with all their public
    attributes, whatever their code reads.

    Examples
    --------
    >>> describe_settings([3, {"a"}, len])
    [3, ['a'], 'builtins.len']
    """
    return _Walk((), with_public=True).of(value)


def describe_layers(model: keras.Model) -> list[Any]:
    """Return what identifies the computations of a model's layers, weights and names apart."""
    layers = all_layers(model)
    return [[layer.compute_dtype, _Walk(layers).layer(layer)] for layer in layers]


class _Walk:
    """One walk over a computation and what it reads.

    Parameters
    ----------
    known
        Layers that are described elsewhere.
    with_public
        Whether all public attributes of an object count.
    """

    def __init__(self, known: Iterable[keras.layers.Layer], with_public: bool = False) -> None:
        self._with_public = with_public
        self._known_ids: set[int] = set()
        self._note(known)
        self._met: dict[int, tuple[int, Any]] = {}
        # Attributes that the code which led here reads: those of an object that count.
        self._names: frozenset[str] = frozenset()

    @functools.singledispatchmethod
    def of(self, value: Any) -> Any:
        """Describe a value by its kind, and other objects by their class and attributes."""
        return self._once(value, self._object)

    @of.register(types.NoneType)
    @of.register(bool)
    @of.register(int)
    @of.register(str)
    def _(self, value: Any) -> Any:
        return value

    @of.register(float)
    def _(self, value: float) -> float | str:
        # JSON has no infinity and no NaN, which would not even equal itself.
        return value if math.isfinite(value) else repr(value)

    @of.register(bytes)
    @of.register(complex)
    @of.register(range)
    @of.register(slice)
    @of.register(types.EllipsisType)
    @of.register(enum.Enum)
    @of.register(os.PathLike)
    @of.register(np.dtype)
    @of.register(tf.DType)
    @of.register(tf.TensorShape)
    def _(self, value: Any) -> str:
        return repr(value)

    @of.register(list)
    @of.register(tuple)
    def _(self, value: Any) -> list[Any]:
        return [self.of(part) for part in value]

    @of.register(set)
    @of.register(frozenset)
    def _(self, value: Any) -> list[Any]:
        return sorted((self.of(part) for part in value), key=json.dumps)

    @of.register(Mapping)
    def _(self, value: Mapping[Any, Any]) -> list[Any]:
        pairs = [[self.of(key), self.of(part)] for key, part in value.items()]
        return sorted(pairs, key=json.dumps)

    @of.register(np.ndarray)
    @of.register(np.generic)
    def _(self, value: Any) -> Any:
        if value.ndim == 0 or value.dtype.hasobject:
            return self.of(value.tolist())
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return [value.dtype.name, list(value.shape), content]

    @of.register(keras.Variable)
    def _(self, value: keras.Variable) -> Any:
        return "weight" if id(value) in self._known_ids else self.of(value.value)

    @of.register(tf.Tensor)
    @of.register(tf.Variable)
    def _(self, value: Any) -> Any:
        tensor = tf.convert_to_tensor(value)
        if tf.is_symbolic_tensor(tensor):
            return [tensor.dtype.name, str(tensor.shape)]
        return self.of(tensor.numpy())

    @of.register(types.ModuleType)
    def _(self, value: types.ModuleType) -> str:
        return value.__name__

    @of.register(type)
    @of.register(np.ufunc)
    @of.register(types.BuiltinFunctionType)
    def _(self, value: Any) -> str:
        return _name_of(value)

    @of.register(functools.partial)
    def _(self, value: functools.partial) -> list[Any]:
        return [self.of(part) for part in (value.func, value.args, value.keywords)]

    @of.register(types.MethodType)
    def _(self, value: types.MethodType) -> list[Any]:
        names = read_by(value.__func__.__code__).names
        return [self.of(value.__func__), self._reading(names, value.__self__)]

    @of.register(types.FunctionType)
    def _(self, value: types.FunctionType) -> Any:
        return _name_of(value) if is_of_library(value) else self._once(value, self._function)

    @of.register(types.CodeType)
    def _(self, value: types.CodeType) -> str:
        variadic = value.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
        form = [value.co_argcount, value.co_kwonlyargcount, variadic, value.co_names]
        constants = [self.of(constant) for constant in value.co_consts]
        return _digest([value.co_code.hex(), form, constants])

    @of.register(tf.types.experimental.PolymorphicFunction)
    def _(self, value: Any) -> Any:
        return self.of(value.python_function)

    @of.register(keras.layers.Layer)
    def _(self, value: keras.layers.Layer) -> Any:
        if id(value) in self._known_ids:
            return _name_of(type(value))
        inside, weights = all_layers(value), [weight.value for weight in value.weights]
        self._note(inside)
        return [[self.layer(layer) for layer in inside], self.of(weights)]

    def layer(self, value: keras.layers.Layer) -> Any:
        """Describe one layer, known or not, without its weights and the layers inside it."""
        is_graph = isinstance(value, keras.Model) and is_of_library(type(value))
        return _name_of(type(value)) if is_graph else self._once(value, self._object)

    def _note(self, known: Iterable[keras.layers.Layer]) -> None:
        for layer in known:
            self._known_ids |= {id(layer), *map(id, layer.variables)}

    def _once(self, value: Any, look: Callable[[Any], Any]) -> Any:
        """Describe what may lead back to itself; where it has been met, by a number."""
        if id(value) in self._met:
            return f"#{self._met[id(value)][0]}"
        self._met[id(value)] = (len(self._met), value)
        return look(value)

    def _reading(self, names: frozenset[str], value: Any) -> Any:
        """Describe what code that reads these attributes refers to."""
        before, self._names = self._names, names
        description = self.of(value)
        self._names = before
        return description

    def _function(self, function: types.FunctionType) -> dict[str, str]:
        code, reads = function.__code__, read_by(function.__code__)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        values = [_content(cell) for name, cell in cells if name not in reads.written]
        values += [
            function.__globals__.get(name, getattr(builtins, name, None))
            for name in reads.globals
            if name not in reads.written
        ]
        found = [function.__defaults__, function.__kwdefaults__, values]
        content = [self.of(code), self._reading(reads.names, found)]
        return {"function": code.co_name, "digest": _digest(content)}

    def _object(self, value: Any) -> Any:
        kind: Any = type(value)
        called = frozenset() if is_of_library(kind) else self._names
        methods = methods_of(kind, called)
        reads = [read_by(method.__code__) for method in methods]
        names = called.union(*(part.names for part in reads))
        attributes = getattr(value, "__dict__", {})
        if isinstance(value, (keras.layers.Layer, keras.optimizers.Optimizer)):
            names |= arguments_of(kind)
        if isinstance(value, _OF_KERAS):
            names -= _bookkeeping()
        elif self._with_public:
            names = names.union(n for n in attributes if not n.startswith("_")) - _ONLY_SHOWN
        names = names.difference(*(part.written for part in reads))
        kept = sorted(n for n in names & attributes.keys() if not n.endswith(_NO_COMPUTATION))
        parts = {
            "attributes": {name: self._reading(names, attributes[name]) for name in kept},
            "methods": [self.of(method) for method in methods if not has_library_module(method)],
        }
        parts = {name: part for name, part in parts.items() if part}
        return {"class": _name_of(kind), **parts} if parts else _name_of(kind)


@functools.cache
def _bookkeeping() -> frozenset[str]:
    """Return the attributes that every layer, or every loss, has: names and the like."""
    layer, loss = keras.layers.Layer(name="any"), keras.losses.Loss(name="any")
    return frozenset(vars(layer)) | frozenset(vars(loss))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _name_of(value: Any) -> str:
    """Return the name of a class or function, with its module where that is a library's."""
    return f"{value.__module__}.{value.__name__}" if is_of_library(value) else value.__name__


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
