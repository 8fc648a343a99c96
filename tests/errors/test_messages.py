"""Every message of a bare ValueError or TypeError begins with the argument that it is about."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import deel_influence

PACKAGE = Path(deel_influence.__file__).parent

CAUGHT_WITHIN = {
    "utils/records.py": "turned into the error of the kind of record",
    "model/manifest.py": "turned into the error of the list of checkpoints",
    "calculators/caching.py": "turned into the error of saved vectors",
    "calculators/stored_matrix.py": "turned into the error of parts, with the name of the file",
    "store/parts.py": "turned into the error of the index or of its parts",
    "labels/decisions.py": "turned into the error of decisions, with the name of the file",
    "gradients/rules/dense.py": "never met: the rule is chosen where the equation is one",
}


def bare_messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give the line and the beginning of each message that is raised by a bare error."""
    blocks = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    for block in blocks:
        message = None
        for statement in block:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "message":
                message = beginning(statement.value)
            elif is_bare(statement) and message is not None:
                yield statement.lineno, message


def is_bare(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Raise) or not isinstance(statement.exc, ast.Call):
        return False
    return ast.unparse(statement.exc.func) in ("ValueError", "TypeError")


def beginning(node: ast.expr) -> str | None:
    """Return the first words of a text in the source; None where they come from elsewhere."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) else node
    return str(first.value) if isinstance(first, ast.Constant) else None


def test_messages_of_bare_errors_begin_with_the_argument() -> None:
    found = {
        f"{name}:{line}": message
        for path in PACKAGE.rglob("*.py")
        if (name := path.relative_to(PACKAGE).as_posix()) not in CAUGHT_WITHIN
        for line, message in bare_messages(ast.parse(path.read_text(encoding="utf-8")))
        if not message.startswith("Argument ")
    }
    assert not found


def test_the_rule_sees_a_message_that_breaks_it() -> None:
    code = "if x:\n    message = f'The {x} is bad.'\n    raise ValueError(message)\n"
    assert list(bare_messages(ast.parse(code))) == [(3, "The ")]
