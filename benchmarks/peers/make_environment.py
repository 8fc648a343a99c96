"""Make the environment of the libraries that deel_influence is measured beside.

    python benchmarks/peers/make_environment.py FOLDER [--torch-index URL]

PyTorch comes from the index of its CPU builds, as one for GPUs is ten times as large. Nothing is
installed but what ``requirements.txt`` lists.
"""

from __future__ import annotations

import argparse
import subprocess
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    """Make it, or bring it up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch-index", default=TORCH_INDEX)
    args = parser.parse_args()
    venv.create(args.folder, with_pip=True)
    python = str(args.folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps"]
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    subprocess.run([*install, torch, "--extra-index-url", args.torch_index], check=True)
    subprocess.run([*install, "--requirement", str(REQUIREMENTS)], check=True)


if __name__ == "__main__":
    main()
