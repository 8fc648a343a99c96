"""Run the tutorials and write their pages, with what they print and the pictures that they draw.

A tutorial is a script in percent format: `# %%` begins a cell of code and `# %% [markdown]` one
of text, written as comments. Code under `# %% tags=["remove-cell"]` runs, but is not shown. As in
a notebook, a cell's pictures are the figures of pyplot that it leaves open, and the value of its
last line if that is a figure.

    python docs/build_tutorials.py            # all of them
    python docs/build_tutorials.py getting_started
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

TUTORIALS = Path(__file__).resolve().parent / "tutorials"
LARGEST_PICTURE = 60_000
"""Bytes; a tutorial whose picture is larger is not written."""

_MARKER = re.compile(r"# %%(?P<options>.*)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)
_MOST_TITLES = 3
_COLOURS = 128
_OUTPUT = '```text title="Output"'
_MADE = re.compile(r'\n```text title="Output"\n.*?\n```\n|\n!\[[^\n]*\]\(images/[^\n]*\)\n', re.S)


@dataclass(frozen=True)
class Cell:
    """A cell of a script.

    Attributes
    ----------
    is_text
        Whether it holds Markdown; otherwise it holds code.
    source
        The Markdown, or the code.
    line
        Number of lines of the script before the source.
    hidden
        Whether it runs without being shown.
    """

    is_text: bool
    source: str
    line: int
    hidden: bool = False


@dataclass(frozen=True)
class Result:
    """What a cell printed, and its figures."""

    output: str = ""
    figures: tuple[Figure, ...] = ()


def read_cells(script: str) -> list[Cell]:
    """Return the cells of a script.

    Raises
    ------
    ValueError
        If the script does not begin with a cell, or a cell of text holds anything but comments.
    """
    lines = script.splitlines()
    starts = [index for index, line in enumerate(lines) if _MARKER.fullmatch(line)]
    if starts[:1] != [0]:
        message = "A tutorial must begin with a cell, `# %%`. Put the marker on its first line."
        raise ValueError(message)
    ends = [*starts[1:], len(lines)]
    return [_cell(lines, *bounds) for bounds in zip(starts, ends, strict=True)]


def _cell(lines: list[str], start: int, end: int) -> Cell:
    options = _MARKER.fullmatch(lines[start])["options"]
    body, is_text = lines[start + 1 : end], "[markdown]" in options
    if is_text:
        body = [_uncommented(line, number) for number, line in enumerate(body, start + 2)]
    return Cell(is_text, "\n".join(body).strip("\n"), start + 1, "remove-cell" in options)


def _uncommented(line: str, number: int) -> str:
    if line and not line.startswith("#"):
        message = (
            f"A cell of text must hold comments only. Received: {line!r} in line {number}. "
            "Begin a cell of code with `# %%`."
        )
        raise ValueError(message)
    return line.removeprefix("#").removeprefix(" ")


def run_cells(cells: list[Cell], path: str) -> Iterator[Result]:
    """Run the cells of a script one after the other; give what each brought forth."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        yield Result() if cell.is_text else _run(cell, namespace, path)


def _run(cell: Cell, namespace: dict[str, Any], path: str) -> Result:
    # The empty lines make a traceback show the line of the script.
    body = ast.parse("\n" * cell.line + cell.source, path).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), path, "exec", dont_inherit=True), namespace)
        value = None
        if last is not None:
            expression = compile(ast.Expression(last.value), path, "eval", dont_inherit=True)
            value = eval(expression, namespace)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    figures += [value] if isinstance(value, Figure) and value not in figures else []
    plt.close("all")
    return Result(printed.getvalue(), tuple(figures))


def render(name: str, cells: list[Cell], additions: list[str] | None = None) -> str:
    """Return the page of a tutorial.

    Parameters
    ----------
    name
        Name of the script, without suffix.
    cells
        Its cells.
    additions
        What stands below each cell; None leaves out what only a run can tell.
    """
    parts = [f"<!-- Made from {name}.py by docs/build_tutorials.py: change that and run it. -->"]
    for cell, addition in zip(cells, additions or [""] * len(cells), strict=True):
        shown = cell.source if cell.is_text else f"```python\n{cell.source}\n```"
        parts += [] if cell.hidden else [shown]
        parts += [addition] if addition else []
    parts += [f"This page is the script [{name}.py]({name}.py), which opens as a notebook too."]
    return "\n\n".join(parts) + "\n"


def without_results(page: str) -> str:
    """Return a page without what only a run can tell: output and pictures."""
    return _MADE.sub("", page)


def title_of(figure: Figure, heading: str) -> str:
    """Return what a figure shows, in words: its title, or those of its axes if they are few.

    Parameters
    ----------
    figure
        The figure.
    heading
        What stands for a title where there is none, or too many.
    """
    titles = [figure.get_suptitle()]
    if not titles[0]:
        titles = [axes.get_title() for axes in figure.axes]
    words = [" ".join(title.split()) for title in titles if title]
    return ", ".join(words) if 0 < len(words) <= _MOST_TITLES else heading


def build(name: str, folder: Path = TUTORIALS) -> Path:
    """Run a tutorial in an empty folder, and write its page and its pictures.

    Raises
    ------
    ValueError
        If a picture is too large.
    """
    script = folder / f"{name}.py"
    cells = read_cells(script.read_text(encoding="utf-8"))
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for old in images.glob(f"{name}-*.png"):
        old.unlink()
    additions, count, heading = [], 0, name
    with _empty_folder():
        for cell, result in zip(cells, run_cells(cells, str(script)), strict=True):
            if cell.is_text:
                heading = [heading, *_HEADING.findall(cell.source)][-1]
            added = [f"{_OUTPUT}\n{result.output.rstrip()}\n```"] if result.output.strip() else []
            for figure in result.figures:
                count += 1
                picture = _save(figure, images / f"{name}-{count}.png")
                added.append(f"![{title_of(figure, heading)}](images/{picture.name})")
            additions.append("\n\n".join(added))
    page = folder / f"{name}.md"
    page.write_text(render(name, cells, additions), encoding="utf-8")
    return page


def _save(figure: Figure, path: Path) -> Path:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette takes a third of the room, and without the version of Matplotlib the same picture
    # is the same file.
    Image.open(drawn).convert("RGB").quantize(_COLOURS).save(path, optimize=True)
    if path.stat().st_size > LARGEST_PICTURE:
        message = (
            f"A picture may have {LARGEST_PICTURE} bytes. "
            f"Received: {path.stat().st_size} in {path.name}. Draw fewer points, or a smaller one."
        )
        raise ValueError(message)
    return path


@contextlib.contextmanager
def _empty_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def main(arguments: list[str] | None = None) -> None:
    """Build the pages that the command line names, or all."""
    names = sorted(path.stem for path in TUTORIALS.glob("*.py"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="tutorials (default: all)")
    chosen = parser.parse_args(arguments).names
    matplotlib.use("Agg")
    for name in chosen or names:
        print(build(Path(name).stem))


if __name__ == "__main__":
    main()
