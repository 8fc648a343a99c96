"""Training sets written anew with what was decided about their labels."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from rich.console import Console

from ..datasets.npz import ID_KEYS, find_examples
from ..datasets.source import DataSource
from ..datasets.sources import load_source
from ..datasets.table import Columns, read_table
from ..labels.decisions import RELABEL, Decisions
from ..labels.decisions_applied import correct_dataset
from ..labels.decisions_carried_out import Corrections, correct
from ..texts import csv_cell, printable
from ..utils.files import replacing
from ..utils.records import read_arrays
from .apply_settings import ApplySettings
from .errors import CommandError
from .loading import named_read_errors
from .tables import print_whole

_LOG = ("id", "decision", "before", "after")


def apply_to_source(settings: ApplySettings, console: Console) -> Corrections:
    """Write the data that a command names without what was decided to be wrong, and a log.

    Parameters
    ----------
    settings
        What to read, and where to write.
    console
        Where to say what was done.

    Raises
    ------
    DeelInfluenceError
        If the data cannot be read, or the decisions are not about them. Nothing is written then.
    """
    decisions = Decisions.load(settings.decisions)
    if settings.is_table:
        corrections, notes = _apply_to_table(settings, decisions)
    else:
        source = load_source(settings.data)
        with named_read_errors(source):
            corrections, notes = _apply_to(source, settings, decisions)
    rows = corrections.log()
    with replacing(settings.log_path) as temporary:
        _write_csv(temporary, [_LOG, *([csv_cell(cell) for cell in row] for row in rows)])
    relabelled = sum(row[1] == RELABEL for row in rows)
    told = [
        f"Relabelled {relabelled:,} and dropped {len(rows) - relabelled:,} of "
        f"{len(corrections.ids):,} examples.",
        *notes,
        *(f"No example of the class {name} is left." for name in corrections.emptied()),
        f"Data: {settings.out}" if settings.out else f"Moves: {settings.moves}",
        f"Log:  {settings.log_path}",
    ]
    print_whole("\n".join(map(printable, told)), console)
    return corrections


def _apply_to(
    source: DataSource, settings: ApplySettings, decisions: Decisions
) -> tuple[Corrections, list[str]]:
    asked: dict[str, Any] = {"drop": settings.drop, "relabel": settings.relabel}
    if source.file_names is not None and source.ids is not None and source.class_names is not None:
        # The folders tell the labels, so that no image need be decoded.
        classes = [PurePosixPath(name).parts[0] for name in source.ids.tolist()]
        labels = np.array([source.class_names.index(name) for name in classes])
        corrections = correct(decisions, source.ids, labels, source.class_names, **asked)
        places = list(_places(corrections))
        if settings.out is None:
            _write_moves(settings.moves, corrections, places)
        else:
            _copy_images(settings.out, source, corrections, places)
        return corrections, []
    result, corrections = correct_dataset(source.dataset, decisions, **asked)
    if settings.out is None:
        message = (
            "--moves lists the files of a folder of images. Received: --data "
            f"{settings.data!r}, which is none. Pass --out."
        )
        raise CommandError(message)
    if settings.path.suffix.lower() == ".npz" and settings.path.is_file():
        return corrections, _write_npz(settings.path, settings.out, corrections)
    _save_dataset(settings, source, result)
    return corrections, []


def _write_npz(path: Path, out: Path, corrections: Corrections) -> list[str]:
    """Write the arrays of a file with the labels corrected; tell which others were cut."""
    arrays = read_arrays(path)
    _, y_key = find_examples(arrays, path)
    arrays[y_key] = corrections.corrected(arrays[y_key])
    kept, n = corrections.kept, len(corrections.kept)
    if not kept.all() and not any(key in arrays for key in ID_KEYS):
        # Positions would be others.
        arrays[ID_KEYS[0]] = corrections.ids
    cut = [] if kept.all() else [k for k, a in arrays.items() if a.ndim and len(a) == n]
    content: dict[str, Any] = {k: a[kept] if k in cut else a for k, a in arrays.items()}
    with replacing(out) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **content)
    return [f"Rows were taken out of: {', '.join(cut)}."] if cut else []


def _save_dataset(settings: ApplySettings, source: DataSource, result: tf.data.Dataset) -> None:
    """Save a dataset in batches, or as single examples where it was saved as such."""
    if settings.path.is_dir():
        saved = tf.data.Dataset.load(str(settings.path)).element_spec
        if saved[1].shape.rank < source.dataset.element_spec[1].shape.rank:
            result = result.unbatch()
    with replacing(str(settings.out)) as temporary:
        result.save(str(temporary))


def _places(corrections: Corrections) -> Iterator[str | None]:
    """Yield where each file of a folder of images belongs; None for those that go.

    A file that stays keeps its name; one that comes to a class where its name is taken gets a
    number behind it.
    """
    stays = corrections.kept & ~corrections.relabelled
    taken = set(corrections.ids[stays].tolist())
    for i, name in enumerate(corrections.ids.tolist()):
        if stays[i]:
            yield name
        elif not corrections.kept[i]:
            yield None
        else:
            inside = PurePosixPath(*PurePosixPath(name).parts[1:])
            place = free = PurePosixPath(corrections.name_of(corrections.after[i])) / inside
            number = 1
            while str(free) in taken:
                number += 1
                free = place.with_name(f"{place.stem}-{number}{place.suffix}")
            taken.add(str(free))
            yield str(free)


def _copy_images(
    out: Path, source: DataSource, corrections: Corrections, places: Sequence[str | None]
) -> None:
    with replacing(out) as temporary:
        # All classes, so that those without examples keep their numbers.
        for name in source.class_names or ():
            (temporary / name).mkdir(parents=True)
        for file, place in zip(source.file_names or (), places, strict=True):
            if place is not None:
                (temporary / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, temporary / place)


def _write_moves(path: Path | None, corrections: Corrections, places: Sequence[str | None]) -> None:
    moves = [
        {"from": name, "to": place}
        for name, place in zip(corrections.ids.tolist(), places, strict=True)
        if name != place
    ]
    with replacing(str(path)) as temporary:
        temporary.write_text(json.dumps(moves, indent=1) + "\n", encoding="utf-8")


def _apply_to_table(settings: ApplySettings, decisions: Decisions) -> tuple[Corrections, list[str]]:
    """Write a table with other labels in place, all other cells as they are written."""
    table = read_table(settings.path, Columns(settings.label, settings.id))
    n = len(table.labels)
    ids = np.arange(n) if table.ids is None else table.ids
    corrections = correct(
        decisions, ids, table.labels, table.class_names, settings.drop, settings.relabel
    )
    is_csv = settings.path.suffix.lower() == ".csv"
    write = _write_csv_table if is_csv else _write_parquet_table
    write(settings, table.label, corrections)
    return corrections, []


def _write_csv_table(settings: ApplySettings, label: str, corrections: Corrections) -> None:
    text = settings.path.read_text(encoding="utf-8-sig")
    header, *rows = (row for row in csv.reader(io.StringIO(text, newline="")) if row)
    if len(rows) != len(corrections.kept) or header.count(label) != 1:
        message = (
            f"The table must have one line for each example, and one column {label!r}. Received: "
            f"{str(settings.path)!r} with {len(rows)} lines for {len(corrections.kept)} examples."
        )
        raise CommandError(message)
    at = header.index(label)
    new = _cells(corrections, [row[at] for row in rows])
    for row, cell in zip(rows, new, strict=True):
        row[at] = cell
    with replacing(str(settings.out)) as temporary:
        _write_csv(temporary, [header, *(rows[i] for i in np.flatnonzero(corrections.kept))])


def _write_parquet_table(settings: ApplySettings, label: str, corrections: Corrections) -> None:
    with settings.path.open("rb") as file:
        table = pq.ParquetFile(file).read()
    column = table[label]
    new = pa.array(_cells(corrections, column.to_pylist()), type=column.type)
    field = table.schema.field(label)
    table = table.set_column(table.schema.get_field_index(label), field, new)
    with replacing(str(settings.out)) as temporary:
        pq.write_table(table.filter(pa.array(corrections.kept)), temporary)


def _cells(corrections: Corrections, cells: Sequence[Any]) -> list[Any]:
    """Return the cells of the labels with the new ones, written as the table writes the class."""
    written = dict(zip(corrections.before.tolist(), cells, strict=True))
    kind = type(cells[0])
    new = list(cells)
    for i in np.flatnonzero(corrections.relabelled):
        label = corrections.after[i]
        # Of a class that no example had.
        spelled = corrections.name_of(label) if kind is str else kind(label.item())
        new[i] = written.get(label.item(), spelled)
    return new


def _write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
