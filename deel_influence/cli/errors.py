"""Whatever goes wrong is one line on stderr, and no traceback without ``--verbose``.

The exit code is 2 for what a user can put right, 1 for what nobody expected, and 130 for Ctrl-C.
"""

from __future__ import annotations

import errno
import itertools
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from ..backend import check_backend
from ..errors import ConvergenceWarning, DeelInfluenceError
from ..texts import printable

# Typer brings its own copy of click, and of the error that click raises for every wrong option,
# argument or command it exports only this subclass.
_UsageError: Any = typer.BadParameter.__base__

_USER_ERROR, _UNEXPECTED = 2, 1
# Some errors of Keras recite a whole configuration.
_LONGEST_LINE = 1000

# What a disk answers that is full, or may not be written to.
_DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO),
}

_logger = logging.getLogger(__name__)


class CommandError(DeelInfluenceError, ValueError):
    """An option of the command line has a value that cannot be used."""


class OneLineErrors(TyperGroup):
    """A group of commands whose errors are one line on stderr."""

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
                check_backend()
                result = super().main(
                    args, prog_name, complete_var, False, windows_expand_args, **extra
                )
        except _UsageError as error:
            help_command = f"{error.ctx.command_path} --help" if error.ctx else "--help"
            received = _received(error, sys.argv[1:] if args is None else args)
            _fail(f"{error.format_message().rstrip('.')}. {received}Try: {help_command}")
        except DeelInfluenceError as error:
            # Seen with --verbose.
            _logger.debug("The error in full:", exc_info=True)
            _fail(str(error))
        except typer.Abort:
            sys.exit(1)
        except Exception as error:
            _logger.debug("The error in full:", exc_info=True)
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                place = f" of {error.filename!r}" if error.filename else ""
                rule = "--out must be where the results can be written."
                _fail(f"{rule} The disk{place} says: {error}.")
            if isinstance(error, MemoryError):
                remedy = "Pass a smaller --batch-size, or fewer layers with --weights."
                _fail(f"The memory does not suffice: {one_line(error, 200)}. {remedy}")
            _fail(
                f"unexpected error {type(error).__name__}: {one_line(error, 400)}. Run again with "
                "--verbose to see where, and report it.",
                _UNEXPECTED,
            )
        if standalone_mode:
            # None, or the code of a `typer.Exit`.
            sys.exit(result)
        return result


def one_line(text: object, width: int = _LONGEST_LINE) -> str:
    """Return ``text`` without line breaks and control characters, cut to ``width`` characters."""
    return printable(textwrap.shorten(str(text), width=width, placeholder=" ..."))


@contextmanager
def convergence_in_one_line(remedy: str) -> Iterator[None]:
    """Print one line for all convergence warnings of the body, which come batch by batch.

    The line has the first of them in full. Other warnings go their way.

    Parameters
    ----------
    remedy
        A sentence on the options that help, with a blank at its end; empty for none.
    """
    found: list[str] = []
    show = warnings.showwarning

    def gather(
        message: Warning | str, category: type[Warning], *where: Any, **options: Any
    ) -> None:
        if issubclass(category, ConvergenceWarning):
            found.append(str(message))
        else:
            show(message, category, *where, **options)

    with warnings.catch_warnings():
        # Python itself would show one of each text, and each batch has its own.
        warnings.simplefilter("always", ConvergenceWarning)
        warnings.showwarning = gather
        yield
    if found:
        times = "Once" if len(found) == 1 else f"{len(found)} times"
        _print_warning(
            f"{times} a search did not converge, so that scores are less exact. {remedy}"
            f"The first: {found[0]}"
        )


def _received(error: Any, args: Sequence[str]) -> str:
    """Say what an option was given, where the message of its error does not."""
    names = getattr(getattr(error, "param", None), "opts", ())
    words = [word for text in args for word in text.split("=", 1)]
    values = [value for name, value in itertools.pairwise(words) if name in names]
    told = not values or repr(values[-1]) in error.format_message()
    return "" if told else f"Received: {values[-1]!r}. "


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning without the line of source that it came from."""
    _print_warning(message)


def _print_warning(message: Warning | str) -> None:
    typer.echo(f"Warning: {one_line(message)}", err=True)


def _fail(text: str, code: int = _USER_ERROR) -> NoReturn:
    typer.echo(f"Error: {one_line(text)}", err=True)
    sys.exit(code)
