"""Rules that a module's source has to keep, each a function from a module to its offences."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "deel_influence"
SCRIPTS = ("tests", "benchmarks", "docs")

LEVELS = {
    "types": 0,
    "backend": 0,
    "errors": 0,
    "extras": 0,
    "texts": 0,
    "utils": 0,
    "linalg": 1,
    "model": 1,
    "gradients": 2,
    "curvature": 2,
    "ihvp": 3,
    "calculators": 4,
    "influence": 5,
    "rps": 5,
    "trac_in": 5,
    "trak": 5,
    "baselines": 5,
    "training_dynamics": 5,
    "unrolled": 5,
    "boundary_based": 5,
    "store": 5,
    "shards": 6,
    "labels": 6,
    "evaluation": 6,
    "benchmark": 6,
    "plots": 6,
    "report": 6,
    "cli": 6,
    "datasets": 6,
}

# (importer, imported) on one level. What is missing here keeps to itself.
ALLOWED_PEERS = {
    ("utils", "types"),
    ("utils", "extras"),
    ("backend", "errors"),
    ("extras", "errors"),
    ("utils", "errors"),
    ("utils", "texts"),
    ("curvature", "gradients"),
    ("cli", "datasets"),
    ("cli", "evaluation"),
    ("cli", "labels"),
    ("cli", "report"),
    ("cli", "shards"),
    ("shards", "datasets"),
    ("labels", "report"),
    ("evaluation", "report"),
    ("labels", "datasets"),
    ("benchmark", "datasets"),
    ("benchmark", "evaluation"),
    ("benchmark", "report"),
    ("plots", "benchmark"),
}

MAX_FILE_LINES = 400
MAX_BODY_LINES = 40
PRIVATE_LIBRARIES = ("tensorflow.python", "keras.src")
KERAS_INTERNALS = f"{PACKAGE}.model.keras_internals"


@dataclass(frozen=True)
class Module:
    """A parsed module; ``imports`` holds the absolute dotted names that it imports."""

    name: str
    source: str
    is_facade: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def part(self) -> str:
        """The subpackage or top-level module that this one belongs to; empty for the root."""
        return part_of(self.name)

    @property
    def imports(self) -> list[tuple[int, str]]:
        """Pairs of line and dotted name; ``from a import b`` gives ``a.b``."""
        return self._names(ast.walk(self.tree))

    @property
    def imports_when_run(self) -> list[tuple[int, str]]:
        """The imports without those for type checkers alone."""
        tree = self.tree
        tree.body = [
            node
            for node in tree.body
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ]
        return self._names(ast.walk(tree))

    def _names(self, nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
        return [(node.lineno, name) for node in nodes for name in self._imported_names(node)]

    def _imported_names(self, node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            origin = self._absolute(node)
            return [f"{origin}.{alias.name}" for alias in node.names]
        return []

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = self.name.split(".")
        if not self.is_facade:
            package = package[:-1]
        base = package[: len(package) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])


def package_modules() -> list[Module]:
    """Return every module of the package."""
    return [
        Module(_dotted(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    ]


def scripts() -> list[Module]:
    """Return the Python files beside the package: tests, benchmarks, tutorials."""
    paths = [path for folder in SCRIPTS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Module(_dotted(path), path.read_text(encoding="utf-8")) for path in paths]


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(name: str) -> str:
    """Return ``ihvp`` for ``deel_influence.ihvp.exact``, and nothing for foreign names."""
    head, _, rest = name.partition(".")
    return rest.partition(".")[0] if head == PACKAGE else ""


def upward_imports(module: Module) -> Iterator[str]:
    """Give the imports that point up a level, or sideways where that is not allowed."""
    if module.part in ("", "common"):
        return
    for line, name in module.imports:
        target = part_of(name)
        if target in LEVELS and not _may_import(module.part, target):
            yield f"{module.name}:{line} imports {name}"


def _may_import(importer: str, imported: str) -> bool:
    if importer == imported or LEVELS[imported] < LEVELS[importer]:
        return True
    return (importer, imported) in ALLOWED_PEERS


def facade_imports(module: Module, facades: set[str], modules: set[str]) -> Iterator[str]:
    """Give the names that a module takes from a package instead of from where they are defined."""
    if module.is_facade:
        return
    for line, name in module.imports:
        origin = name.rpartition(".")[0]
        if origin in facades and name not in modules:
            yield f"{module.name}:{line} imports {name} from a facade"


def facade_code(module: Module) -> Iterator[str]:
    """Give the statements of a facade that are no import, no text and no ``__all__``.

    The root is exempt: it is where other back ends of Keras are refused.
    """
    if not module.is_facade or module.name == PACKAGE:
        return
    for node in module.tree.body:
        if not _is_facade_statement(node):
            yield f"{module.name}:{node.lineno} does more than re-export"


def _is_facade_statement(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return all(isinstance(name, ast.Name) and _is_dunder(name.id) for name in node.targets)
    if isinstance(node, ast.If):
        # For type checkers and the documentation, where a name is imported on demand.
        return (
            ast.unparse(node.test) == "TYPE_CHECKING"
            and not node.orelse
            and all(isinstance(part, ast.ImportFrom) for part in node.body)
        )
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, ast.Import | ast.ImportFrom)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def long_functions(module: Module) -> Iterator[str]:
    """Give the functions whose body, the docstring left out, is too long."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _body_lines(node)
            if length > MAX_BODY_LINES:
                yield f"{module.name}:{node.lineno} {node.name} has {length} lines"


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def long_file(module: Module) -> Iterator[str]:
    """Give a module that has too many lines."""
    length = len(module.source.splitlines())
    if length > MAX_FILE_LINES:
        yield f"{module.name} has {length} lines"


