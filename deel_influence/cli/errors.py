"""What a user did wrong is one line on stderr and exit code 2; anything else is a traceback."""

from __future__ import annotations

import logging
import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from ..errors import DeelInfluenceError

# Typer brings its own copy of click, and of the error that click raises for every wrong option,
# argument or command it exports only this subclass.
_UsageError: Any = typer.BadParameter.__base__

_USER_ERROR = 2
# Some errors of Keras recite a whole configuration.
_LONGEST_LINE = 1000

_logger = logging.getLogger(__name__)


class CommandError(DeelInfluenceError, ValueError):
    """An option of the command line has a value that cannot be used."""


class OneLineErrors(TyperGroup):
    """A group of commands whose user errors are one line on stderr, with exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command, given as for `click.Command.main`."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                result = super().main(
                    args, prog_name, complete_var, False, windows_expand_args, **extra
                )
        except _UsageError as error:
            help_command = f"{error.ctx.command_path} --help" if error.ctx else "--help"
            _fail(f"{error.format_message().rstrip('.')}. Try: {help_command}")
        except DeelInfluenceError as error:
            # Seen with --verbose.
            _logger.debug("The error in full:", exc_info=True)
            _fail(str(error))
        except typer.Abort:
            sys.exit(1)
        if standalone_mode:
            # None, or the code of a `typer.Exit`.
            sys.exit(result)
        return result


def one_line(text: object, width: int = _LONGEST_LINE) -> str:
    """Return ``text`` without line breaks and cut to ``width`` characters."""
    return textwrap.shorten(str(text), width=width, placeholder=" ...")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning without the line of source that it came from."""
    typer.echo(f"Warning: {one_line(message)}", err=True)


def _fail(text: str) -> NoReturn:
    typer.echo(f"Error: {one_line(text)}", err=True)
    sys.exit(_USER_ERROR)
