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
from ..report.labels import read_labels, set_reader
from ..training_dynamics.callback import TrainingDynamics
from ..training_dynamics.fit_recorder import recorded_dynamics
from ..training_dynamics.record import RecordedDynamics
from ..types import Batch, Data, IdFunction, Verbosity
from ..utils.example_ids import check_unique, names_of
from ..utils.label_sets import LabelSets
from ..utils.takes_data import takes_data
from .held_out import CrossFit
from .issues import LabelIssues
from .reading import Evidence, check_classes
from .sets import SetSources
from .signals import Sources, check_signals, default_signals, suspicion_of
from .values import ValueSources


class LabelSuspicion(SelfInfluenceCalculator):
    """Score an example by how suspicious its label is, by the ranks that several signals give.

    A signal is a number for each example, larger for more suspicious. The n examples are ranked by
    each signal, and ranks r are divided to go from 0 to 1. The score is their mean; with
    ``dynamics`` or ``cross_fit`` it is ``1 - Π (1 - r)^(w / Σw)``, where a signal has the weight w,
    the share of the labels disputed by ``"held_out"``, or else by the record, that it disputes too.
    So signals of a network that has learnt its labels by heart, and disputes none, count for
    little. A label is disputed where less than half of the probability is left to it, where its
    margin is negative, or by most of the neighbours. These signals are taken where none are asked
    for:

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

    Where an example can have several classes, rows of 0 and 1 under a binary cross-entropy, each
    class is a question of its own, and ``"head"``, ``"neighbours"`` and ``"loss"`` are those of the
    class that is the most suspicious.

    Parameters
    ----------
    model
        The wrapped model of a classifier, or of a regression with one value.
    dynamics
        The callback that was in the fit, or its record.
    cross_fit
        What `cross_fit` returned for the same examples.
    signals
        Names of the signals; None takes the above.
    num_folds
        In how many folds the last layer is fitted anew.
    num_neighbours
        The number of neighbours; None takes ``√n``, and 10 where labels are sets of classes.
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

    scores_each_alone = False

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
        sources = self._read(data, names_of(train_set).class_names)
        signals, evidence = sources.signals(self.signals), sources.evidence
        suspicion, estimate = suspicion_of(signals), sources.estimate()
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
            class_names=sources.class_names,
            estimated_number=estimate.number,
            interval=estimate.interval,
            wrong_entries=estimate.entries,
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
        sources = self._sources(np.arange(len(found[0])), found)
        return tf.constant(self._scores(sources), self.model.dtype)

    def _scores(self, sources: Sources) -> np.ndarray:
        return suspicion_of(sources.signals(self.signals))

    def _read(self, data: Pass, class_names: Sequence[str] | None = None) -> Sources:
        computed = self._computed(data.checked(self.engine), self._read_batch, axis=0)
        parts = [(item.ids, *(t.numpy() for t in found)) for item, found in computed]
        ids, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        return self._sources(check_unique(ids, data.argument), columns, class_names)

    def _read_batch(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        """Return targets, outputs, features and keys of a batch; traceable."""
        inputs, targets, _ = self.model.process_batch_for_loss_fn(batch)
        features, outputs = self._features.with_outputs(batch)
        if self.dynamics is None:
            keys = tf.zeros(tf.shape(features)[:1], tf.int64)
        else:
            keys = self.dynamics.keys_of(inputs, targets)
        return tf.convert_to_tensor(targets), tf.convert_to_tensor(outputs), features, keys

    def _sources(
        self,
        ids: np.ndarray,
        columns: Sequence[np.ndarray],
        class_names: Sequence[str] | None = None,
    ) -> Sources:
        """Return the sources by the rule for such labels; the columns are of `_read_batch`."""
        targets, outputs, features, keys = columns
        models: dict[str, Any] = {"dynamics": self.dynamics, "cross_fit": self.cross_fit}
        settings = self._settings | {"class_names": class_names}
        sets = set_reader(self.model, self._from_logits)(targets, outputs)
        if sets is not None:
            rule = "an example can have several classes"
            _check_none(rule, **models)
            given, labels, _ = LabelSets.numbered(sets[0], sets[0])
            evidence = Evidence(ids, labels, sets[1], features, keys)
            return SetSources(evidence, given, **settings)
        labels, _ = read_labels(targets, outputs, self.model.loss_function.loss)
        if labels.dtype.kind == "f":
            rule = "labels are values, which have one signal, the residual"
            _check_none(rule, **models, signals=self._asked)
            evidence = Evidence(ids, labels, np.empty((len(ids), 0)), features, keys)
            return ValueSources(evidence, **settings)
        reader = ClassReader(self.model, self._from_logits)
        scores = tf.cast(reader.scores(tf.constant(outputs)), tf.float64)
        found = tf.nn.log_softmax(scores).numpy()
        labels = check_classes(labels, found.shape[1])
        evidence = Evidence(ids, labels, found, features, keys)
        return Sources(evidence, **models, **settings)


def _check_none(rule: str, **arguments: Any) -> None:
    """Refuse what the rule for such labels has no use for."""
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        names = ", ".join(f"`{name}`" for name in arguments)
        message = (
            f"Argument {names} must be None where {rule}. Received: {' and '.join(given)}. Leave "
            "them out."
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
        The wrapped model, trained on these data, of a classifier, or of a regression with one
        value.
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
