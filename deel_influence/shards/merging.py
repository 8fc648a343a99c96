"""Parts in files, put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from ..calculators.blocks import BLOCK, InfluenceBlock
from ..calculators.scores import SCORES, Scores
from ..calculators.top_k import TOP_K, TopK
from ..curvature.sums import SUMS, FitSums
from ..errors import DataSourceError
from ..store.query_vectors import QUERIES, QueryVectors
from ..utils.records import kind_of

_KINDS: dict[str, Any] = {
    SCORES.name: Scores,
    SUMS.name: FitSums,
    BLOCK.name: InfluenceBlock,
    TOP_K.name: TopK,
    QUERIES.name: QueryVectors,
}
_NAME = re.compile(r"(?P<what>.+)-(?P<place>\d{5})-of-(?P<total>\d{5})-[0-9a-f]{16}\.npz")


def merge_files(paths: Sequence[str | Path]) -> Any:
    """Read parts, and merge them.

    Parameters
    ----------
    paths
        Files of one kind: `Scores`, `FitSums`, `InfluenceBlock`, `TopK` or `QueryVectors`; a folder
        stands for the ``.npz`` files in it. Of those that tasks wrote, all shards must be there.

    Returns
    -------
    What the parts give together, ordered by id. Sums are added in the order of the shards.

    Raises
    ------
    DataSourceError
        If a file is missing, damaged or of another kind, or a shard is missing or there twice.
    ValueError
        If parts do not belong together, or have an example in common.
    """
    files = sorted(set(_files(map(Path, paths))), key=lambda file: (file.name, str(file)))
    if not files:
        message = f"Argument `paths` must name files. Received: {[str(path) for path in paths]}."
        raise DataSourceError(message)
    _check_complete(files)
    kind = kind_of(files[0])
    for file in files:
        if kind not in _KINDS or kind_of(file) != kind:
            message = (
                f"Argument `paths` must name files of one kind, one of {sorted(_KINDS)}. Received: "
                f"{str(file)!r}, which holds a {kind_of(file)}."
            )
            raise DataSourceError(message)
    return reduce(lambda one, other: one.merge(other), map(_KINDS[kind].load, files))


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        yield from path.glob("*.npz") if path.is_dir() else (path,)


def _check_complete(files: Sequence[Path]) -> None:
    """Refuse parts of tasks of which some are missing, or there twice."""
    matches = [match for file in files if (match := _NAME.fullmatch(file.name))]
    if not matches:
        return
    runs = {(match["what"], int(match["total"])) for match in matches}
    places = sorted(int(match["place"]) for match in matches)
    (what, total), *others = sorted(runs)
    twice = sorted({place for place in places if places.count(place) > 1})
    missing = sorted(set(range(total)) - set(places))
    if others:
        received = f"parts of {what} of {total} beside {others[0][0]} of {others[0][1]}"
    elif twice:
        received = f"shard {twice[0]} twice, from other data, weights or settings"
    elif missing:
        received = f"{len(missing)} of {total} missing, shard {missing[0]} the first of them"
    else:
        return
    message = (
        f"Argument `paths` must name the parts of one run, each shard once. Received: {received}. "
        "Compute what is missing, or name the files one by one."
    )
    raise DataSourceError(message)
