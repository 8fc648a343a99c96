"""Every training example with its label, prediction, loss and score, ranked by suspicion."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.extras import require
from deel_influence.model.fingerprint import weights_digest
from deel_influence.model.influence_model import BaseInfluenceModel, check_influence_model
from deel_influence.types import Batch, Data, Verbosity
from deel_influence.utils.example_ids import as_ids, check_unique, names_of
from deel_influence.utils.formatting import format_number, format_share
from deel_influence.utils.html import Html, html_table
from deel_influence.utils.kernels import Kernel
from deel_influence.utils.label_sets import LabelSets
from deel_influence.utils.takes_data import takes_data

from .labels import probability_reader, read_labels, set_reader
from .parquet import (
    check_class_names,
    check_columns,
    names_beside,
    read_columns,
    write_columns,
    write_csv,
)

# A notebook shows so many examples.
_SHOWN = 10
# Below this part of the way from the commonest class to all labels, a model has learnt too little.
_LEAST_SKILL = 0.5
# Further apart, how sure a model is and how often it is right do not go together.
_MOST_APART = 0.15

# Name in files and data frames, and name of the attribute.
_COLUMNS = {
    "id": "ids",
    "label": "labels",
    "predicted": "predicted",
    "loss": "losses",
    "score": "scores",
    "rank": "ranks",
}
# Of these, a triage may have none.
_PROBABILITIES = ("given_probability", "predicted_probability")


class SelfInfluence(Protocol):
    """What triage needs of a calculator; `SelfInfluenceCalculator` and its kin have it."""

    def scored_batches(
        self, train_set: Data, *, verbose: str | int
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        """Yield each batch, its ids ``(b,)`` and its scores ``(b,)``."""


@dataclass(frozen=True, eq=False)
class Triage:
    """The examples of a training set in its own order, one row each.

    Attributes
    ----------
    ids
        Example ids, shape ``(n,)``, int64 or texts, all different.
    labels
        Given labels, shape ``(n,)``: int64 for classes, floating for values.
    predicted
        What the model predicts, in the terms of ``labels``, shape ``(n,)``.
    losses
        Losses, shape ``(n,)``.
    scores
        Scores, shape ``(n,)``, the larger the more suspicious.
    ranks
        Ranks, shape ``(n,)``, int64; 1 is the most suspicious, and equal scores go by id.
    class_names
        What the labels 0, 1, ... mean, where it is known; of examples with several labels at once,
        the sets of classes.
    given_probability, predicted_probability
        What the model gives to the label and to what it predicts, from 0 to 1, shape ``(n,)``; None
        where it is no classifier that gives probabilities.

    Raises
    ------
    ValueError
        If the columns are not of one length, or the names do not fit the labels.
    """

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    class_names: Sequence[str] | None = None
    given_probability: np.ndarray | None = None
    predicted_probability: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that the columns are of one length, and that every class has a name."""
        known = [name for name in _PROBABILITIES if getattr(self, name) is not None]
        check_columns({name: getattr(self, name) for name in (*_COLUMNS.values(), *known)})
        if self.class_names is not None:
            check_class_names(self.class_names, self.labels, self.predicted)

    def __len__(self) -> int:
        """Return the number n of examples."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many examples there are, and which comes first."""
        worst = self.ids[self.ranks.argmin()].item() if len(self) else None
        return f"<Triage of {len(self)} examples: id {worst!r} is the most suspicious>"

    def _repr_html_(self) -> Html:
        """Show the most suspicious examples in a notebook."""
        title = f"The {min(_SHOWN, len(self))} most suspicious of {len(self):,} examples"
        return html_table(*self.table(_SHOWN), title, self.doubt or "")

    @property
    def has_classes(self) -> bool:
        """Whether the labels are classes rather than values."""
        return self.labels.dtype.kind != "f"

    @property
    def doubt(self) -> str | None:
        """A sentence that says what is to be doubted; None where nothing is to be said.

        A model that predicts few of the labels that it was trained on disputes right labels as
        often as wrong ones: it comes less than half the way from the share of the commonest class
        to all labels. The probabilities of one that is calibrated badly mean little: their mean,
        of what is predicted, is more than 15 points off the share of the labels that it predicts.
        Of labels that are values, nothing is said.
        """
        if not self.has_classes or not len(self):
            return None
        fitted = float(np.mean(self.labels == self.predicted))
        commonest = np.unique(self.labels, return_counts=True)[1].max() / len(self)
        if fitted - commonest >= _LEAST_SKILL * (1 - commonest):
            return self._doubt_of_probabilities(fitted)
        return (
            f"Doubt this order: the model predicts {format_share(fitted)} of the labels that it "
            f"was trained on, where naming the commonest class would give "
            f"{format_share(commonest)}; it should be half the way from there to all. Train it "
            "longer, unless so many of the labels are wrong."
        )

    def _doubt_of_probabilities(self, fitted: float) -> str | None:
        if self.predicted_probability is None:
            return None
        sure = float(np.mean(self.predicted_probability))
        if abs(sure - fitted) <= _MOST_APART:
            return None
        return (
            f"Doubt the probabilities: the model gives what it predicts {format_share(sure)} on "
            f"average, and predicts {format_share(fitted)} of the labels that it was trained on, "
            f"more than {format_share(_MOST_APART)} apart. Calibrate it, or train it "
            f"{'less' if sure > fitted else 'longer'}."
        )

    def label_text(self, label: Any) -> str:
        """Return the name of a class where there is one, or else the number."""
        if not self.has_classes:
            return format_number(float(label))
        return str(int(label)) if self.class_names is None else str(self.class_names[int(label)])

    def table(self, k: int) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
        """Return the k most suspicious examples for readers: heads of columns, and rows.

        Parameters
        ----------
        k
            How many, at least 1; more than n gives n.
        """
        rows: list[tuple[object, ...]] = [
            (
                self.ranks[i],
                self.ids[i],
                self.label_text(self.labels[i]),
                self.label_text(self.predicted[i]),
                format_number(float(self.losses[i]), keep_zeros=True),
                format_number(float(self.scores[i]), keep_zeros=True),
            )
            for i in self.most_suspicious(k)
        ]
        return ("rank", "id", "label", "predicted", "loss", "score"), rows

    def most_suspicious(self, k: int) -> np.ndarray:
        """Return the positions ``(k,)`` of the k most suspicious examples, the worst first.

        Parameters
        ----------
        k
            How many, at least 1; more than n gives n.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            message = f"Argument `k` must be an integer of at least 1. Received: k={k!r}."
            raise ValueError(message)
        return np.argsort(self.ranks)[:k]

    def to_pandas(self) -> Any:
        """Return a data frame with the columns id, label, predicted, loss, score and rank.

        Where the classes have names, label_name and predicted_name stand beside the numbers; where
        the model gives probabilities, given_probability and predicted_probability at the end.
        """
        return require("pandas", "report", "Data frames need").DataFrame(self._columns())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas` to a CSV file, whole or not at all."""
        write_csv(path, self._columns())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas` to a Parquet file, whole or not at all."""
        write_columns(path, self._columns(), self.class_names)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> Triage:
        """Read what `to_parquet` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, is no Parquet file, or lacks a column.
        """
        found, names = read_columns(path, tuple(_COLUMNS))
        columns = {name: found[key] for key, name in _COLUMNS.items()}
        known = {name: found[name] for name in _PROBABILITIES if name in found}
        return cls(**columns, **known, class_names=names)

    def _columns(self) -> dict[str, np.ndarray]:
        """Return what files and data frames hold, the names of classes beside their numbers."""
        columns = {key: getattr(self, name) for key, name in _COLUMNS.items()}
        named = names_beside(columns, ("label", "predicted"), self.class_names)
        known = {name: getattr(self, name) for name in _PROBABILITIES}
        return {**named, **{name: part for name, part in known.items() if part is not None}}


@takes_data
def run_triage(
    influence_model: BaseInfluenceModel,
    calculator: SelfInfluence,
    dataset: Data,
    ids: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    verbose: Verbosity = "auto",
    class_names: Sequence[str] | None = None,
) -> Triage:
    """Score every example of a training set in one pass.

    Parameters
    ----------
    influence_model
        The model whose predictions and losses are shown; the one that ``calculator`` uses.
    calculator
        Gives the self-influence of each example.
    dataset
        The training set, in batches and in a fixed order.
    ids
        Ids of the examples, shape ``(n,)``, integers or texts, all different; None takes those that
        the dataset has, or positions.
    verbose
        As for `progress_bar`.
    class_names
        What the classes 0, 1, ... mean; None takes the names that the dataset has.

    Raises
    ------
    ValueError
        If the calculator has another model, there is not one id for each example, or a class has
        no name.
    NonFiniteError
        If a score, loss or prediction is NaN or infinite; the message says in which batch.
    LabelError
        If the examples do not have one label each, or rows of 0 and 1 under a binary loss.
    EmptyDatasetError
        If there are no examples.
    """
    check_influence_model(influence_model)
    _check_same_model(influence_model, calculator)
    given_ids = None if ids is None else check_unique(as_ids(ids, "ids"), "ids")
    read = _batch_reader(influence_model)
    loss = influence_model.loss_function.loss
    probabilities_of, sets_of = probability_reader(influence_model), set_reader(influence_model)
    parts = []
    scored = calculator.scored_batches(dataset, verbose=verbose)
    for number, (batch, known, scores) in enumerate(scored):
        targets, outputs, losses = read(batch)
        labels, predicted = sets_of(targets, outputs) or read_labels(targets, outputs, loss)
        part = {"predicted": predicted, "losses": losses.numpy(), "scores": scores.numpy()}
        _check_finite(part, number)
        probabilities = probabilities_of(outputs)
        if probabilities is not None:
            for name, column in zip(_PROBABILITIES, (labels, predicted), strict=True):
                part[name] = np.take_along_axis(probabilities, column[:, None], axis=1)[:, 0]
        parts.append({"ids": known, "labels": labels, **part})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["ids"] = _ids_for(given_ids, columns["ids"])
    ranks = _ranks(columns["scores"], columns["ids"])
    names = names_of(dataset).class_names if class_names is None else class_names
    if columns["labels"].ndim == 2:
        both = columns["labels"], columns["predicted"] > 0
        names, columns["labels"], columns["predicted"] = LabelSets.numbered(*both, names)
    return Triage(ranks=ranks, class_names=names, **columns)


def _check_same_model(influence_model: BaseInfluenceModel, calculator: Any) -> None:
    """Refuse a calculator of another model, unless it goes over several sets of weights."""
    if hasattr(calculator, "checkpoints") or hasattr(calculator, "models"):
        return
    given = influence_model.model
    scored = getattr(calculator, "model", influence_model).model
    if scored is not given and weights_digest(scored) != weights_digest(given):
        message = (
            "Argument `influence_model` must be the model that `calculator` scores with. Received: "
            f"{given.name!r} beside a calculator of {scored.name!r}, which has other weights. Pass "
            "calculator.model."
        )
        raise ValueError(message)


def _batch_reader(influence_model: BaseInfluenceModel) -> Kernel:
    """Compile a function from a batch to its targets, outputs and losses ``(b,)``."""

    def read(batch: Batch) -> tuple:
        targets = influence_model.process_batch_for_loss_fn(batch)[1]
        outputs = influence_model.predict_batch(batch)
        return targets, outputs, influence_model.per_example_losses(batch)

    return Kernel(read)


def _check_finite(columns: dict[str, np.ndarray], batch_number: int) -> None:
    for name, values in columns.items():
        wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if wrong.size:
            message = (
                f"The {name} of the training examples must be finite. Received: "
                f"{values[wrong[0]]} in batch {batch_number} (counted from 0), example {wrong[0]} "
                f"of the batch, and {wrong.size - 1} more there. Look for NaN in its inputs, or "
                "for weights that diverged in training."
            )
            raise NonFiniteError(message)


def _ids_for(ids: np.ndarray | None, known: np.ndarray) -> np.ndarray:
    """Return the ids ``(n,)`` that were given, or those that the examples have."""
    if ids is None:
        return check_unique(known, "dataset")
    if len(ids) != len(known):
        message = (
            "Argument `ids` must have one id per example of the dataset. "
            f"Received: {len(ids)} ids for {len(known)} examples."
        )
        raise ValueError(message)
    return ids


def _ranks(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(scores), dtype=np.int64)
    # The last key is the first one to sort by.
    ranks[np.lexsort((ids, -scores))] = np.arange(1, len(scores) + 1)
    return ranks
