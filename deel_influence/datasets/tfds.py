"""TensorFlow Datasets, or one line on why it is not to be had.

Only the modules that read from it import this one, and they are imported when it is asked for:
files and arrays do without.
"""

import importlib

from ..errors import MissingExtraError

__all__ = ["tfds"]

try:
    # Tried first: releases from 1.18 on need a newer protobuf than TensorFlow before 2.18 admits,
    # and do not say so; TensorFlow Datasets logs a traceback of it, and goes on without its parts.
    importlib.import_module("tensorflow_metadata.proto.v0.schema_pb2")
    import tensorflow_datasets as tfds
    import tensorflow_datasets.core  # noqa: F401 - the first of these parts
except ImportError as error:
    message = (
        "Sources `tfds:NAME` and the digits need the package 'tensorflow-datasets', which cannot "
        f"be imported: {error}. Install it with: pip install tensorflow-datasets; beside "
        "TensorFlow 2.16 or 2.17 with: pip install tensorflow-datasets 'tensorflow-metadata<1.18'"
    )
    raise MissingExtraError(message) from error
