"""Models and weights as a user names them on the command line."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

from ..datasets.reading import READ_ERRORS, reading_error
from ..datasets.source import DataSource
from ..datasets.sources import load_source
from ..datasets.table import SUFFIXES, Columns
from ..errors import DataSourceError, DeelInfluenceError, MissingLossError, UnknownLayerError
from ..model.influence_model import InfluenceModel
from ..utils.reasons import reason_of
from .errors import CommandError, one_line
from .groups import Inputs

# What Keras raises on files that are no archive, lack parts, or need code that is not there.
_UNKNOWN_CLASS = re.compile(r"Could not locate (?:class|function) '([^']+)'")
_UNLOADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile)


def load_inputs(settings: Inputs) -> tuple[InfluenceModel, DataSource]:
    """Return the wrapped model and its training set, which fit each other.

    Raises
    ------
    DeelInfluenceError
        If one of them cannot be used.
    """
    own = import_modules(settings.imports or ())
    keras_model = load_model(settings.model, own)
    model = watch(keras_model, settings.weights, load_loss(settings.loss, own))
    return model, load_examples(model, settings, settings.data, "--data")


def load_examples(
    model: InfluenceModel,
    settings: Inputs,
    data: str,
    option: str,
    class_names: Sequence[str] | None = None,
) -> DataSource:
    """Return the examples that an option names, which fit the model.

    Labels that are texts are numbered in the order of ``class_names``, where it is given.

    Raises
    ------
    DeelInfluenceError
        If they cannot be used.
    """
    given = {"--label": settings.label, "--id": settings.id, "--text": settings.text}
    for name, column in given.items():
        if column is not None and Path(data).suffix.lower() not in SUFFIXES:
            message = (
                f"{name} names a column of a CSV or Parquet file. Received: {name} {column} beside "
                f"{option} {data}. Leave it out."
            )
            raise CommandError(message)
    source = load_source(
        data,
        settings.batch_size,
        columns=Columns(settings.label, settings.id, settings.text),
        model=model.model,
        class_names=class_names,
    )
    with named_read_errors(source):
        check_fit(model, source, option)
    return source


@contextmanager
def named_read_errors(source: DataSource) -> Iterator[None]:
    """Say which file or source it was where TensorFlow fails to read the data in the body."""
    try:
        yield
    except READ_ERRORS as error:
        raise reading_error(source, error) from error
    except DataSourceError as error:
        if isinstance(error.__cause__, READ_ERRORS):
            raise reading_error(source, error.__cause__) from error
        raise


def import_modules(modules: Sequence[str]) -> dict[str, Any]:
    """Run modules, given by name or as ``.py`` files, and return what they define, by name.

    Raises
    ------
    CommandError
        If one cannot be imported.
    """
    found: dict[str, Any] = {}
    for name in modules:
        try:
            found.update(vars(_imported(name)))
        except Exception as error:  # whatever the user's code raises
            message = (
                "--import must name a module that can be imported, or a .py file. Received: "
                f"{name!r}, which fails with: {type(error).__name__}: {one_line(error, 300)}"
            )
            raise CommandError(message) from error
    return {name: value for name, value in found.items() if callable(value)}


def _imported(name: str) -> ModuleType:
    path = Path(name)
    if path.suffix != ".py":
        # As `python -m` does; an installed command has not got the working folder on its path.
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        message = "no such file"
        raise FileNotFoundError(message)
    module = importlib.util.module_from_spec(spec)
    with _importable(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def load_model(path: Path, own: Mapping[str, Any] | None = None) -> keras.Model:
    """Load a model from a ``.keras`` file; code that the file may hold is not run.

    Parameters
    ----------
    path
        The file.
    own
        Layers and losses of the user's own, by name.

    Raises
    ------
    CommandError
        If the file is corrupt, or not loadable in safe mode.
    """
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise _no_model(path, f"it has {size:,} bytes that are no archive, or a part of one")
    try:
        with warnings.catch_warnings():
            # Nobody trains here.
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            return keras.models.load_model(path, custom_objects=own, safe_mode=True)
    except _UNLOADABLE as error:
        raise _no_model(path, error) from error


def _no_model(path: Path, error: object) -> CommandError:
    unknown = _UNKNOWN_CLASS.search(str(error))
    if unknown:
        message = (
            "--model must be made of layers that can be found. Received: "
            f"{str(path)!r}, which has a {unknown[1]!r} that Keras does not know. Pass "
            "--import MODULE, the Python module or file that defines it (its code is run)."
        )
        return CommandError(message)
    message = (
        f"--model must be a model that Keras can load in safe mode. Received: {str(path)!r}, "
        f"which fails with: {one_line(error, 500).rstrip('.')}. Save the model again with "
        "model.save('model.keras')."
    )
    return CommandError(message)


def load_loss(name: str | None, own: Mapping[str, Any] | None = None) -> Any:
    """Return the Keras loss called ``name``; None means the one the model is compiled with.

    Raises
    ------
    CommandError
        If Keras has no such loss.
    """
    if name is None:
        return None
    try:
        with keras.utils.custom_object_scope(own or {}):
            return keras.losses.get(name)
    except (ValueError, TypeError) as error:
        message = (
            f"--loss must be the name of a Keras loss. Received: {name!r}. "
            "See https://keras.io/api/losses; for example: sparse_categorical_crossentropy."
        )
        raise CommandError(message) from error


def watch(model: keras.Model, weights: str | None, loss: Any) -> InfluenceModel:
    """Return ``model`` watching the layers that ``weights`` names: ``LAYER`` or ``LAYER:LAYER``.

    Parameters
    ----------
    model
        The model.
    weights
        Names or indices of layers; None means the last layer that has weights.
    loss
        A loss, or None for the one that the model is compiled with.
    """
    start, _, last = (weights or "").partition(":")
    try:
        return InfluenceModel(
            model, start_layer=_layer_key(start), last_layer=_layer_key(last), loss_function=loss
        )
    except MissingLossError as error:
        message = (
            "--loss must name the Keras loss of a model that was saved without one. Received: "
            "neither. For example: --loss sparse_categorical_crossentropy."
        )
        raise CommandError(message) from error
    except UnknownLayerError as error:
        message = f"--weights must name LAYER or LAYER:LAYER of the model. {error}"
        raise CommandError(message) from error


def check_fit(model: InfluenceModel, source: DataSource, option: str = "--data") -> None:
    """Check on the first batch that the data, given by ``option``, are what the model takes.

    Raises
    ------
    CommandError
        If the model or its loss rejects the batch.
    """
    batch = next(iter(source.dataset))
    try:
        model.per_example_losses(batch)
    except DeelInfluenceError:
        # The library says itself what is wrong.
        raise
    except (ValueError, TypeError, tf.errors.OpError) as error:
        shapes = tf.nest.map_structure(lambda part: tuple(part.shape), batch)
        message = (
            f"{option} must be what the model and its loss take. Received: batches of shapes "
            f"{shapes} for a model of input shape {getattr(model.model, 'input_shape', '?')}, "
            f"which fail with: {reason_of(error)}"
        )
        raise CommandError(message) from error


def _layer_key(text: str) -> str | int | None:
    if not text:
        return None
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else text
