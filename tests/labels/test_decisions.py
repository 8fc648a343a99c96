"""A table of decisions is read as it was written, and refused whole where a line cannot be."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from deel_influence.errors import DecisionsError
from deel_influence.labels import Decisions, run_digest
from deel_influence.labels.decisions import places_of
from deel_influence.texts import csv_cell

RUN = "0123456789abcdef"
NASTY = [
    "=HYPERLINK(1)",
    "-1",
    "a,b",
    'say "no"',
    "two\nlines",
    "../../x.png",
    "\x1b[2J",
    "'quoted",
    "# run: other",
    "猫",
    " =x",
    "",
]


def table(**columns) -> Decisions:
    columns = {"ids": ["a"], "decisions": ["keep"], "labels": [""], "run": RUN, **columns}
    return Decisions(**columns)


def rows(decisions: Decisions) -> list[tuple]:
    return list(
        zip(
            *(getattr(decisions, name).tolist() for name in ("ids", "decisions", "labels")),
            strict=True,
        )
    )


def nasty() -> Decisions:
    kinds = ["relabel", "drop", "keep", "skip"] * 3
    labels = [
        f"={name}" if kind == "relabel" else "" for name, kind in zip(NASTY, kinds, strict=True)
    ]
    return table(ids=NASTY, decisions=kinds, labels=labels)


def test_json_gives_back_every_text(tmp_path: Path) -> None:
    path = nasty().save(tmp_path / "d.json")
    found = Decisions.load(path)
    assert rows(found) == rows(nasty())
    assert found.run == RUN
    assert path.read_text().isascii()


def test_csv_gives_back_every_text_in_the_form_of_a_cell(tmp_path: Path) -> None:
    found = Decisions.load(nasty().save(tmp_path / "d.csv"))
    assert rows(found) == [tuple(map(csv_cell, row)) for row in rows(nasty())]
    places = places_of(NASTY)
    assert [places[name] for name in found.ids] == list(range(len(NASTY)))


def test_no_cell_of_the_csv_file_is_a_formula_or_steers(tmp_path: Path) -> None:
    text = nasty().save(tmp_path / "d.csv").read_text()
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "# run: R\nid,decision,label\na,relabel,dog\nb,drop,\n",
        "\ufeff# run: R\r\n\r\nid,decision,label\r\na,relabel,dog\r\nb,drop,\r\n",
        "# run: R,,\nid,decision,label\na, relabel ,dog\nb,drop,\n",
        "id,decision,label,run\na,relabel,dog,R\nb,drop,,R\n",
        "note,label,id,decision\n# run: no comment,dog,a,relabel\n,,b,drop\n",
    ],
    ids=["as written", "as Windows has it", "as a spreadsheet saves it", "a column", "others"],
)
def test_a_csv_file_is_read_in_every_form(text: str, tmp_path: Path) -> None:
    if not text.lstrip("\ufeff").startswith("#") and "run\n" not in text.splitlines(True)[0]:
        text = f"# made by hand\n# run: R\n{text}"
    (tmp_path / "d.csv").write_text(text)
    found = Decisions.load(tmp_path / "d.csv")
    assert (found.run, rows(found)) == ("R", [("a", "relabel", "dog"), ("b", "drop", "")])


def test_numbers_in_json_are_ids_and_labels(tmp_path: Path) -> None:
    entry = {"id": 2**60 + 1, "decision": "relabel", "label": 3}
    (tmp_path / "d.json").write_text(json.dumps({"run": RUN, "decisions": [entry]}))
    assert rows(Decisions.load(tmp_path / "d.json")) == [(str(2**60 + 1), "relabel", "3")]


def test_an_empty_table_is_one(tmp_path: Path) -> None:
    for name in ("d.csv", "d.json"):
        path = table(ids=[], decisions=[], labels=[]).save(tmp_path / name)
        assert len(Decisions.load(path)) == 0


HEAD = "# run: R\nid,decision,label\n"
BAD_FILES = {
    "a decision that is none": ("csv", f"{HEAD}a,keep,\nb,delete,\n", "line 4 \\('b': delete\\)"),
    "no new label": ("csv", f"{HEAD}a,relabel,\n", "must have a new label.*line 3"),
    "a label beside a drop": ("csv", f"{HEAD}a,drop,dog\n", "only where they relabel.*'dog'"),
    "an example twice": ("csv", f"{HEAD}a,keep,\nb,keep,\na,drop,\n", r"line 3 .*line 5 "),
    "a line after a text of two": ("csv", f'{HEAD}"a\nb",keep,\nc,no,\n', "line 5 \\('c'"),
    "a cell too many": ("csv", f"{HEAD}a,keep,,\n", "line 3 has 4 cells for 3 columns"),
    "a column missing": ("csv", "# run: R\nid,label\na,b\n", "not once decision"),
    "a column twice": ("csv", "# run: R\nid,id,decision,label\n", "not once id"),
    "no run": ("csv", "id,decision,label\na,keep,\n", "does not tell its run"),
    "two runs": ("csv", "id,decision,label,run\na,keep,,R\nb,keep,,S\n", "2 runs"),
    "another run above": ("csv", "# run: R\nid,decision,label,run\na,keep,,S\n", "2 runs"),
    "a quote left open": ("csv", f'{HEAD}"a,keep,\n', "fails with"),
    "nothing": ("csv", "", "no line with the names"),
    "no UTF-8": ("csv", b"\xff\xfe\x00", "fails with"),
    "no JSON": ("json", "{", "fails with"),
    "JSON too deep": ("json", "[" * 100_000, "fails with"),
    "a list": ("json", "[]", "it is not"),
    "no run in JSON": ("json", '{"decisions": []}', "it is not"),
    "a run that is a number": ("json", '{"run": 1, "decisions": []}', "it is not"),
    "an entry that is a text": ("json", '{"run": "R", "decisions": ["a"]}', "entry 1 is not"),
    "an id that is none": (
        "json",
        '{"run": "R", "decisions": [{"id": null, "decision": "keep"}]}',
        "entry 1 is not",
    ),
    "a truth value": (
        "json",
        '{"run": "R", "decisions": [{"id": true, "decision": "keep"}]}',
        "entry 1 is not",
    ),
    "another ending": ("txt", "", "must be in a .csv or .json file"),
    "an escape": ("csv", f"{HEAD}\x1b[2J,\x1b[2J,\n", r"'\\x1b\[2J': \\x1b\[2J"),
}


@pytest.mark.parametrize(("ending", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(
    ending: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"d.{ending}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DecisionsError, match=message) as error:
        Decisions.load(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DecisionsError, match=r"none\.csv.*No such file"):
        Decisions.load(tmp_path / "none.csv")


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(DecisionsError, match=r"lengths \[2, 1, 1\]"):
        table(ids=["a", "b"])


def test_of_many_bad_lines_the_first_are_named() -> None:
    ids = [f"id {i}" for i in range(12)]
    with pytest.raises(DecisionsError, match=r"line 10 .*; and 2 more"):
        table(ids=ids, decisions=["no"] * 12, labels=[""] * 12)


def test_a_form_that_stands_for_two_names_stands_for_none() -> None:
    places = places_of(["=a", "'=a", "b\x1b", "b\\x1b", "c"])
    assert places == {"=a": 0, "b\x1b": 2, "c": 4}


def test_the_digest_of_a_run_changes_with_ids_labels_and_order_alone() -> None:
    ids, labels = np.array(["a", "b"]), np.array([0, 1])
    run = run_digest(ids, labels)
    assert run == run_digest(ids.astype("<U99"), labels.astype("float32"))
    others = [(ids[::-1], labels), (ids, labels[::-1]), (np.array(["a", "c"]), labels)]
    assert run not in {run_digest(*other) for other in others}
    assert run_digest(np.array(["ab", "c"]), labels) != run_digest(np.array(["a", "bc"]), labels)
