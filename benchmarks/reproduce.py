"""Run the reproductions one after the other, each in a process of its own.

One that fails does not keep the others from running; the last lines say how each ended. One whose
data is not there is skipped, which is no failure.

    python benchmarks/reproduce.py --form short
    python benchmarks/reproduce.py koh_liang_fig3 pydvl_wine
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import evidence_pages

SCRIPTS = Path(__file__).resolve().parent / "reproductions"


def experiments() -> list[str]:
    """Return the names of the reproductions: those that have a page."""
    pages = {page.stem for page in evidence_pages.PAGES.glob("*.md")}
    return sorted(pages & {script.stem for script in SCRIPTS.glob("*.py")})


def run(name: str, form: str) -> str:
    """Run a reproduction and return how it ended, in a word or two."""
    print(f"== {name}", flush=True)
    start = time.perf_counter()
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "--form", form]
    ended, errors = run_and_show(command)
    duration = f"{time.perf_counter() - start:.0f} s"
    if ended == 0:
        return f"done in {duration}"
    if ended == os.EX_NOINPUT:
        return f"skipped: needs {missing_file(errors)}"
    return f"FAILED after {duration} (exit {ended})"


def run_and_show(command: list[str]) -> tuple[int, str]:
    """Run a command and return its exit status and what it wrote as errors, also shown."""
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr or ():
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def missing_file(errors: str) -> str:
    """Return the last file of data that errors name."""
    return ["data (see above)", *re.findall(r"\w+\.npz", errors)][-1]


def main() -> None:
    """Run what is asked for, all if nothing is."""
    known = experiments()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(known)}")
    parser.add_argument("--form", choices=("full", "short", "smoke"), default="full")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"NAME must be one of {', '.join(known)}. Received: {', '.join(unknown)}.")
    ends = {name: run(name, options.form) for name in options.names or known}
    if options.form == "full":
        evidence_pages.main()
    for name, end in ends.items():
        print(f"{name}: {end}")
    sys.exit(int(any("FAILED" in end for end in ends.values())))


if __name__ == "__main__":
    main()
