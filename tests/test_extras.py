"""A package of an extra that is not there costs one line, which says how to get it."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deel_influence.errors import MissingExtraError
from deel_influence.extras import require
from tests import source_rules

ROOT = Path(__file__).resolve().parents[1]

# A run without what is named first, and without TensorFlow, so that loading it would show.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys([sys.argv.pop(1), "tensorflow"]))
from deel_influence.cli.__main__ import main
main()
"""
TRIAGE = ["triage", "--model", "model.keras", "--data", "train.npz"]
EVALUATE = ["evaluate", *TRIAGE[1:], "--queries", "test.npz", "--subsets", "3"]

MISSING = [
    (["--help"], "typer", "cli"),
    (["--version"], "typer", "cli"),
    (TRIAGE, "typer", "cli"),
    (["--help"], "rich", "cli"),
    (["demo"], "rich", "cli"),
    (TRIAGE, "jinja2", "report"),
    (["demo"], "jinja2", "report"),
    (["demo"], "scikit-learn", "demo"),
    (EVALUATE, "pandas", "evaluation"),
    (EVALUATE, "matplotlib", "evaluation"),
    (EVALUATE, "pillow", "evaluation"),
    (EVALUATE, "scipy", "evaluation"),
]
MODULES = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
    "faiss-cpu": "faiss",
    "apache-beam": "apache_beam",
}


@pytest.mark.parametrize(("arguments", "package", "extra"), MISSING)
def test_a_command_without_a_package_names_it_and_its_extra_in_one_line(
    arguments: list[str], package: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "model.keras").touch()
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT, MODULES.get(package, package), *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("Error: ")
    assert f"the package {package!r}, which is not installed" in line
    assert line.endswith(f'pip install "deel-influence[{extra}]"')
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_a_module_that_is_there_is_returned() -> None:
    assert require("json.decoder", "demo", "This needs") is sys.modules["json.decoder"]


@pytest.mark.parametrize("module", ["absent_package", "absent_package.part"])
def test_a_missing_package_is_named_with_its_extra(module: str) -> None:
    message = r'This needs the package \'absent_package\', .*pip install "deel-influence\[demo\]"$'
    with pytest.raises(MissingExtraError, match=message):
        require(module, "demo", "This needs")


def test_a_missing_package_that_a_package_imports_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "outer_package.py").write_text("import absent_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match="the package 'absent_package'"):
        require("outer_package", "demo", "This needs")


def test_a_package_that_lacks_a_part_of_itself_is_not_called_missing(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("import broken_package.lost")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"broken_package\.lost") as error:
        require("broken_package", "demo", "This needs")
    assert not isinstance(error.value, MissingExtraError)


def extras() -> dict[str, set[str]]:
    """The packages of each extra, those of the extras that it takes in among them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {
        extra: re.findall(r"^(?:deel-influence\[([\w,]+)\]|([\w-]+))", lines, re.MULTILINE)
        for extra, lines in config["options.extras_require"].items()
    }

    def packages(extra: str) -> set[str]:
        taken = {name for others, _ in listed[extra] for name in others.split(",") if name}
        own = {package for _, package in listed[extra] if package}
        return own.union(*(packages(name) for name in taken))

    return {extra: packages(extra) for extra in listed}


def asked_for() -> set[tuple[str, str]]:
    """The package and the extra of the calls of `require` that name both."""
    found = {
        (call.args[0].value.partition(".")[0], call.args[1].value)
        for module in source_rules.package_modules()
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "require"
        if all(isinstance(argument, ast.Constant) for argument in call.args[:2])
    }
    packages = {module: package for package, module in MODULES.items()}
    return {(packages.get(module, module), extra) for module, extra in found}


def test_every_extra_that_is_named_installs_what_is_missing() -> None:
    asked = asked_for() | {(package, extra) for _, package, extra in MISSING}
    assert {("jinja2", "report"), ("scikit-learn", "demo")} <= asked
    # Matplotlib brings pillow.
    listed = {extra: packages | {"pillow"} for extra, packages in extras().items()}
    assert {pair for pair in asked if pair[0] not in listed[pair[1]]} == set()
