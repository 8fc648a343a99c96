"""The site of the documentation: it builds without a warning, and reads as it should."""

from __future__ import annotations

import html
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pymdownx.superfences import SuperFencesException

import deel_influence

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
HEADING = re.compile(r'<h\d id="(deel_influence\.[\w.]+)" class="doc doc-heading"')
RESULTS = re.compile(r'doc-section-title">(?:Returns|Yields):</span></p>\s*<ul>(.*?)</ul>', re.S)
DESCRIPTION = re.compile(r'<div class="doc-md-description">(.*?)</div>', re.S)
FORMULA = re.compile(r"^```math$", re.M)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as built in strict mode, in which every warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    return folder


@pytest.fixture(scope="module")
def reference(site: Path) -> dict[str, str]:
    """The pages of the reference, by the package that they describe."""
    pages = site.glob("api/*/index.html")
    return {page.parent.name: page.read_text(encoding="utf-8") for page in pages}


def public(package: str) -> dict[str, object]:
    """The public classes and functions of a package, by their name in it."""
    library = importlib.import_module(f"deel_influence.{package}")
    members = {name: getattr(library, name) for name in getattr(library, "__all__", dir(library))}
    return {
        name: value
        for name, value in members.items()
        if inspect.isclass(value) or inspect.isroutine(value)
    }


def packages() -> list[str]:
    """The packages that have a page of their own in the reference."""
    found = {info.name for info in pkgutil.iter_modules(deel_influence.__path__) if info.ispkg}
    return sorted(found & {page.stem for page in (DOCS / "api").glob("*.md")})


@pytest.mark.parametrize("package", packages())
def test_the_reference_has_every_public_class_and_function(
    reference: dict[str, str], package: str
) -> None:
    page = reference[package]
    # A function in a module of its name is listed from there: the package's name is the module's.
    # What has its home with another package is a link to it.
    missing = [
        name
        for name, value in public(package).items()
        if not any(
            f'id="{home}.{name}"' in page
            for home in (f"deel_influence.{package}", value.__module__)
        )
        if not re.search(rf'href="\.\./\w+/#[\w.]+\.{name}"><code>{name}</code>', page)
    ]
    assert missing == []


def test_nothing_has_two_places_in_the_reference(reference: dict[str, str]) -> None:
    shown = HEADING.findall("".join(reference.values()))
    homes: dict[object, list[str]] = {}
    for package in reference:
        for name, value in public(package).items():
            if f"deel_influence.{package}.{name}" in shown:
                homes.setdefault(value, []).append(f"{package}.{name}")
    assert [places for places in homes.values() if len(places) > 1] == []


def test_no_class_repeats_what_a_base_describes(reference: dict[str, str]) -> None:
    shown = set(HEADING.findall("".join(reference.values())))
    classes = {
        f"deel_influence.{package}.{name}": value
        for package in reference
        for name, value in public(package).items()
        if inspect.isclass(value)
    }
    inherited = [
        (cls, base, name)
        for cls, library_class in classes.items()
        for base, library_base in classes.items()
        if library_base in library_class.__mro__[1:]
        for name, member in inspect.getmembers_static(library_class)
        if member is inspect.getattr_static(library_base, name, None)
        if f"{base}.{name}" in shown
    ]
    assert inherited != []
    assert [
        f"{cls}.{name}, of {base}" for cls, base, name in inherited if f"{cls}.{name}" in shown
    ] == []


def test_results_are_described_in_words(reference: dict[str, str]) -> None:
    described = [
        "".join(DESCRIPTION.findall(entry))
        for page in reference.values()
        for section in RESULTS.findall(page)
        for entry in section.split("<li ")[1:]
    ]
    assert described != []
    assert [text for text in described if not re.sub("<.*?>", "", text).strip()] == []


@pytest.mark.parametrize("mark", ["``", "]_", ".. [", ":class:", ":func:"])
def test_no_mark_of_another_language_is_left_in_the_reference(
    reference: dict[str, str], mark: str
) -> None:
    texts = {package: re.sub("<.*?>", "", page) for package, page in reference.items()}
    assert [package for package, text in texts.items() if mark in html.unescape(text)] == []


def test_every_formula_is_typeset(site: Path) -> None:
    pages = {page: page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")}
    formulas = {page: len(FORMULA.findall(text)) for page, text in pages.items()}
    assert sum(formulas.values()) > 0
    for page, number in formulas.items():
        parts = page.relative_to(DOCS).with_suffix("").parts
        folder = site.joinpath(*parts[:-1]) if parts[-1] == "index" else site.joinpath(*parts)
        built = (folder / "index.html").read_text(encoding="utf-8")
        assert built.count('<div class="formula"><math display="block">') == number, page


def load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_formula_that_is_wrong_ends_the_build() -> None:
    with pytest.raises(SuperFencesException, match=r"must be right LaTeX.*nosuchcommand"):
        load_hooks().typeset(r"x + \nosuchcommand", "math", "formula")


def test_the_site_fetches_nothing_from_other_servers(site: Path) -> None:
    fetched = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?(?:https?:)?//[^>]+>")
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    assert [tag for page in pages for tag in fetched.findall(page)] == []
    sheet = (site / "site.css").read_text(encoding="utf-8")
    (font,) = re.findall(r'url\("(.+?)"\)', sheet)
    assert (site / font).is_file()


def test_no_two_pages_have_one_title(site: Path) -> None:
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("index.html")]
    titles = [re.search("<title>(.*?)</title>", page)[1] for page in pages]
    assert sorted(titles) == sorted({*titles})
    assert all(title.endswith(f"deel_influence {deel_influence.__version__}") for title in titles)


def test_what_builds_the_site_is_no_part_of_it(site: Path) -> None:
    scripts = {path.relative_to(site) for path in site.rglob("*.py")}
    assert scripts == {path.relative_to(DOCS) for path in (DOCS / "tutorials").glob("*.py")}
