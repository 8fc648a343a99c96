"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes ``path`` when the block succeeds.

    The folder of ``path`` is made if it is missing. After an exception the old file, if there
    was one, is still there, and the temporary one is gone.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder beside the target is on the same file system, where a rename is atomic. The file
    # inside gets the ordinary permissions, which a temporary file would not.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        os.replace(temporary, target)
