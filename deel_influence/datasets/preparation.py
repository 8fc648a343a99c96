"""Preparing datasets of TensorFlow Datasets without asking the cloud."""

from __future__ import annotations

from ..errors import DataSourceError, MissingExtraError
from .tfds import tfds

# A dataset that is to be prepared now may want a download, an extra package, or files that only
# the user can fetch (an AssertionError with instructions).
_NOT_PREPARED = (OSError, ImportError, AssertionError, tfds.download.DownloadError)


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Prepare a dataset unless it is prepared already.

    Parameters
    ----------
    builder
        The builder of the dataset.

    Raises
    ------
    DataSourceError
        If it cannot be downloaded or written.
    MissingExtraError
        If an extra of this library is not installed.
    """
    try:
        # Google Cloud Storage is never asked: where there is no network that takes minutes.
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except MissingExtraError:
        # An ImportError as well, but one that names the remedy.
        raise
    except _NOT_PREPARED as error:
        message = (
            f"The dataset {builder.name!r} must be prepared in {str(builder.data_dir)!r} or be "
            f"preparable now. Received: {type(error).__name__}: {error} "
            "Another folder can be set with the environment variable TFDS_DATA_DIR."
        )
        raise DataSourceError(message) from error
