"""Preparing datasets of TensorFlow Datasets without asking the cloud."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import DataSourceError, MissingExtraError
from .tfds import tfds

_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443, "ftp": 21}

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
    _check_hosts(builder)
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


def _check_hosts(builder: tfds.core.DatasetBuilder) -> None:
    """Refuse a download when its host does not answer, instead of trying for minutes.

    Raises
    ------
    DataSourceError
        Names the host.
    """
    folder = Path(builder.data_dir)
    root = folder.parents[builder.info.full_name.count("/")]
    if folder.exists() or any(root.glob("downloads/*")):  # which may hold all that is needed
        return
    for host, port in dict.fromkeys(map(_gate, builder.url_infos or ())):
        try:
            socket.create_connection((host, port), timeout=_SECONDS).close()
        except OSError as error:
            message = (
                f"The dataset {builder.name!r} must be prepared in {str(builder.data_dir)!r}, or "
                f"its files be downloaded now. Received: no answer from {host}, port {port}: "
                f"{error}. Check the network or the proxy, or set TFDS_DATA_DIR to a folder with "
                "the dataset."
            )
            raise DataSourceError(message) from error


def _gate(url: str) -> tuple[str, int]:
    """Return host and port that a download goes to first: the proxy, where there is one."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
