"""The script ``deel-influence``: the command line, or one line on the extra that it needs."""

from __future__ import annotations

import sys

from ..errors import MissingExtraError
from ..extras import require

_USER_ERROR = 2


def main() -> None:
    """Run the command line."""
    try:
        for package in ("typer", "rich"):
            require(package, "cli", "The command line needs")
    except MissingExtraError as error:
        # As the command line itself says it, which cannot be imported.
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(_USER_ERROR)
    from .app import main as run

    run()


if __name__ == "__main__":
    main()
