"""The versions of `make test-floor` are the oldest that the metadata admit."""

from __future__ import annotations

import configparser
import re

from tests.packaging.distributions import ROOT


def test_the_floor_is_at_the_lower_bounds_of_the_requirements():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    requirements = config["options"]["install_requires"]
    pinned = dict(
        line.split("==")
        for line in (ROOT / "tests" / "packaging" / "floor.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    assert set(pinned) == {"keras", "tensorflow"}
    for package, version in pinned.items():
        (lowest,) = re.findall(rf"^{package}>=([\d.]+)$", requirements, re.MULTILINE)
        assert f"{version}.".startswith(f"{lowest}.")
