"""The method that scores where none is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..baselines.features import Features
from ..datasets.source import DataSource
from ..errors import LabelError, UnsupportedModelError
from ..labels.reading import check_classes
from ..model.class_scores import ClassReader
from ..model.influence_model import InfluenceModel
from ..report.labels import read_labels, set_reader
from .options import Method
from .settings import TriageSettings


def settle_method(
    settings: TriageSettings,
    options: Mapping[str, object],
    model: InfluenceModel,
    source: DataSource,
) -> tuple[TriageSettings, str]:
    """Return settings for label issues where the labels are classes, and else as they are.

    Beside them stands what was chosen, and why.

    Parameters
    ----------
    settings
        Those of influence.
    options
        The options that belong to influence alone, by name; None where they were not given.
    model, source
        The model and its training set.
    """
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        return settings, f"Scored by influence, which {given[0]} belongs to."
    if has_classes(model, source):
        return replace(settings, metric=None, method=Method.label_issues), (
            "Scored by label-issues, because the labels are classes; --method influence ranks by "
            "self-influence."
        )
    return settings, "Scored by influence, because the labels are no classes."


def has_classes(model: InfluenceModel, source: DataSource) -> bool:
    """Tell whether the model is a classifier and the first labels are classes of it, or sets."""
    batch = next(iter(source.dataset))
    try:
        reader = ClassReader(model)
        _, outputs = Features(model).with_outputs(batch)
        targets = model.process_batch_for_loss_fn(batch)[1]
        if set_reader(model)(targets, outputs) is not None:
            return True
        labels, _ = read_labels(targets, outputs, model.loss_function.loss, reader.from_logits)
        check_classes(labels, reader.scores(outputs).shape[1])
    except (LabelError, UnsupportedModelError):
        return False
    return True