def assert_statements(module: Module) -> Iterator[str]:
    """Give the ``assert`` statements, which vanish under ``python -O``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield f"{module.name}:{node.lineno} asserts"


def private_library_imports(module: Module) -> Iterator[str]:
    """Give the imports of TensorFlow's and Keras's private modules."""
    for line, name in module.imports:
        if f"{name}.".startswith(tuple(f"{library}." for library in PRIVATE_LIBRARIES)):
            yield f"{module.name}:{line} imports {name}"


def untrustworthy_sizes(module: Module) -> Iterator[str]:
    """Give the uses of sizes that a ``tf.data`` dataset may report wrongly.

    `tf.data.experimental.cardinality(dataset)`, which can tell that a dataset never ends, passes.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr == "_batch_size":
            yield f"{module.name}:{node.lineno} reads ._batch_size"
        elif isinstance(node, ast.Call) and not node.args and _method(node) == "cardinality":
            yield f"{module.name}:{node.lineno} calls .cardinality()"


def _method(call: ast.Call) -> str | None:
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def private_attributes(module: Module) -> Iterator[str]:
    """Give the private attributes that are read from objects of classes from elsewhere.

    A name that the module gives to its own classes may be read from another of their objects, and
    `os._exit` is public in spite of its name.
    """
    if module.name == KERAS_INTERNALS:
        return
    owned = _own_names(module)
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute) or not _is_private(node.attr):
            continue
        if ast.unparse(node) == "os._exit":
            continue
        if not _is_own(node.value) and node.attr not in owned:
            yield f"{module.name}:{node.lineno} reads {ast.unparse(node)}"


def _own_names(module: Module) -> set[str]:
    """Return the names of the methods and attributes that the module defines."""
    names = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if _is_own(node.value) else set()
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def _is_private(name: str) -> bool:
    return name.startswith("_") and not _is_dunder(name)


def _is_own(owner: ast.expr) -> bool:
    if isinstance(owner, ast.Call):
        return isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls")


def import_cycles(modules: Iterable[Module]) -> Iterator[str]:
    """Give a cycle of modules, or of packages, that import each other, if there is any.

    Imports inside of functions count; those for type checkers alone do not.
    """
    written = [module for module in modules if not module.is_facade]
    names = {module.name for module in written}
    of_modules: dict[str, set[str]] = {}
    of_packages: dict[str, set[str]] = {}
    for module in written:
        imported = [name for _, name in module.imports_when_run]
        of_modules[module.name] = {origin for name in imported for origin in _origins(name, names)}
        parts = {part_of(name) for name in imported} - {module.part, ""}
        of_packages.setdefault(module.part, set()).update(parts)
    for graph in (of_modules, of_packages):
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            yield " -> ".join(error.args[1])


def _origins(name: str, names: set[str]) -> set[str]:
    return {name, name.rpartition(".")[0]} & names
