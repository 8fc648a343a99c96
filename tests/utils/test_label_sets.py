"""Sets of classes as labels: their numbers, their names, and what is kept of them in files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deel_influence.errors import LabelError
from deel_influence.utils.digests import run_digest
from deel_influence.utils.label_sets import LabelSets, names_as_json, names_of_json, run_of

GIVEN = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 1]], bool)
OTHERS = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0]], bool)
CLASSES = ("cat", "dog", "cow")


@pytest.mark.parametrize("seed", range(5))
def test_numbers_stand_for_the_rows_that_they_were_made_of(seed):
    draw = np.random.default_rng(seed)
    given, others = draw.random((30, 4)) < 0.4, draw.random((12, 4)) < 0.6
    sets, numbers, others_numbers = LabelSets.numbered(given, others)
    np.testing.assert_array_equal(sets.members[numbers], given)
    np.testing.assert_array_equal(sets.members[others_numbers], others)
    assert len(np.unique(sets.members, axis=0)) == len(sets)
    assert set(numbers.tolist()) == set(range(numbers.max() + 1))


def test_smaller_sets_come_first_and_those_of_others_last():
    sets, numbers, others = LabelSets.numbered(GIVEN, OTHERS, CLASSES)
    assert list(sets) == ["(none)", "cat", "cow", "dog + cow", "dog", "cat + dog + cow"]
    assert numbers.tolist() == [3, 1, 0, 3, 2]
    assert others.tolist() == [5, 1, 4]
    assert list(LabelSets.numbered(GIVEN, OTHERS)[0])[3] == "1 + 2"


def test_one_hot_rows_have_the_numbers_of_their_classes():
    labels = np.array([2, 0, 1, 2])
    _, numbers, _ = LabelSets.numbered(np.eye(3, dtype=bool)[labels], np.zeros((0, 3), bool))
    np.testing.assert_array_equal(numbers, labels)


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_they_go_through_json(classes):
    sets, *_ = LabelSets.numbered(GIVEN, OTHERS, classes)
    found = names_of_json(json.loads(json.dumps(names_as_json(sets))))
    assert isinstance(found, LabelSets)
    np.testing.assert_array_equal(found.members, sets.members)
    assert (found.classes, list(found)) == (classes, list(sets))
    assert names_of_json(names_as_json(classes)) == classes


def test_a_run_changes_with_the_classes_and_not_with_what_else_is_suggested():
    sets, numbers, _ = LabelSets.numbered(GIVEN, OTHERS)
    alone, same, _ = LabelSets.numbered(GIVEN, GIVEN)
    ids = np.arange(len(GIVEN))
    run = run_of(ids, numbers, sets)
    assert run == run_of(ids, same, alone) == run_digest(ids, GIVEN)
    # Sets of the same numbers, of other classes.
    moved = np.roll(alone.members, 1, axis=1)
    assert run_of(ids, same, LabelSets(moved)) != run


@pytest.mark.parametrize(
    "classes",
    [("cat", "dog"), ("cat", "cat", "dog"), ("cat", "dog + cow", "cow"), ("cat", "(none)", "cow")],
)
def test_names_that_leave_a_set_unclear_are_refused(classes):
    with pytest.raises(LabelError, match=r"`class_names` must have 3 names.*Received: \d names"):
        LabelSets.numbered(GIVEN, OTHERS, classes)
