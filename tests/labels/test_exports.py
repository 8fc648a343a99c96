"""What other tools are given of label issues, and what is read back of their answers."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from deel_influence.errors import DecisionsError, LabelError
from deel_influence.labels import (
    apply_decisions,
    argilla_records,
    cleanlab_columns,
    label_studio_config,
    label_studio_tasks,
    read_argilla,
    read_label_studio,
    run_digest,
    set_fiftyone_fields,
    write_projector,
)
from tests.labels.problems import HOSTILE, issues

IDS = ("=a", "b\tc", "<i>")
# As a table of texts is numbered.
NAMES = ESCAPE, SCRIPT, FORMULA = tuple(sorted(HOSTILE))
SHOWN = ["one", "<b>two</b>", "three"]


def hostile():
    return issues(IDS, NAMES)


def through_json(value):
    return json.loads(json.dumps(value))


def annotated(tasks, answers):
    """Answer tasks as Label Studio exports them: each a list of labels, or None for skipped."""
    for task, labels in zip(tasks, answers, strict=True):
        task["annotations"] = [
            {
                "result": []
                if label is None
                else [
                    {
                        "from_name": "label",
                        "to_name": "shown",
                        "type": "choices",
                        "value": {"choices": [label]},
                    }
                ],
                "was_cancelled": label is None,
            }
            for label in labels
        ]
    return tasks


def rows(decisions):
    return list(zip(decisions.ids, decisions.decisions, decisions.labels, strict=True))


def test_cleanlab_gets_its_columns():
    frame = cleanlab_columns(issues())
    assert frame.index.tolist() == [4, 2, 9]
    assert frame["is_label_issue"].tolist() == [False, True, False]
    np.testing.assert_allclose(frame["label_quality"], [0.9, 0.1, 0.5])
    assert frame["given_label"].tolist() == [0, 1, 2]
    assert frame["predicted_label"].tolist() == [1, 2, 0]


def test_cleanlab_takes_them():
    learning = pytest.importorskip("cleanlab.classification")
    from sklearn.linear_model import LogisticRegression

    frame = cleanlab_columns(issues())
    x, labels = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 2])
    learner = learning.CleanLearning(LogisticRegression(), low_memory=True)
    learner.fit(x, labels, label_issues=frame)
    # The example that is an issue is left out.
    assert learner.clf.classes_.tolist() == [0, 2]


def test_label_studio_gets_the_most_suspicious_first():
    tasks = through_json(label_studio_tasks(issues(), SHOWN))
    assert [task["data"]["example"] for task in tasks] == ["2", "9", "4"]
    assert tasks[0]["data"] == {
        "shown": "<b>two</b>",
        "example": "2",
        "given": "dog",
        "suspicion": 0.9,
        "run": run_digest(np.array([4, 2, 9]), np.arange(3)),
    }
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == pytest.approx(0.7)
    (region,) = prediction["result"]
    assert region["value"] == {"choices": ["cow"]}


@pytest.mark.parametrize("kind", ["text", "image", "table"])
def test_label_studio_takes_every_name(kind):
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    shown = [{"a": 1}] * 3 if kind == "table" else SHOWN
    found = interface.LabelInterface(label_studio_config(hostile(), kind))
    found.validate()
    for task in through_json(label_studio_tasks(hostile(), shown, kind)):
        assert found.validate_task({"data": task["data"]})
        assert all(map(found.validate_prediction, task["predictions"]))


def test_label_studio_shows_names_as_texts():
    config = label_studio_config(hostile(), "image")
    assert "<script" not in config
    view = ElementTree.fromstring(config)
    assert [tag.tag for tag in view] == ["Header", "Image", "Choices"]
    choices = [choice.get("value") for choice in view[2]]
    assert choices == [r"\x1b[2Jcat", SCRIPT, FORMULA]
    tasks = label_studio_tasks(hostile(), SHOWN)
    told = [task["predictions"][0]["result"][0]["value"]["choices"][0] for task in tasks]
    assert set(told) == set(choices)
    numbers = ElementTree.fromstring(label_studio_config(issues(names=None)))
    assert [choice.get("value") for choice in numbers[2]] == ["0", "1", "2"]


def test_what_label_studio_answers_corrects_the_data():
    tasks = through_json(label_studio_tasks(hostile(), SHOWN))
    chosen = [[r"\x1b[2Jcat"], [FORMULA, FORMULA, None], [None]]
    decisions = read_label_studio(annotated(tasks, chosen))
    assert rows(decisions) == [
        ("b\tc", "relabel", r"\x1b[2Jcat"),
        ("<i>", "keep", ""),
        ("=a", "skip", ""),
    ]
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "label": NAMES}, index=list(IDS))
    corrected = apply_decisions(frame, decisions)
    assert corrected["label"].tolist() == [ESCAPE, ESCAPE, FORMULA]


def test_who_disagrees_has_decided_nothing():
    tasks = annotated(label_studio_tasks(issues(), SHOWN), [["cat", "cow"], [], ["cat"]])
    assert rows(read_label_studio(tasks)) == [("2", "skip", ""), ("4", "keep", "")]
    assert len(read_label_studio(annotated(tasks, [[], [], []]))) == 0


def test_other_tasks_are_refused():
    tasks = label_studio_tasks(issues(), SHOWN)
    with pytest.raises(DecisionsError, match=r"`tasks`.*entry 1 fails.*annotations"):
        read_label_studio(tasks)
    others = label_studio_tasks(issues((1, 7, 3)), SHOWN)
    both = annotated(tasks + others, [["cat"]] * 6)
    with pytest.raises(DecisionsError, match="2 runs"):
        read_label_studio(both)
    with pytest.raises(DecisionsError, match="`records`.*0 runs"):
        read_argilla([])


def test_argilla_gets_and_gives_back_every_name():
    records = through_json(argilla_records(hostile(), SHOWN, "review"))
    assert [record["id"] for record in records] == ["b\tc", "<i>", "=a"]
    assert records[0]["fields"] == {"review": "<b>two</b>"}
    assert records[0]["suggestions"]["label"]["value"] == FORMULA
    # As `to_list` of Argilla has it: answers by question, with who gave them.
    answers = [[ESCAPE], [FORMULA] * 2, [SCRIPT, None]]
    for record, values in zip(records, answers, strict=True):
        record["responses"] = {"label": [{"value": v, "user_id": "7"} for v in values]}
    assert rows(read_argilla(records)) == [
        ("b\tc", "relabel", ESCAPE),
        ("<i>", "keep", ""),
        ("=a", "relabel", SCRIPT),
    ]


def test_argilla_takes_and_exports_them():
    argilla = pytest.importorskip("argilla")
    records = [argilla.Record.from_dict(one) for one in argilla_records(hostile(), SHOWN)]
    assert [record.id for record in records] == ["b\tc", "<i>", "=a"]
    user = "12345678-1234-5678-1234-567812345678"
    records[0].responses.add(argilla.Response("label", ESCAPE, user_id=user))
    exported = through_json([record.to_dict() for record in records])
    assert rows(read_argilla(exported)) == [("b\tc", "relabel", ESCAPE)]


def test_fiftyone_samples_get_fields(tmp_path):
    fiftyone = pytest.importorskip("fiftyone")
    table = issues(("a.png", "in/b.png", str(tmp_path / "c.png")), NAMES)
    paths = ["in/b.png", "other.png", "c.png", "a.png"]
    samples = [fiftyone.Sample(filepath=str(tmp_path / path)) for path in paths]
    assert set_fiftyone_fields(table, samples, tmp_path) == 3
    assert [sample["suspicion"] for sample in (samples[0], *samples[2:])] == [0.9, 0.5, 0.1]
    assert samples[0]["ground_truth"].label == SCRIPT
    assert samples[0]["predicted"].label == FORMULA
    assert samples[0]["predicted"].confidence == pytest.approx(0.7)
    assert samples[0]["is_issue"] is True
    assert not samples[1].has_field("suspicion")


def test_the_projector_is_written_as_text(tmp_path):
    (tmp_path / "events").write_text("stays")
    points = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    write_projector(hostile(), points, tmp_path)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "tensors.tsv"), points, rtol=1e-6)
    lines = (tmp_path / "metadata.tsv").read_text(encoding="utf-8").split("\n")
    assert [line.split("\t") for line in lines[:-1]] == [
        ["id", "label", "suggested", "suspicion", "is_issue"],
        ["'=a", r"\x1b[2Jcat", SCRIPT, "0.1", "False"],
        [r"b\tc", SCRIPT, "'=1+1", "0.9", "True"],
        ["<i>", "'=1+1", r"\x1b[2Jcat", "0.5", "False"],
    ]
    assert (tmp_path / "events").read_text() == "stays"


def test_tensorboard_serves_the_projector(tmp_path):
    plugin = pytest.importorskip("tensorboard.plugins.projector.projector_plugin")
    from tensorboard.plugins.base_plugin import TBContext
    from werkzeug.test import Client

    points = np.arange(12).reshape(3, 4)
    write_projector(hostile(), points, tmp_path)
    context = TBContext(logdir=str(tmp_path), flags=SimpleNamespace(logdir=str(tmp_path)))
    apps = plugin.ProjectorPlugin(context).get_plugin_apps()

    def answer(route, **query):
        return Client(apps[route]).get(query_string=query)

    assert answer("/runs").json == ["."]
    (embedding,) = answer("/info", run=".").json["embeddings"]
    query = {"run": ".", "name": embedding["tensorName"]}
    found = np.frombuffer(answer("/tensor", **query).data, np.float32)
    assert found.tolist() == points.ravel().tolist()
    assert answer("/metadata", **query).data == (tmp_path / "metadata.tsv").read_bytes()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`shown` must have an entry for each"):
        label_studio_tasks(issues(), SHOWN[:2])
    with pytest.raises(ValueError, match="`shown`"):
        argilla_records(issues(), SHOWN[:2])
    with pytest.raises(ValueError, match="`kind` must be one of text, image, table"):
        label_studio_config(issues(), "sound")
    with pytest.raises(ValueError, match=r"`features` must.*\(2, 4\) for 3 examples"):
        write_projector(issues(), np.zeros((2, 4)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_values_are_no_classes_to_choose_among(tmp_path):
    values = replace(issues(), labels=np.array([0.5, 1.5, 2.5]), class_names=None)
    values = replace(values, given_probability=None, suggested_probability=None)
    for export in (label_studio_tasks, argilla_records):
        with pytest.raises(LabelError, match="of 3 values"):
            export(values, ["a", "b", "c"])
    with pytest.raises(LabelError, match="of 3 values"):
        label_studio_config(values)
    with pytest.raises(LabelError, match="of 3 values"):
        write_projector(values, np.zeros((3, 2)), tmp_path)
    assert not list(tmp_path.iterdir())
