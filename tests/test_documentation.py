"""What the pages of the documentation show runs."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.py"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)\n(?P<code>(?:.*\n)*?)(?P=indent)```$", re.M)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the number of lines before its code."""
    return [
        (text.count("\n", 0, match.start("code")), textwrap.dedent(match["code"]))
        for match in FENCE.finditer(text)
        if match["info"].strip(" {.").startswith("py")
    ]


def pages_with_python() -> list[str]:
    # The page of a tutorial shows a script, which runs itself.
    shown = {script.with_suffix(".md") for script in TUTORIALS}
    pages = [ROOT / "README.md", *sorted(set(DOCS.rglob("*.md")) - shown)]
    return [
        str(page.relative_to(ROOT))
        for page in pages
        if python_blocks(page.read_text(encoding="utf-8"))
    ]


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


def test_the_readme_links_nowhere_that_a_package_index_does_not_have() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((?!https?://)[^)]*\)|<(?:img|a) ", readme) == []


def test_a_page_with_a_broken_block_fails_at_its_line() -> None:
    page = "Text\n\n```python\nx = 1\n```\n\n```py\ny = x / 0\n```\n"
    with pytest.raises(ZeroDivisionError) as error:
        run_page("page.md", page)
    assert error.traceback[-1].lineno + 1 == 8


def test_blocks_in_lists_and_with_options_are_found() -> None:
    page = "- item\n\n    ```{.python .no-run}\n    x = 1\n    ```\n\n```console\n$ ls\n```\n"
    assert [before for before, _ in python_blocks(page)] == [3]
