"""The wheel in an environment of its own, away from the sources: what a user has after pip.

It takes a package index and some minutes, and a name that keeps it out of the ordinary run:
`make test-wheel` runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deel_influence
from tests import source_rules
from tests.packaging import distributions
from tests.test_documentation import python_blocks

COMMAND = "deel-influence"
IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
PARTS = [module.name for module in source_rules.package_modules() if module.is_facade]
SHORT_DEMO = ("demo", "--epochs", "2", "--ihvp", "identity", "--out", "demo")

Process = subprocess.CompletedProcess


class Environment:
    """A virtual environment, and a folder away from the sources to work in."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "environment"
        self.work = folder / "work"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(self.home)], check=True)

    def run(self, script: str, *arguments: str) -> Process:
        """Run a script of the environment, which must not see the sources."""
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.run(
            [str(self.home / "bin" / script), *arguments],
            cwd=self.work,
            env={**variables, "COLUMNS": "100"},
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, requirement: str) -> None:
        """Install from the package index; what is never imported need not be compiled."""
        process = self.run("pip", "install", "--quiet", "--no-compile", requirement)
        assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist, by the build system that the sources ask for."""
    out = tmp_path_factory.mktemp("distributions")
    distributions.build(distributions.copy_sources(tmp_path_factory.mktemp("sources")), out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An environment with the wheel and none of its extras, until `complete` is asked for."""
    environment = Environment(tmp_path_factory.mktemp("fresh"))
    environment.install(str(wheel))
    yield environment
    # Gigabytes, which pytest would keep for three runs.
    shutil.rmtree(environment.home)


@pytest.fixture(scope="module")
def bare(environment: Environment) -> dict[str, Process]:
    """What was said in the environment before extras were installed."""
    return {
        "help": environment.run(COMMAND, "--help"),
        "imports": environment.run("python", "-c", IMPORT, *PARTS),
    }


@pytest.fixture(scope="module")
def complete(wheel: Path, environment: Environment, bare: dict[str, Process]) -> Environment:
    """The same environment with all extras."""
    environment.install(f"{wheel}[all]")
    return environment


@pytest.fixture(scope="module")
def demo(complete: Environment) -> Process:
    """A short demonstration."""
    return complete.run(COMMAND, *SHORT_DEMO)


def test_without_extras_the_command_says_in_one_line_what_to_install(bare):
    assert bare["help"].returncode == 2
    assert bare["help"].stdout == ""
    (line,) = bare["help"].stderr.splitlines()
    assert line.endswith('Install it with: pip install "deel-influence[cli]"')


def test_without_extras_every_part_of_the_library_is_imported(bare):
    assert bare["imports"].returncode == 0, bare["imports"].stderr


def test_the_package_is_the_installed_one_and_its_requirements_agree(complete):
    where = complete.run("python", "-c", "import deel_influence; print(deel_influence.__file__)")
    assert Path(where.stdout).is_relative_to(complete.home)
    check = complete.run("pip", "check")
    assert check.returncode == 0, check.stdout


def test_the_command_tells_its_version_and_its_commands(complete):
    version = complete.run(COMMAND, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout == f"deel-influence {deel_influence.__version__}\n"
    shown = complete.run(COMMAND, "--help")
    assert shown.returncode == 0, shown.stderr
    assert all(name in shown.stdout for name in ("triage", "fit", "evaluate", "demo"))


def test_the_demo_writes_its_page(complete, demo):
    assert demo.returncode == 0, demo.stderr
    page = (complete.work / "demo" / "report" / "index.html").read_text(encoding="utf-8")
    templates = distributions.ROOT / "deel_influence" / "report" / "templates"
    for name in ("page.css", "page.js"):
        assert (templates / name).read_text(encoding="utf-8").strip() in page


def test_triage_writes_its_page_from_files(complete, demo):
    files = ("--model", "demo/model.keras", "--data", "demo/digits.npz")
    process = complete.run(COMMAND, "triage", *files, "--out", "triage")
    assert process.returncode == 0, process.stderr
    assert (complete.work / "triage" / "report" / "index.html").is_file()


def test_the_python_of_the_readme_runs(complete):
    readme = (distributions.ROOT / "README.md").read_text(encoding="utf-8")
    (complete.work / "readme.py").write_text(
        "\n".join(code for _, code in python_blocks(readme)), encoding="utf-8"
    )
    process = complete.run("python", "readme.py")
    assert process.returncode == 0, process.stderr
    assert "of the wrong labels are in the first 10 % of the list" in process.stdout
