"""How suspicious each label is: a calculator, and the table that it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ..baselines.features import Features
from ..calculators.self_influence import SelfInfluenceCalculator
from ..gradients.passes import Pass
from ..linalg.checks import check_count
from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import LayerKey
from ..report.labels import read_labels
from ..training_dynamics.callback import TrainingDynamics, recorded_dynamics
from ..training_dynamics.record import RecordedDynamics
from ..types import Batch, Data, IdFunction, Verbosity
from ..utils.example_ids import check_unique, names_of
from ..utils.takes_data import takes_data
from .held_out import CrossFit
from .issues import LabelIssues
from .reading import Evidence, check_classes
from .signals import Sources, check_signals, default_signals, mean_rank
from .values import ValueSources


class LabelSuspicion(SelfInfluenceCalculator):
    """Score an example by how suspicious its label is: the mean rank of several signals.

    A signal is a number for each example, larger for more suspicious. The n examples are ranked by
    each signal, ranks are divided to go from 0 to 1, and their mean is the score. These signals
    are taken where none are asked for:

    - ``"head"``: ``-log π_y`` by the last layer alone, fitted anew on the other folds;
    - ``"neighbours"``: the share of the nearest examples, as the last layer sees them, with
      another label;
    - ``"recorded_loss"``, or ``"recorded_margin"`` where only margins were recorded: its mean
      over the epochs of the training, with ``dynamics``;
    - ``"in_sample"`` and ``"held_out"``: what models that were trained on parts of the data say of
      the examples that they have seen, and of the others, with ``cross_fit``.

    ``"loss"``, ``"margin"``, ``"head_margin"`` and ``"leave_one_out"`` are there to be asked for.
    Every call is given the whole training set, whose features are held in memory.

    Where labels are values, there is one signal, ``"residual"``: ``|y - ŷ|`` by the last layer,
    fitted anew by ridge regression on the other folds, divided by its spread around the example.

    Parameters
    ----------
    model
        The wrapped model of a classifier with one label for each example, or of a regression with
        one value.
    dynamics
        The callback that was in the fit, or its record.
    cross_fit
        What `cross_fit` returned for the same examples.
    signals
        Names of the signals; None takes the above.
    num_folds
        In how many folds the last layer is fitted anew.
    num_neighbours
        The number of neighbours; None takes ``√n``.
    layer
        Name or index of the layer whose inputs are the features; None takes the last one that has
        trainable weights.
    from_logits
        Whether the outputs are logits; None reads it off the loss, else off the last activation.
    seed
        Fixes the folds.

    Raises
    ------
    ValueError
        If a signal is unknown, or lacks what it is made of, or a number is out of its range.
    """

    _eager_hooks = frozenset({"_self_scores"})

    def __init__(
        self,
        model: BaseInfluenceModel,
        dynamics: TrainingDynamics | RecordedDynamics | None = None,
        cross_fit: CrossFit | None = None,
        signals: Sequence[str] | None = None,
        num_folds: int = 5,
        num_neighbours: int | None = None,
        layer: LayerKey = None,
        from_logits: bool | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        self.dynamics = None if dynamics is None else recorded_dynamics(dynamics)
        self.cross_fit = cross_fit
        chosen = default_signals(self.dynamics, cross_fit) if signals is None else signals
        self.signals = check_signals(chosen)
        self._settings: dict[str, Any] = {
            "num_folds": check_count("num_folds", num_folds, 2),
            "num_neighbours": None
            if num_neighbours is None
            else check_count("num_neighbours", num_neighbours),
            "seed": check_count("seed", seed, 0),
        }
        self._features = Features(model, layer)
        self._from_logits, self._asked = from_logits, signals

    def find_issues(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: Verbosity = "auto",
    ) -> LabelIssues:
        """Return a table of all examples.

        Parameters
        ----------
        train_set, id_fn, device, verbose
            As for `score`.

        Raises
        ------
        LabelError
            If the labels are no classes of the model.
        ValueError
            If ids are not all different, or ``dynamics`` or ``cross_fit`` is of other examples.
        """
        data = Pass(train_set, "train_set", "Labels", id_fn, device, verbose)
        sources = self._read(data)
        signals, evidence = sources.signals(self.signals), sources.evidence
        suspicion, estimate = mean_rank(list(signals.values())), sources.estimate()
        is_issue = np.zeros(len(suspicion), bool)
        is_issue[np.lexsort((evidence.ids, -suspicion))[: estimate.number]] = True
        return LabelIssues(
            ids=evidence.ids,
            labels=evidence.labels,
            **sources.suggestions(),
            suspicion=suspicion,
            is_issue=is_issue,
            **sources.around(),
            signals=signals,
            class_names=names_of(train_set).class_names,
            estimated_number=estimate.number,
            interval=estimate.interval,
        )

    def scored_batches(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        data = Pass(train_set, "train_set", "Labels", id_fn, device, verbose)
        sources = self._read(data)
        yield from self._handed_out(data, sources.evidence.ids, self._scores(sources))

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        """Return the scores of a batch that is the whole training set."""
        found = [tensor.numpy() for tensor in self._read_batch(batch)]
        evidence = self._evidence(np.arange(len(found[0])), *found)
        return tf.constant(self._scores(self._sources(evidence)), self.model.dtype)

    def _scores(self, sources: Sources) -> np.ndarray:
        return mean_rank(list(sources.signals(self.signals).values()))

    def _sources(self, evidence: Evidence) -> Sources:
        if evidence.labels.dtype.kind == "f":
            _check_none(dynamics=self.dynamics, cross_fit=self.cross_fit, signals=self._asked)
            return ValueSources(evidence, **self._settings)
        return Sources(evidence, self.dynamics, self.cross_fit, **self._settings)

    def _read(self, data: Pass) -> Sources:
        computed = self._computed(data.checked(self.engine), self._read_batch, axis=0)
        parts = [(item.ids, *(t.numpy() for t in found)) for item, found in computed]
        ids, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        return self._sources(self._evidence(check_unique(ids, data.argument), *columns))

    def _read_batch(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        """Return targets, outputs, features and keys of a batch; traceable."""
        inputs, targets, _ = self.model.process_batch_for_loss_fn(batch)
        features, outputs = self._features.with_outputs(batch)
        if self.dynamics is None:
            keys = tf.zeros(tf.shape(features)[:1], tf.int64)
        else:
            keys = self.dynamics.keys_of(inputs, targets)
        return tf.convert_to_tensor(targets), tf.convert_to_tensor(outputs), features, keys

    def _evidence(self, ids: np.ndarray, *columns: Any) -> Evidence:
        targets, outputs, features, keys = columns
        labels, _ = read_labels(targets, outputs, self.model.loss_function.loss)
        if labels.dtype.kind == "f":
            return Evidence(ids, labels, np.empty((len(ids), 0)), features, keys)
        reader = ClassReader(self.model, self._from_logits)
        scores = tf.cast(reader.scores(tf.constant(outputs)), tf.float64)
        found = tf.nn.log_softmax(scores).numpy()
        return Evidence(ids, check_classes(labels, found.shape[1]), found, features, keys)


def _check_none(**arguments: Any) -> None:
    """Refuse what adds signals that values have not."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        message = (
            "Argument `dynamics`, `cross_fit` and `signals` must be None where labels are values, "
            f"which have one signal, the residual. Received: {' and '.join(given)}. Leave them out."
        )
        raise ValueError(message)


@takes_data
def find_label_issues(
    model: BaseInfluenceModel,
    data: Data,
    *,
    dynamics: TrainingDynamics | RecordedDynamics | None = None,
    cross_fit: CrossFit | None = None,
    signals: Sequence[str] | None = None,
    id_fn: IdFunction | None = None,
    device: str | None = None,
    verbose: Verbosity = "auto",
    **settings: Any,
) -> LabelIssues:
    """Find the labels of a training set that are likely to be wrong.

    Parameters
    ----------
    model
        The wrapped model, trained on these data, of a classifier with one label for each example,
        or of a regression with one value.
    data
        The training set.
    dynamics, cross_fit, signals
        As for `LabelSuspicion`: each that is given adds its signals.
    id_fn, device, verbose
        As for `SelfInfluenceCalculator.score`.
    settings
        The others of `LabelSuspicion`.

    Returns
    -------
    A row for each example, in the order of the data.

    Raises
    ------
    LabelError
        If the labels are no classes of the model.
    ValueError
        If a setting is out of its range, or ``dynamics`` or ``cross_fit`` is of other examples.
    """
    calculator = LabelSuspicion(model, dynamics, cross_fit, signals, **settings)
    return calculator.find_issues(data, id_fn, device, verbose)
