"""The package keeps its layers and the habits that a program can check."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import source_rules as rules
from tests.source_rules import Module

MODULES = rules.package_modules()
NAMES = {module.name for module in MODULES}
PACKAGES = {f"deel_influence.{part}" for part in (*rules.LEVELS, "common")} - NAMES
FACADES = PACKAGES | {module.name for module in MODULES if module.is_facade}
Rule = Callable[[Module], Iterator[str]]


def facade_imports(module: Module) -> Iterator[str]:
    return rules.facade_imports(module, FACADES, NAMES)


RULES = [
    rules.upward_imports,
    facade_imports,
    rules.facade_code,
    rules.long_functions,
    rules.long_file,
    rules.assert_statements,
    rules.private_library_imports,
    rules.untrustworthy_sizes,
    rules.private_attributes,
]

LONG_BODY = "def f():\n" + "    x = 1\n" * (rules.MAX_BODY_LINES + 1)

OFFENDERS = [
    (rules.upward_imports, "linalg.solver", "from deel_influence.model.loss import f"),
    (rules.upward_imports, "linalg.solver", "from ..model import loss"),
    (rules.upward_imports, "linalg.solver", "import deel_influence.ihvp.exact"),
    (rules.upward_imports, "gradients.engine", "from deel_influence.curvature.hessian import H"),
    (rules.upward_imports, "ihvp.exact", "def f():\n    from ..calculators.base import B"),
    (facade_imports, "ihvp.exact", "from deel_influence.common import InfluenceModel"),
    (facade_imports, "ihvp.exact", "from ..utils import ORDER"),
    (rules.long_functions, "ihvp.exact", LONG_BODY),
    (rules.long_file, "ihvp.exact", "x = 1\n" * (rules.MAX_FILE_LINES + 1)),
    (rules.assert_statements, "ihvp.exact", "def f(x):\n    assert x"),
    (rules.private_library_imports, "ihvp.exact", "from tensorflow.python.framework import ops"),
    (rules.private_library_imports, "ihvp.exact", "import keras.src.layers"),
    (rules.private_library_imports, "ihvp.exact", "from keras import src"),
    (rules.untrustworthy_sizes, "ihvp.exact", "n = dataset.cardinality()"),
    (rules.untrustworthy_sizes, "ihvp.exact", "n = self.dataset._batch_size"),
    (rules.private_attributes, "ihvp.exact", "x = layer._inbound_nodes"),
    (rules.private_attributes, "ihvp.exact", "class A:\n    def f(self):\n        self.a._b()"),
]

HONEST_SOURCE = '''
"""Text."""
import tensorflow as tf
from deel_influence.curvature.hessian import HessianOperator
from ..gradients.engine import GradientEngine
from ..utils import datasets

class Exact:
    endless = tf.data.experimental.cardinality(data) == tf.data.INFINITE_CARDINALITY

    def __init__(self, inverse):
        self._inverse = inverse

    def same(self, other):
        return other._inverse is self._inverse

    def solve(self, vectors):
        """Text that does not count as a line."""
        return super()._solve(self._inverse @ vectors).__class__
'''


def offences(rule: Rule) -> list[str]:
    return [offence for module in MODULES for offence in rule(module)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert offences(rule) == []


@pytest.mark.parametrize(
    "rule", [rules.long_file, rules.private_library_imports], ids=lambda rule: rule.__name__
)
def test_the_files_beside_the_package_keep_the_rule(rule: Rule) -> None:
    assert [offence for script in rules.scripts() for offence in rule(script)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert list(rules.import_cycles(MODULES)) == []


def test_every_part_of_the_package_has_a_level() -> None:
    parts = {module.part for module in MODULES} - {"", "common"}
    assert parts - set(rules.LEVELS) == set()


@pytest.mark.parametrize(("rule", "name", "source"), OFFENDERS)
def test_an_offender_is_caught(rule: Rule, name: str, source: str) -> None:
    assert len(list(rule(Module(f"deel_influence.{name}", source)))) == 1


@pytest.mark.parametrize(
    "computed",
    ["x = E()", "if TYPE_CHECKING:\n    x = E()", "if E:\n    from .exact import F"],
)
def test_a_facade_that_computes_is_caught(computed: str) -> None:
    module = Module("deel_influence.ihvp", f"from .exact import E\n{computed}", is_facade=True)
    assert list(rules.facade_code(module)) == ["deel_influence.ihvp:2 does more than re-export"]


def test_a_circle_of_imports_is_caught() -> None:
    circle = [
        Module("deel_influence.ihvp.a", "from .b import f"),
        Module("deel_influence.ihvp.b", "from deel_influence.ihvp import a"),
    ]
    assert len(list(rules.import_cycles(circle))) == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_honest_source_passes(rule: Rule) -> None:
    module = Module("deel_influence.ihvp.exact", HONEST_SOURCE)
    modules = NAMES | {"deel_influence.utils.datasets"}
    if rule is facade_imports:
        assert list(rules.facade_imports(module, {"deel_influence.utils"}, modules)) == []
    else:
        assert list(rule(module)) == []
