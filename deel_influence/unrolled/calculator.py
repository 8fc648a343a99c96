"""Influence on queries by differentiating through a recorded training run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calculators.blocks import InfluenceBlock
from ..calculators.parts import part_at
from ..calculators.stored_matrix import MatrixHeader, StoredMatrix
from ..calculators.top_k import TopK, best_of
from ..errors import ConvergenceWarning, NonFiniteError
from ..linalg.checks import check_count
from ..model.measurements import Measurement, measured_model
from ..types import Data, IdFunction
from ..utils import running
from ..utils.datasets import Item
from ..utils.digests import settings_digest
from ..utils.group_sums import sum_by_group
from ..utils.kernels import Kernel
from ..utils.progress import check_verbose, progress_bar
from ..utils.top_k import ORDER, check_k, check_order
from .examples import digest_of, items_of, read_examples
from .metasmoothness import SMOOTH_ENOUGH
from .recorded_run import RecordedRun, network_fingerprint

Part = tuple[Item, int, np.ndarray, np.ndarray]
"""Queries, a step, the positions ``(b,)`` of its examples, and values ``(queries, b)``."""


class UnrolledInfluenceCalculator:
    """Differentiate the losses of queries through a whole training run [1]_.

    With weights w of the examples, a step on a batch of b minimises ``(1/b) Σ w_i ℓ_i + R``, and
    the end of the run is a function θ_T(w). The influence of example i on query z is

        influence(z, z_i) = -n · d ℓ(z, θ_T(w)) / d w_i    at w = 1,

    the derivative through all steps, the optimizer's momenta and the statistics of batches
    included. Sign and scale are those of the notation: positive where z_i helps z, no 1/n in it.
    Divided by n it predicts what the same run, with the same order and the same draws, gives
    without z_i; it asks nothing of a minimum that the run has not reached.

    The run is gone through backwards, from checkpoint to checkpoint: the states in between are
    computed again, and at each step one pass forwards and one backwards serve all queries.

    Parameters
    ----------
    run
        What `record_fit` recorded.
    measurement
        What is looked at on the queries in place of their loss; see `measured_model`. Positive
        means that it would rise without the training example.
    from_step
        The step from which on the weights of examples count: values are those of a training set
        that loses examples at this step. 0 is the whole run.
    queries_at_once
        How many queries go through the run together. Each needs the memory of one state, and every
        group of them one more training.

    Raises
    ------
    ValueError
        If the run has no such step, or the measurement is none.

    Warns
    -----
    ConvergenceWarning
        If `smoothness` was asked of the run, and is below 0.5: its derivatives say little about
        what leaving examples out does.

    References
    ----------
    .. [1] A. Ilyas, L. Engstrom. MAGIC: Near-Optimal Data Attribution for Deep Learning. 2025.
       arXiv:2504.16430.

    Examples
    --------
    >>> import keras
    >>> from deel_influence.unrolled import record_fit
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> train = np.eye(2, dtype="float32"), np.array([1.0, 0.0])
    >>> run = record_fit(model, train, epochs=3, batch_size=1, verbose=0)
    >>> UnrolledInfluenceCalculator(run).influence_matrix(train).shape
    (2, 2)
    """

    def __init__(
        self,
        run: RecordedRun,
        measurement: Measurement = None,
        from_step: int = 0,
        queries_at_once: int = 16,
    ) -> None:
        self.run = run
        self.measurement = measurement
        self.from_step = run.checked_step(from_step)
        self.queries_at_once = check_count("queries_at_once", queries_at_once)
        self._measured = measured_model(run.model, measurement)
        self._gradients = Kernel(
            lambda batch: run.step.gradients_at_end(self._measured, batch, run.final)
        )
        if run.smoothness is not None and run.smoothness < SMOOTH_ENOUGH:
            message = (
                "A run should be smooth for its derivatives to tell what leaving examples out "
                f"does. Received: a run of smoothness {run.smoothness:.2f}, below {SMOOTH_ENOUGH}. "
                "Larger batches, a smaller learning rate, smooth activations, or a larger epsilon "
                "of Adam make it smoother."
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=2)

    def __repr__(self) -> str:
        """Tell the run and the settings."""
        return (
            f"UnrolledInfluenceCalculator({self.run!r}, measurement={self.measurement!r}, "
            f"from_step={self.from_step})"
        )

    def influence_block(
        self,
        dataset_to_evaluate: Data,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> InfluenceBlock:
        """Return the influence of every training example on every query, with their ids.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries.
        verbose
            ``"auto"``, 0, 1 or 2, as in Keras.
        query_id_fn
            Gives ids to the queries; None takes those that go with them, or positions.

        Returns
        -------
        A block of ``(m, n)``, the training examples in the order in which they were recorded.
        """
        queries, ids = self._read(dataset_to_evaluate, query_id_fn)
        values = [found for _, found in self._values(self._groups(queries, ids), verbose)]
        return InfluenceBlock(ids, self.run.ids, np.concatenate(values))

    def influence_by_epoch(
        self,
        dataset_to_evaluate: Data,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> InfluenceBlock:
        """Return what the visit of each training example in each epoch did.

        An example is seen in one step of an epoch: ``run.order.steps_of_examples()`` tells which,
        so that these are the values by step as well. Over epochs they add up to the influence.

        Parameters
        ----------
        dataset_to_evaluate, verbose, query_id_fn
            As for `influence_block`.

        Returns
        -------
        A block of ``(m, n, epochs)``; zeros before ``from_step``.
        """
        queries, ids = self._read(dataset_to_evaluate, query_id_fn)
        order, size = self.run.order, self.queries_at_once
        values = np.zeros((len(ids), self.run.num_examples, order.epochs), self._dtype)
        for group, step, positions, part in self._parts(self._groups(queries, ids), verbose):
            rows = slice(group.index * size, group.index * size + group.size)
            values[rows, positions, step // order.steps_per_epoch] = part
        return InfluenceBlock(ids, self.run.ids, values)

    def influence_matrix(
        self,
        dataset_to_evaluate: Data,
        return_ids: bool = False,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
        store: str | Path | None = None,
    ) -> Any:
        """Return the influence of every training example on every query.

        Parameters
        ----------
        dataset_to_evaluate, verbose, query_id_fn
            As for `influence_block`.
        return_ids
            Whether the ids of queries and of training examples are returned as well.
        store
            A folder to write the values to, a part for each group of queries that go through the
            run together: a computation that was cut off goes on with the groups that are not there.

        Returns
        -------
        Array ``(m, n)``; with ``return_ids``: array, query ids ``(m,)``, training ids ``(n,)``.
        With ``store`` the array is a `StoredMatrix`.

        Raises
        ------
        DataSourceError
            If ``store`` holds something else, or values of another run, other queries or settings.
        """
        if store is not None:
            folder = MatrixHeader.checked_folder(store, "store")
            kept = self._stored(*self._read(dataset_to_evaluate, query_id_fn), folder, verbose)
            return (kept, kept.query_ids, kept.train_ids) if return_ids else kept
        found = self.influence_block(dataset_to_evaluate, verbose, query_id_fn)
        return (found.values, found.query_ids, found.train_ids) if return_ids else found.values

    def find_top_k(
        self,
        dataset_to_evaluate: Data,
        k: int = 5,
        order: ORDER = ORDER.DESCENDING,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> TopK:
        """Find, for each query, the ids and values of the k best training examples.

        Parameters
        ----------
        dataset_to_evaluate, verbose, query_id_fn
            As for `influence_block`.
        k
            How many for each query; all n where there are fewer.
        order
            `ORDER.DESCENDING` finds the examples that help most, `ORDER.ASCENDING` those that
            hurt most.

        Returns
        -------
        Best first; ties go to the smaller id.
        """
        k, order = check_k(k), check_order(order)
        found = self.influence_block(dataset_to_evaluate, verbose, query_id_fn)
        return best_of(found.query_ids, [(found.train_ids, found.values)], k, order)

    def predict_loss_change(
        self, dataset_to_evaluate: Data, groups: Any = None, verbose: str | int = "auto"
    ) -> np.ndarray:
        """Predict how the loss of each query changes when the run is repeated without examples.

        The sum of ``influence / n`` over what is left out: of first order in its weight.
        `retrain` with weight 0 gives what it predicts. Positive: the loss would rise.

        Parameters
        ----------
        dataset_to_evaluate, verbose
            As for `influence_block`.
        groups
            For each training example the number of its group, from 0, or -1 for none; int, shape
            ``(n,)``. None takes each example as a group of its own.

        Returns
        -------
        Array ``(m, n)``, or ``(m, number of groups)``.
        """
        values = self.influence_block(dataset_to_evaluate, verbose).values
        return sum_by_group(values, groups) / self.run.num_examples

    @property
    def _dtype(self) -> Any:
        return self.run.model.dtype.as_numpy_dtype

    def _read(self, queries: Data, id_fn: IdFunction | None) -> tuple[Any, np.ndarray]:
        return read_examples(queries, "dataset_to_evaluate", self._measured, id_fn)

    def _groups(self, queries: Any, ids: np.ndarray) -> list[Item]:
        """Return the queries in groups that go through the run together."""
        return list(items_of(queries, ids, self.queries_at_once))

    def _stored(
        self, queries: Any, ids: np.ndarray, folder: Path, verbose: str | int
    ) -> StoredMatrix:
        """Compute what a folder lacks, a row of one part for each group of queries."""
        n = self.run.num_examples
        settings = [self.run.digest(), self.from_step, self.queries_at_once]
        header = MatrixHeader(
            calculator=type(self).__qualname__,
            origin=settings_digest(settings),
            measured=settings_digest(network_fingerprint(self._measured)),
            queries=digest_of(queries, ids),
            num_queries=len(ids),
            part_size=n + 1,  # a row of parts ends with one that is not full
        ).agreed(folder)
        groups = self._groups(queries, ids)
        parts = [part_at(folder, group.index, 0, n) for group in groups]
        missing = [group for group in groups if not parts[group.index].path.exists()]
        for group, values in self._values(missing, verbose):
            arrays = {"ids": self.run.ids, "values": values.T, "query_ids": group.ids}
            parts[group.index].write(header, self.run.settings["data"], arrays)
        return StoredMatrix.load(folder)

    def _values(
        self, groups: Sequence[Item], verbose: str | int
    ) -> Iterator[tuple[Item, np.ndarray]]:
        """Yield the values ``(b, n)`` of each group of queries."""
        values = np.empty(0, self._dtype)
        for group, step, positions, part in self._parts(groups, verbose):
            if step == self.run.num_steps - 1:  # the first, on the way back
                values = np.zeros((group.size, self.run.num_examples), self._dtype)
            values[:, positions] += part
            if step == self.from_step:
                yield group, values

    def _parts(self, groups: Sequence[Item], verbose: str | int) -> Iterator[Part]:
        """Yield the values of every step, group after group of queries, the last step first."""
        check_verbose(verbose)
        total = len(groups) * (self.run.num_steps - self.from_step)
        steps = (part for group in groups for part in self._backwards(group))
        return progress_bar(steps, "Unrolled influence", total, verbose, unit="step")

    def _backwards(self, group: Item) -> Iterator[Part]:
        """Yield the values of every step for one group of queries."""
        run = self.run
        adjoints = running.run(self._gradients, group, (group.batch,), axis=0)
        for first, last in run.order.segments(self.from_step, run.checkpoint_every):
            states = dict(run.states(first, last - 1))
            for step in range(last - 1, first - 1, -1):
                arguments = run.arguments(step)
                adjoints, of_weights = run.step.pull_back(states.pop(step), adjoints, *arguments)
                values = -run.num_examples * of_weights.numpy()
                _check_finite(values, step)
                yield group, step, run.order.of_step(step), values


def _check_finite(values: np.ndarray, step: int) -> None:
    if not np.isfinite(values).all():
        message = (
            "The derivatives of a run must be finite. Received: NaN or infinity at step "
            f"{step} (counting from 0), on the way back from the end. A larger epsilon of Adam, a "
            "smaller learning rate, or `from_step=` beyond that step keeps them finite."
        )
        raise NonFiniteError(message)
