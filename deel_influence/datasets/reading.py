"""What went wrong when a training set failed while it was being read."""

from __future__ import annotations

import tensorflow as tf

from ..errors import DataSourceError
from .image_folder import unreadable_among
from .source import DataSource

READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
)
"""What TensorFlow raises when a file is corrupt, shortened or gone, or holds unfit values."""


def reading_error(source: DataSource, error: tf.errors.OpError) -> DataSourceError:
    """Return the error that tells a user why ``source`` could not be read to its end.

    Images are decoded while they are streamed, so that a truncated one shows only then, and
    TensorFlow's error does not say which: the files are looked through for it.

    Parameters
    ----------
    source
        The training set.
    error
        What TensorFlow raised.
    """
    culprit = unreadable_among(source.file_names or ())
    if culprit is not None:
        return culprit
    message = (
        f"The data source must be readable to its end and fit the model. Received: "
        f"{source.name!r}, which fails with: {error.message}"
    )
    return DataSourceError(message)
