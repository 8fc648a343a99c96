"""Count the lines of the package that hold code: no comments, docstrings or blank lines.

Run ``python benchmarks/count_lines.py``; it prints the count of each subpackage, and the sum.
"""

from __future__ import annotations

import ast
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "deel_influence"
NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
)


def code_lines(path: Path) -> int:
    """Return the number of lines of a file that hold code."""
    lines: set[int] = set()
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type not in NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(path.read_bytes())):
        # A text that stands alone documents something.
        alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if alone and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def count_by_part() -> Counter[str]:
    """Return the number of lines of each subpackage and module of the package."""
    counts: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        counts[path.relative_to(PACKAGE).parts[0]] += code_lines(path)
    return counts


if __name__ == "__main__":
    found = count_by_part()
    for part, count in found.most_common():
        print(f"{part:20} {count:6}")
    print(f"{'all':20} {sum(found.values()):6}")
