"""The pages of the tutorials hold their scripts, and the program that writes them does its part."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
TUTORIALS = DOCS / "tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.py"))
PICTURE = re.compile(r"!\[[^\]\n]+\]\(images/([^)]+)\)")


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_tutorials", DOCS / "build_tutorials.py")
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up while it is being executed.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


program = load_program()

SCRIPT = """# %% [markdown]
# # Title
#
# Text with `code`.

# %%
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

figure, axes = plt.subplots()
axes.set_title("a line")
print("drawn")

# %%
Figure()

# %% tags=["remove-cell"]
assert figure
"""


def page(name: str) -> str:
    return (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "story.py").write_text(SCRIPT, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_the_page_holds_exactly_its_script(name: str) -> None:
    cells = program.read_cells((TUTORIALS / f"{name}.py").read_text(encoding="utf-8"))
    assert program.without_results(page(name)) == program.render(name, cells), (
        f"run `make tutorials`, or python docs/build_tutorials.py {name}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_pictures_of_the_page_are_there_and_small(name: str) -> None:
    pictures = PICTURE.findall(page(name))
    assert pictures == [f"{name}-{number + 1}.png" for number in range(len(pictures))]
    assert pictures != []
    sizes = [(TUTORIALS / "images" / picture).stat().st_size for picture in pictures]
    assert max(sizes) <= program.LARGEST_PICTURE


def test_every_picture_is_on_a_page() -> None:
    shown = {picture for name in NAMES for picture in PICTURE.findall(page(name))}
    assert {path.name for path in (TUTORIALS / "images").iterdir()} == shown


def test_the_list_of_tutorials_is_complete() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\((\w+)\.md\)", page("index"), re.M)
    assert sorted(listed) == NAMES


def test_a_page_shows_text_code_output_and_pictures_in_order(folder: Path) -> None:
    written = program.build("story", folder).read_text(encoding="utf-8")
    parts = [
        "# Title\n\nText with `code`.\n",
        "```python\nfrom matplotlib",
        '```text title="Output"\ndrawn\n```\n\n![a line](images/story-1.png)\n',
        "```python\nFigure()\n```\n\n![Title](images/story-2.png)\n",
        "[story.py](story.py)",
    ]
    positions = [written.index(part) for part in parts]
    assert positions == sorted(positions)
    assert "assert figure" not in written
    assert plt.get_fignums() == []
    assert sorted(p.name for p in (folder / "images").iterdir()) == ["story-1.png", "story-2.png"]


def test_a_page_without_its_results_is_what_needs_no_run(folder: Path) -> None:
    written = program.build("story", folder).read_text(encoding="utf-8")
    assert program.without_results(written) == program.render("story", program.read_cells(SCRIPT))


def test_a_change_of_the_script_shows_in_the_page(folder: Path) -> None:
    written = program.build("story", folder).read_text(encoding="utf-8")
    changed = program.read_cells(SCRIPT.replace("drawn", "painted"))
    assert program.without_results(written) != program.render("story", changed)


def test_building_twice_writes_the_same_files(folder: Path) -> None:
    contents = []
    for _ in range(2):
        program.build("story", folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]


def test_an_error_points_to_the_line_of_the_script(folder: Path) -> None:
    (folder / "story.py").write_text("# %%\nx = 1\n\n# %%\nx / 0\n", encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as error:
        program.build("story", folder)
    assert error.traceback[-1].lineno + 1 == 5


def test_a_cell_of_text_that_holds_code_is_refused() -> None:
    with pytest.raises(ValueError, match="comments only. Received: 'x = 1' in line 3"):
        program.read_cells("# %% [markdown]\n# Text.\nx = 1\n")


def test_a_script_that_does_not_begin_with_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="must begin with a cell"):
        program.read_cells('"""Text."""\n\n# %%\n')


def test_a_picture_that_is_too_large_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "LARGEST_PICTURE", 100)
    with pytest.raises(ValueError, match=r"100 bytes. Received: \d+ in story-1.png"):
        program.build("story", folder)
