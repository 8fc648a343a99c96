"""What is in the repository's package is in the wheel and in the sdist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging import distributions

# Without it, the build tool asks a package index for setuptools.
OFFLINE = "--no-isolation"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distributions.copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def from_sdist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist, and of the wheel that is built from it."""
    out = tmp_path_factory.mktemp("sdist")
    distributions.build(sources, out, OFFLINE)
    return out


def test_the_wheel_has_every_file_of_the_package_and_no_other(sources, tmp_path):
    distributions.build(sources, tmp_path, OFFLINE, "--wheel")
    files = distributions.files_of_wheel(tmp_path)
    assert files == distributions.files_of_the_package(distributions.ROOT)
    assert {"py.typed", "report/templates/page.html", "datasets/digits/TAGS.txt"} <= {
        name.removeprefix("deel_influence/") for name in files
    }


def test_the_sdist_has_every_file_of_the_package_and_what_a_build_reads(from_sdist, tmp_path):
    unpacked = distributions.unpack_sdist(from_sdist, tmp_path)
    assert distributions.files_of_the_package(unpacked) == distributions.files_of_the_package(
        distributions.ROOT
    )
    found = {path.name for path in unpacked.iterdir()}
    assert set(distributions.AROUND_THE_PACKAGE) <= found
    # Half of the tests, which setuptools takes in unasked, would not run.
    assert "tests" not in found


def test_a_wheel_built_from_the_sdist_has_the_same_files(from_sdist):
    assert distributions.files_of_wheel(from_sdist) == distributions.files_of_the_package(
        distributions.ROOT
    )


def test_a_file_that_the_metadata_leave_out_is_noticed(tmp_path):
    sources = distributions.copy_sources(tmp_path / "sources")
    settings = sources / "setup.cfg"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("templates/*", "templates/*.html"), encoding="utf-8")
    distributions.build(sources, tmp_path / "out", OFFLINE, "--wheel")
    left_out = distributions.files_of_the_package(sources) - distributions.files_of_wheel(
        tmp_path / "out"
    )
    names = ("page.css", "page.js", "decisions.js")
    assert left_out == {f"deel_influence/report/templates/{name}" for name in names}
