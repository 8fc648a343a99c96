"""Everything that the documentation shows runs, and its site builds without a warning."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import deel_influence

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)\n(?P<code>(?:.*\n)*?)(?P=indent)```$", re.M)
DOCTEST_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the number of lines before its code."""
    return [
        (text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"]))
        for match in FENCE.finditer(text)
        if match["info"].strip(" {.").startswith("py")
    ]


def pages_with_python() -> list[str]:
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [
        str(page.relative_to(ROOT))
        for page in pages
        if python_blocks(page.read_text(encoding="utf-8"))
    ]


def modules_with_examples() -> list[str]:
    found = pkgutil.walk_packages(deel_influence.__path__, "deel_influence.")
    origins = {info.name: importlib.util.find_spec(info.name).origin for info in found}
    return [name for name, file in origins.items() if ">>> " in Path(file).read_text("utf-8")]


def run_page(path: str, text: str) -> None:
    """Run a page's blocks one after the other, as a reader would who copies them all."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for lines_before, code in python_blocks(text):
        # The empty lines make a traceback show the line of the page.
        exec(compile("\n" * lines_before + code, path, "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", pages_with_python())
def test_every_python_block_of_the_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, (ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_the_module_are_right(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=DOCTEST_OPTIONS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "tutorial", sorted((DOCS / "tutorials").glob("*.py")), ids=lambda p: p.stem
)
def test_the_tutorial_runs(tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tutorial), run_name="__main__")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as built in strict mode, in which every warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    return folder


def test_the_site_has_the_reference_of_every_public_class(site: Path) -> None:
    page = (site / "api" / "influence" / "index.html").read_text(encoding="utf-8")
    assert 'id="deel_influence.influence.FirstOrderInfluenceCalculator"' in page


def test_the_site_fetches_nothing_from_other_servers(site: Path) -> None:
    fetched = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^>]+>")
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    assert [tag for page in pages for tag in fetched.findall(page)] == []


def test_a_page_with_a_broken_block_fails_at_its_line() -> None:
    page = "Text\n\n```python\nx = 1\n```\n\n```py\ny = x / 0\n```\n"
    with pytest.raises(ZeroDivisionError) as error:
        run_page("page.md", page)
    assert error.traceback[-1].lineno + 1 == 8


def test_blocks_in_lists_and_with_options_are_found() -> None:
    page = "- item\n\n    ```{.python .no-run}\n    x = 1\n    ```\n\n```console\n$ ls\n```\n"
    assert [before for before, _ in python_blocks(page)] == [3]
