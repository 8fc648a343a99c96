"""The wheel and the sdist, built from a copy of what a build reads, and what is in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "deel_influence"
AROUND_THE_PACKAGE = (
    "CHANGELOG.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "pyproject.toml",
    "setup.cfg",
)


def copy_sources(folder: Path) -> Path:
    """Copy the sources to ``folder``: a build leaves files beside them, which a later one finds."""
    shutil.copytree(
        ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    for name in AROUND_THE_PACKAGE:
        shutil.copy(ROOT / name, folder)
    return folder


def build(sources: Path, out: Path, *options: str) -> None:
    """Build with the tool ``build``: the sdist, and from it the wheel, unless told otherwise."""
    command = [sys.executable, "-m", "build", "--outdir", str(out), *options, str(sources)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        message = f"{' '.join(command)} failed:\n{process.stdout}{process.stderr}"
        raise RuntimeError(message)


def files_of_the_package(root: Path) -> set[str]:
    """Return the files of the package below ``root``, by their path from there."""
    paths = (path.relative_to(root) for path in (root / PACKAGE).rglob("*") if path.is_file())
    return {
        path.as_posix()
        for path in paths
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def files_of_wheel(folder: Path) -> set[str]:
    """Return what the wheel in ``folder`` would install, its metadata apart."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def unpack_sdist(folder: Path, out: Path) -> Path:
    """Unpack the sdist in ``folder`` below ``out``; return where its files are."""
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    (unpacked,) = out.iterdir()
    return unpacked
