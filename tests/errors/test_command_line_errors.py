"""Options of the command line that cannot be, each refused in one line with exit code 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from deel_influence.cli.app import app
from tests.errors.small import N, Small, X, Y, network

HUGE = str(2**70)


@dataclasses.dataclass(frozen=True)
class Bad:
    """Options in place of good ones, what to write before, and words of the line.

    Attributes
    ----------
    options
        By name; a Path lies in the folder of the test, None leaves the option out.
    words
        All of them are in the line on stderr.
    command
        The command.
    write
        Writes files into the folder.
    """

    options: dict[str, object]
    words: tuple[str, ...]
    command: str = "triage"
    write: Callable[[Small], object] = lambda small: None


def bad(*words: str, command: str = "triage", write: Callable | None = None, **options: object):
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return Bad(named, words, command, write or (lambda small: None))


def written(name: str, content: bytes | str) -> Callable[[Small], Path]:
    return lambda small: small.write(name, content)


def arrays(**content: object) -> Callable[[Small], Path]:
    return lambda small: small.arrays("bad.npz", **content)


def cut_model(small: Small) -> None:
    small.write("bad.keras", (small.folder / "m.keras").read_bytes()[:700])


def strategy_of_another(small: Small) -> None:
    other = Small(small.folder / "other")
    other.folder.mkdir(exist_ok=True)
    other.keras.layers[-1].set_weights([2 * w for w in other.keras.layers[-1].get_weights()])
    other.strategy.replace(small.folder / "bad.npz")


def cut_strategy(small: Small) -> None:
    small.write("bad.npz", small.strategy.read_bytes()[:-300])


FILE, MODEL = Path("bad.npz"), Path("bad.keras")
TEXTS = X.astype(str)
ROWS: dict[str, Bad] = {
    "top of zero": bad("--top must be at least 1", "0", top=0),
    "top beyond all numbers": bad("--top must be at most", HUGE, top=HUGE),
    "top in words": bad("'--top'", "all", top="all"),
    "batches of zero": bad("--batch-size must be at least 1", batch_size=0),
    "batches below zero": bad("--batch-size", "-5", batch_size=-5),
    "batches beyond all numbers": bad("--batch-size must be at most", HUGE, batch_size=HUGE),
    "batches of a half": bad("'--batch-size'", "0.5", batch_size=0.5),
    "samples of zero": bad("--samples must be at least 1", samples=0),
    "samples beyond all numbers": bad("--samples must be at most", samples=HUGE),
    "a seed below zero": bad("'--seed'", "-1", seed=-1),
    "a seed beyond all numbers": bad("'--seed'", HUGE, seed=HUGE),
    "damping below zero": bad("--damping", "not negative", "-1", damping=-1),
    "damping not a number": bad("--damping", "nan", damping="nan"),
    "damping without end": bad("--damping", "inf", damping="inf"),
    "damping too large for float32": bad("--damping must lie between", "1e+300", damping="1e300"),
    "damping too small for float32": bad("--damping must lie between", "1e-300", damping="1e-300"),
    "damping in words": bad("--damping must be auto", "much", damping="much"),
    "damping in other digits": bad("--damping must be auto", "²", damping="²"),
    "no damping where it divides": bad("--damping", "above 0", damping=0, ihvp="datainf"),
    "damping without a Hessian": bad("--damping", "identity", damping=1, ihvp="identity"),
    "a strategy beside a method without": bad("--ihvp", "--method loss", ihvp="cgd", method="loss"),
    "no such strategy": bad("'guess'", "exact", ihvp="guess"),
    "no such method": bad("'guess'", "influence", method="guess"),
    "a method that watches the training": bad("--method", "fit", method="aum"),
    "weights beside a method without": bad("--weights", "no effect", method="loss", weights="0"),
    "two minus signs": bad("--weights", "'--1'", "['hidden', 'logits']", weights="--1"),
    "a superscript": bad("--weights", "'²'", "['hidden', 'logits']", weights="²"),
    "an Arabic digit": bad("--weights", "'١'", weights="١"),
    "a layer too far": bad("--weights", "from -2 to 1", weights="9"),
    "a layer beyond all numbers": bad("--weights", HUGE, weights=HUGE),
    "a layer with an escape": bad("--weights", "\\x1b[2J", weights="a\x1b[2J"),
    "layers in the wrong order": bad("--weights", "Swap them", weights="logits:hidden"),
    "half a range": bad("--weights", "'nope'", weights="hidden:nope"),
    "no such loss": bad("--loss", "'nope'", loss="nope"),
    "an empty loss": bad("--loss", loss=" "),
    "a model without a loss": bad(
        "--loss must name",
        "sparse_categorical_crossentropy",
        model=MODEL,
        write=lambda s: network(loss=None).save(s.folder / "bad.keras"),
    ),
    "a model that is missing": bad("--model", "does not exist", model=Path("no.keras")),
    "a model that is a folder": bad("--model", "is a folder", model=Path()),
    "a model of another format": bad(
        "--model must be a `.keras` file", model=Path("bad.h5"), write=written("bad.h5", b"x")
    ),
    "an empty model": bad(
        "--model", "0 bytes", "Save the model again", model=MODEL, write=written("bad.keras", b"")
    ),
    "a model that is cut": bad("--model", "700 bytes", "no archive", model=MODEL, write=cut_model),
    "a model that runs code": bad(
        "--model",
        "safe mode",
        model=MODEL,
        write=lambda s: network(keras.layers.Lambda(lambda x: x + 1), keras.layers.Dense(3)).save(
            s.folder / "bad.keras"
        ),
    ),
    "a model of another width": bad(
        "(6, 4)",
        model=MODEL,
        batch_size=6,
        write=lambda s: network(inputs=keras.Input((7,))).save(s.folder / "bad.keras"),
    ),
    "data that are missing": bad("must exist", "no.npz", data=Path("no.npz")),
    "data of no scheme": bad("scheme 's3'", data="s3://bucket/data"),
    "data of another format": bad("'.xls'", data=Path("bad.xls"), write=written("bad.xls", "1,2")),
    "a table of a head alone": bad(
        "one row", data=Path("bad.csv"), write=written("bad.csv", "a,b")
    ),
    "a table without labels": bad(
        "--label", data=Path("b.csv"), write=written("b.csv", "a,b\n1,2")
    ),
    "empty data": bad("readable `.npz`", data=FILE, write=written("bad.npz", b"")),
    "data that are cut": bad(
        "readable `.npz`",
        data=FILE,
        write=lambda s: s.write("bad.npz", (s.folder / "d.npz").read_bytes()[:300]),
    ),
    "data without labels": bad("`x` and `y`", data=FILE, write=arrays(x=X)),
    "data of pickles": bad(
        "Python objects", "np.savez", data=FILE, write=arrays(x=X, y=np.array([{}] * N))
    ),
    "texts for inputs": bad("--data must be what", data=FILE, write=arrays(x=TEXTS, y=Y)),
    "dates for labels": bad(
        "`y`", "numbers or texts", data=FILE, write=arrays(x=X, y=np.zeros(12, "M8[D]"))
    ),
    "fewer labels": bad("12 and 3 rows", data=FILE, write=arrays(x=X, y=Y[:3])),
    "one id for all": bad("`ids`", "different", data=FILE, write=arrays(x=X, y=Y, ids=0 * Y)),
    "a class too many": bad("label value of 5", data=FILE, write=arrays(x=X, y=Y + 3)),
    "not a number": bad("NaN", data=FILE, write=arrays(x=X * np.nan, y=Y)),
    "no dataset of that name": bad("`tfds:NAME`", data="tfds:no_such_thing"),
    "an empty dataset name": bad("`tfds:NAME`", data="tfds:"),
    "a strategy that is missing": bad("--curvature", "does not exist", curvature=FILE),
    "a strategy that is cut": bad(
        "--curvature", "cannot be read", curvature=FILE, write=cut_strategy
    ),
    "a strategy of other arrays": bad("--curvature", curvature=FILE, write=arrays(x=X)),
    "a strategy of another model": bad(
        "--curvature", "other weights", curvature=FILE, write=strategy_of_another
    ),
    "a strategy twice": bad("--ihvp", "--curvature", curvature=FILE, ihvp="cgd"),
    "results in a file": bad("--out must be a folder", out=Path("d.npz")),
    "a fit into another format": bad("--out must end in .npz", command="fit", out=Path("a.txt")),
    "a fit of nothing": bad("--ihvp identity", command="fit", out=FILE, ihvp="identity"),
    "nothing to judge by": bad("something to compare", command="evaluate"),
    "no queries": bad("--queries", "test set", command="evaluate", leave_one_out=2),
    "one example left out": bad("at least 2", "1", command="evaluate", leave_one_out=1),
    "more left out than there are": bad(
        "at most the number", "99", command="evaluate", leave_one_out=99, queries=Path("d.npz")
    ),
    "left out beyond all numbers": bad("at most", HUGE, command="evaluate", leave_one_out=HUGE),
    "a penalty too large": bad(
        "--l2 must lie", "1e+300", command="evaluate", leave_one_out=2, l2="1e300"
    ),
    "an id of 20 digits": bad(
        "--wrong-labels",
        "99999999999999999999",
        command="evaluate",
        wrong_labels=Path("w.txt"),
        write=written("w.txt", "99999999999999999999"),
    ),
    "wrong labels in words": bad(
        "--wrong-labels",
        "such as one two three",
        command="evaluate",
        wrong_labels=Path("w.txt"),
        write=written("w.txt", "one two three"),
    ),
    "wrong labels of another format": bad(
        "--wrong-labels must end",
        command="evaluate",
        wrong_labels=Path("w.csv"),
        write=written("w.csv", "1"),
    ),
    "a mask of another length": bad(
        "--wrong-labels",
        "(2,)",
        command="evaluate",
        wrong_labels=FILE,
        write=arrays(mislabelled=np.array([True, False])),
    ),
    "a truth that is none": bad(
        "bad.npz",
        "ground truth",
        command="evaluate",
        truth=FILE,
        queries=Path("d.npz"),
        write=arrays(x=X),
    ),
    "no share of labels": bad("--fraction", "2", command="demo", fraction=2),
    "epochs beyond all numbers": bad("--epochs must be at most", command="demo", epochs=HUGE),
    "no such option": bad("--colour", "--help", colour="red"),
    "no such command": bad("'judge'", command="judge"),
}


@pytest.fixture(scope="module")
def folder(small: Small) -> Path:
    small.keras.save(small.folder / "m.keras")
    small.arrays("d.npz", x=X, y=Y)
    return small.folder


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_what_cannot_be_is_one_line_on_stderr(case: Bad, small: Small, folder: Path) -> None:
    for left in folder.glob("bad*"):
        left.unlink()
    case.write(small)
    own = {"model": Path("m.keras"), "data": Path("d.npz")} if case.command != "demo" else {}
    given = {**own, "out": Path("out"), **case.options}
    options = {k: folder / v if isinstance(v, Path) else v for k, v in given.items()}
    arguments = [text for k, v in options.items() for text in (f"--{k}", str(v))]
    result = CliRunner().invoke(app, [case.command, *arguments])
    assert result.exit_code == 2, result.output or result.exception
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert line.isprintable()
    missing = [word for word in case.words if word.lower() not in line.lower()]
    assert not missing, f"{missing} not in: {line}"
