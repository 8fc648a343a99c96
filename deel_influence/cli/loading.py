"""Models and weights as a user names them on the command line."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ..datasets.image_folder import ImageShape
from ..datasets.reading import READ_ERRORS, reading_error
from ..datasets.source import DataSource
from ..datasets.sources import load_source
from ..errors import DataSourceError, DeelInfluenceError, MissingLossError, UnknownLayerError
from ..model.influence_model import InfluenceModel
from .errors import CommandError, one_line

# What Keras raises on files that are no archive, lack parts, or need code that is not there.
_UNLOADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile)


def load_inputs(
    model_path: Path, data: str, weights: str | None, loss: str | None, batch_size: int
) -> tuple[InfluenceModel, DataSource]:
    """Return the wrapped model and its training set, which fit each other.

    Parameters
    ----------
    model_path, data, weights, loss, batch_size
        The options ``--model``, ``--data``, ``--weights``, ``--loss`` and ``--batch-size``.

    Raises
    ------
    DeelInfluenceError
        If one of them cannot be used.
    """
    keras_model = load_model(model_path)
    model = watch(keras_model, weights, load_loss(loss))
    source = load_source(data, batch_size, image_shape(keras_model))
    with named_read_errors(source):
        check_fit(model, source)
    return model, source


def load_queries(model: InfluenceModel, queries: str, batch_size: int) -> DataSource:
    """Return the examples that ``--queries`` names, which fit the model.

    Raises
    ------
    DeelInfluenceError
        If they cannot be used.
    """
    source = load_source(queries, batch_size, image_shape(model.model))
    with named_read_errors(source):
        check_fit(model, source, "--queries")
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


def load_model(path: Path) -> keras.Model:
    """Load a model from a ``.keras`` file; code that the file may hold is not run.

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
            return keras.models.load_model(path, safe_mode=True)
    except _UNLOADABLE as error:
        raise _no_model(path, one_line(error, 500).rstrip(".")) from error


def _no_model(path: Path, reason: str) -> CommandError:
    message = (
        f"--model must be a model that Keras can load in safe mode. Received: {str(path)!r}, "
        f"which fails with: {reason}. Save the model again with model.save('model.keras')."
    )
    return CommandError(message)


def load_loss(name: str | None) -> Any:
    """Return the Keras loss called ``name``; None means the one the model is compiled with.

    Raises
    ------
    CommandError
        If Keras has no such loss.
    """
    if name is None:
        return None
    try:
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


def image_shape(model: keras.Model) -> ImageShape | None:
    """Return the ``(height, width, channels)`` that ``model`` takes, or None if it takes others."""
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3, 4):
        return shape[1:]
    return None


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
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        shapes = tf.nest.map_structure(lambda part: tuple(part.shape), batch)
        message = (
            f"{option} must be what the model and its loss take. Received: batches of shapes "
            f"{shapes} for a model of input shape {getattr(model.model, 'input_shape', '?')}, "
            f"which fail with: {one_line(error, 400)}"
        )
        raise CommandError(message) from error


def _layer_key(text: str) -> str | int | None:
    if not text:
        return None
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else text
