"""The command ``deel-influence``; each of its commands is a module of its own.

TensorFlow takes seconds to load, so the commands import what they need when they run, and
``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import deel_influence

from .apply import apply
from .compare import compare
from .demo import demo
from .errors import OneLineErrors
from .evaluate import evaluate
from .fit import fit
from .index import index
from .merge import merge
from .score import score
from .triage import triage

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of shells."""

app = typer.Typer(
    name="deel-influence",
    cls=OneLineErrors,
    help="Find out which training examples a Keras model owes its behaviour to.",
    add_completion=False,
    # Joins the lines of a paragraph, unlike the default.
    rich_markup_mode="markdown",
    # A traceback is for developers, who want the plain one.
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deel-influence {deel_influence.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _show_help(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(triage)
app.command()(fit)
app.command()(score)
app.command()(index)
app.command()(merge)
app.command()(evaluate)
app.command()(apply)
app.command()(compare)
app.command()(demo)


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="deel-influence")
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            # Not to wait for threads, such as those of a download that does not come on.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
