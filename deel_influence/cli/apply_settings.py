"""What ``deel-influence apply`` is asked to do, checked before TensorFlow is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import CommandError
from .settings import check_file, check_new_file, make_folder

_TABLES = (".csv", ".parquet")
_NO_FILE = "tfds:"


@dataclass(frozen=True)
class ApplySettings:
    """Which decisions to carry out on which data, and where the results go.

    Attributes
    ----------
    data, decisions, out, moves, log, drop, relabel, label, id
        The options of these names.
    """

    data: str
    decisions: Path
    out: Path | None
    moves: Path | None
    log: Path | None
    drop: bool = True
    relabel: bool = True
    label: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong, and places where something is that must stay."""
        check_file("--decisions", self.decisions)
        if (self.out is None) == (self.moves is None):
            message = (
                "--out or --moves must say where the results go. Received: "
                f"{'neither' if self.out is None else 'both'}. Pass one of them."
            )
            raise CommandError(message)
        if self.moves is not None and not self._is_folder:
            message = (
                "--moves lists the files of a folder of images. Received: --data "
                f"{self.data!r}. Pass --out."
            )
            raise CommandError(message)
        for option, path in (
            ("--out", self.out),
            ("--moves", self.moves),
            ("--log", self.log_path),
        ):
            if path is not None:
                self._check_apart(option, path)
        if self.moves is not None:
            check_new_file(self.moves, "--moves", ".json")
        elif self.out is not None and self._is_folder:
            self._check_new_folder(self.out)
        elif self.out is not None:
            check_new_file(self.out, "--out", self.path.suffix)
        check_new_file(self.log_path, "--log", ".csv")

    @property
    def path(self) -> Path:
        """The file or folder of the data."""
        return Path(self.data).expanduser()

    @property
    def is_table(self) -> bool:
        """Whether the data are a CSV or Parquet file."""
        return not self._is_folder and self.path.suffix.lower() in _TABLES

    @property
    def log_path(self) -> Path:
        """Where the log goes."""
        result = self.moves if self.out is None else self.out
        return Path(f"{result}.changes.csv") if self.log is None else self.log

    @property
    def _is_folder(self) -> bool:
        # A dataset of TensorFlow Datasets is written as a folder.
        return self.data.startswith(_NO_FILE) or self.path.is_dir()

    def _check_apart(self, option: str, path: Path) -> None:
        """Refuse a place that is, holds or lies within what is read."""
        place = path.resolve()
        read = [("--decisions", self.decisions.resolve())]
        if not self.data.startswith(_NO_FILE):
            read.append(("--data", self.path.resolve()))
        if option == "--log":
            result = self.moves if self.out is None else self.out
            read.append(("the results", Path(str(result)).resolve()))
        for name, source in read:
            if place == source or source in place.parents or place in source.parents:
                message = (
                    f"{option} must lie apart from {name}, which stays as it is. Received: "
                    f"{str(path)!r} beside {str(source)!r}. Choose another place."
                )
                raise CommandError(message)

    def _check_new_folder(self, path: Path) -> None:
        """Refuse a file, and a folder that something is in, which would be lost."""
        if path.is_dir() and any(path.iterdir()):
            message = (
                f"--out must be a new or empty folder. Received: {str(path)!r}, in which something "
                "is. Choose another, or remove it."
            )
            raise CommandError(message)
        if path.exists() and not path.is_dir():
            message = f"--out must be a folder, as --data is. Received: {str(path)!r}, a file."
            raise CommandError(message)
        make_folder(path.parent, "--out must lie in a folder that can be written")
