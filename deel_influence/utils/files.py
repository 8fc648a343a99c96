"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where what a killed writer leaves is not cleaned up
    fcntl = None  # type: ignore[assignment]

_OLD = "replaced"
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")


def npz_path(path: str | os.PathLike[str]) -> Path:
    """Return the path with ``.npz`` at its end, added if it is not there."""
    path = Path(path)
    return path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")


def is_empty(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what writers keep in it until they are done."""
    return all(_TEMPORARY.fullmatch(entry.name) for entry in folder.iterdir())


@contextmanager
def replacing(path: str | os.PathLike[str], only_new: bool = False) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes ``path`` when the block succeeds.

    What is written there may be a file or a folder. Where ``path`` is a symbolic link, its target
    is replaced. After an exception the old file or folder, if there was one, is still there. What
    killed writers of the same path have left behind is removed.

    Parameters
    ----------
    path
        Where to write. Its folder is made if it is missing.
    only_new
        Whether a file that another writer has put there meanwhile stays, and this one goes.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(target)
    # A folder beside the target is on the same file system, where a rename is atomic.
    folder, lock = _locked_folder(target)
    try:
        temporary = folder / target.name
        yield temporary
        _flush(temporary)
        if only_new:
            _link(temporary, target)
        else:
            _replace(temporary, target, folder / _OLD)
        _flush_entries(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _replace(temporary: Path, target: Path, aside: Path) -> None:
    if target.is_dir():  # which no rename replaces unless it is empty
        target.rename(aside)
    temporary.replace(target)


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        temporary.replace(target)


def _locked_folder(target: Path) -> tuple[Path, int | None]:
    """Make a folder of our own beside the target, locked for as long as this process lives."""
    while True:
        folder = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        folder.mkdir()
        lock = _lock(folder)
        # Another writer may have found it before it was locked, and taken it away.
        if folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, wait: bool = True) -> int | None:
    """Lock a folder, and return the descriptor that holds the lock; None if there is none."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another has it, or the file system has no locks
        os.close(descriptor)
        return None
    return descriptor


def _clean_up(target: Path) -> None:
    """Remove the temporary folders of writers that no longer live."""
    # In full, because those of "a.b" begin as those of "a" do.
    for folder in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 32}.tmp"):
        lock = _lock(folder, wait=False)
        if lock is None:
            continue
        old = folder / _OLD
        if old.exists() and not target.exists():
            old.rename(target)  # killed between two renames
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _flush(path: Path) -> None:
    """Have a file, or all of a folder, written to the disk."""
    for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())


def _flush_entries(folder: Path) -> None:
    if fcntl is not None:  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
