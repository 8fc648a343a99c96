"""The table of label issues: files, merges, and names that want to be more than names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deel_influence.errors import DataSourceError, LabelError
from deel_influence.labels import LabelIssues

HOSTILE = ("=1+1", "<script>alert(1)</script>", "\x1b[2Jcat")


def issues(ids=(4, 2, 9), names=("cat", "dog", "cow"), suspicion=(0.1, 0.9, 0.5)) -> LabelIssues:
    n = len(ids)
    return LabelIssues(
        ids=np.array(ids),
        labels=np.arange(n) % 3,
        suggested=(np.arange(n) + 1) % 3,
        given_probability=np.linspace(0.1, 0.3, n),
        suggested_probability=np.linspace(0.6, 0.8, n),
        suspicion=np.array(suspicion),
        is_issue=np.array(suspicion) > 0.6,
        outlier_score=np.linspace(0.2, 0.9, n),
        duplicate_of=np.array([None, ids[2], ids[1]], object),
        neighbours=np.array([[ids[1], ids[2]], [ids[2], ids[0]], [ids[1], ids[0]]]),
        signals={"head": np.arange(n) * 2.0, "neighbours": np.arange(n) / 3},
        class_names=names,
        estimated_number=1,
        interval=(0, 2),
    )


def same(one: LabelIssues, other: LabelIssues) -> None:
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas())
    np.testing.assert_array_equal(one.neighbours, other.neighbours)
    assert (one.estimated_number, one.interval) == (other.estimated_number, other.interval)
    assert one.class_names == other.class_names


@pytest.mark.parametrize("names", [("cat", "dog", "cow"), None])
@pytest.mark.parametrize("ids", [(4, 2, 9), ("b", "a", "c")])
def test_it_goes_through_a_file(ids, names, tmp_path):
    table = issues(ids, names)
    same(LabelIssues.load(table.save(tmp_path / "issues")), table)


def test_its_columns_are_those_that_are_promised(tmp_path):
    table = issues()
    expected = [
        *("id", "label", "label_name", "suggested", "suggested_name", "given_probability"),
        *("suggested_probability", "suspicion", "is_issue", "outlier_score", "duplicate_of"),
        *("signal_head", "signal_neighbours"),
    ]
    assert list(table.to_pandas().columns) == expected
    table.to_csv(tmp_path / "issues.csv")
    table.to_parquet(tmp_path / "issues.parquet")
    assert list(pd.read_csv(tmp_path / "issues.csv").columns) == expected
    read = pq.read_table(tmp_path / "issues.parquet").to_pandas()
    assert list(read.columns) == expected
    assert read["label_name"].tolist() == ["cat", "dog", "cow"]
    assert read["is_issue"].tolist() == [False, True, False]


@pytest.mark.parametrize(("ids", "cells"), [((4, 2, 9), ",9,2"), (("b", "=a", "c"), ",c,'=a")])
def test_duplicates_are_ids_or_missing_everywhere(ids, cells, tmp_path):
    table = issues(ids)
    expected = [None, ids[2], ids[1]]
    column = table.to_pandas()["duplicate_of"]
    assert column.isna().tolist() == [True, False, False]
    assert column[1:].tolist() == expected[1:]
    table.to_csv(tmp_path / "issues.csv")
    written = pd.read_csv(tmp_path / "issues.csv", dtype=str, keep_default_na=False)
    assert ",".join(written["duplicate_of"]) == cells
    table.to_parquet(tmp_path / "issues.parquet")
    assert pq.read_table(tmp_path / "issues.parquet")["duplicate_of"].to_pylist() == expected
    none = replace(table, duplicate_of=np.full(3, None))
    none.to_csv(tmp_path / "none.csv")
    none.to_parquet(tmp_path / "none.parquet")
    assert pd.read_csv(tmp_path / "none.csv")["duplicate_of"].isna().all()
    assert pq.read_table(tmp_path / "none.parquet")["duplicate_of"].to_pylist() == [None] * 3
    same(LabelIssues.load(none.save(tmp_path / "none")), none)


def test_hostile_names_are_texts_everywhere(tmp_path):
    table = issues(("=cmd()", "@x", "ok"), HOSTILE)
    table.to_csv(tmp_path / "issues.csv")
    written = pd.read_csv(tmp_path / "issues.csv", keep_default_na=False)
    assert written["id"].tolist() == ["'=cmd()", "'@x", "ok"]
    assert written["label_name"].tolist() == ["'=1+1", HOSTILE[1], r"\x1b[2Jcat"]
    page = table._repr_html_()
    assert "<script" not in page
    assert "\x1b" not in page + repr(table)


def test_a_notebook_shows_the_most_suspicious_first():
    page = issues()._repr_html_()
    assert "About 1 of 3 labels are wrong (0 to 2)" in page
    assert page.index("<td>2</td>") < page.index("<td>9</td>") < page.index("<td>4</td>")
    assert repr(issues()) == "<LabelIssues of 3 examples: about 1 wrong labels (0 to 2)>"


def test_shards_merge_in_any_order():
    one, other = issues(), issues((1, 7, 3), suspicion=(0.8, 0.2, 0.7))
    merged = one.merge(other)
    assert merged.ids.tolist() == [1, 2, 3, 4, 7, 9]
    assert merged.suspicion.tolist() == [0.8, 0.9, 0.7, 0.1, 0.2, 0.5]
    assert (merged.estimated_number, merged.interval) == (2, (0, 4))
    assert merged.duplicate_of.tolist() == [None, 9, 7, None, 3, 2]
    assert merged.neighbours[0].tolist() == [7, 3]
    fewer = replace(other, neighbours=other.neighbours[:, :1])
    assert one.merge(fewer).neighbours.ravel().tolist() == merged.neighbours[:, 0].tolist()
    same(other.merge(one), merged)


def test_what_does_not_belong_together_does_not_merge():
    with pytest.raises(ValueError, match=r"1 ids that are in both, such as \[9\]"):
        issues().merge(issues((1, 9, 3)))
    with pytest.raises(ValueError, match="class names"):
        issues().merge(issues((1, 7, 3), names=("cat", "dog", "pig")))
    with pytest.raises(ValueError, match="signals"):
        issues().merge(replace(issues((1, 7, 3)), signals={"loss": np.zeros(3)}))
    with pytest.raises(ValueError, match="same type"):
        issues().merge(issues(("a", "b", "c")))


def test_columns_of_other_lengths_and_classes_without_a_name_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        replace(issues(), suspicion=np.zeros(2))
    with pytest.raises(ValueError, match="signal_head"):
        replace(issues(), signals={"head": np.zeros(4)})
    with pytest.raises(ValueError, match="neighbours"):
        replace(issues(), neighbours=np.zeros((4, 2)))
    with pytest.raises(LabelError, match="name every label"):
        issues(names=("cat", "dog"))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataSourceError, match="label issues"):
        LabelIssues.load(tmp_path / "bad.npz")
