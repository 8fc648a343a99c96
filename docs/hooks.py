"""What MkDocs calls while it builds the site: typeset formulas, and the version in the title.

Blocks fenced as `math` become MathML, which browsers typeset by themselves: no script, no server.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from math_core import LatexError, LatexToMathML
from pymdownx.superfences import SuperFencesException

VERSION = re.compile(r'^__version__ = "(.+)"$', re.M)
CONVERTER = LatexToMathML(fancy_error=False)


def on_config(config: Any) -> None:
    """Register the fence, and put the version of the library beside its name."""
    fence = {"name": "math", "class": "formula", "format": typeset}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}
    package = Path(config.config_file_path).parent / "deel_influence" / "__init__.py"
    (version,) = VERSION.findall(package.read_text(encoding="utf-8"))
    config.site_name = f"{config.site_name} {version}"


def typeset(source: str, _language: str, class_name: str, *_: Any, **__: Any) -> str:
    """Return a formula in MathML.

    Raises
    ------
    SuperFencesException
        If the LaTeX of the formula is wrong; the build ends there.
    """
    try:
        formula = CONVERTER.convert_with_local_state(source, displaystyle=True)
    except LatexError as error:
        message = f"A formula must be right LaTeX. Received: {source!r}. {error}"
        raise SuperFencesException(message) from error
    return f'<div class="{class_name}">{formula}</div>'
