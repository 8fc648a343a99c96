"""Influence of moving a training example's numbers on the loss of a query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ..calculators.blocks import order_like
from ..calculators.described import Measured
from ..calculators.queries import Queries, query_chunks
from ..calculators.scores import Scores
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass, query_and_train_passes
from ..gradients.rows import rows_kernel
from ..ihvp.registry import resolve_ihvp
from ..linalg.checks import check_choice
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..model.measurements import Measurement
from ..types import Data, IdFunction
from ..utils.datasets import Item, check_dataset, count_examples
from ..utils.example_ids import POSITION
from ..utils.running import run
from .mixed_derivatives import MixedDerivatives, Values
from .perturbation_blocks import PerturbationBlock, check_shifts, feature_frame, join_values
from .perturbed_tensors import choose_perturbed
from .training_set import size_of_training_set

if TYPE_CHECKING:
    import pandas as pd

REDUCTIONS = ("mean", "sum", "mean_absolute")


class PerturbationInfluenceCalculator(Measured):
    """Influence of moving the inputs of a training example, equation 5 of [1]_.

    For training example z_i = (x_i, y_i) and query z it is ::

        I(z_i, z) = -g(z)ᵀ H⁻¹ ∇_x ∇_θ ℓ(z_i)

    of the shape of x_i: the direction in which moving x_i raises the loss on z. There is no 1/n in
    it: moving x_i by a small δ and training again changes the loss on z by about
    ``(1/n) Σ I(z_i, z) δ``, which `predict_loss_change` computes.

    What is moved are the inputs that hold floats. Integers that an Embedding reads have no
    derivative: there it is the output of the Embedding that is moved, shape ``(m, n, t, e)`` for t
    tokens and vectors of length e. The integers of images count as the numbers that they are.

    Parameters
    ----------
    model
        The wrapped model. Only the watched weights are taken as trained again.
    dataset
        The batched training set, n examples.
    ihvp_calculator
        The name of a strategy (``"exact"``, ``"ekfac"``, ``"cgd"``, ...), an `IHVPCalculator`, a
        factory, or a fitted `InverseHessianVectorProduct`.
    n_samples_for_hessian
        How many examples to draw for the curvature; None takes all.
    seed
        Fixes the draw of examples.
    measurement
        Another number than the loss that is looked at on the queries: ``"margin"``, ``"logit"``,
        or a function of targets and outputs; see `BaseInfluenceCalculator`.
    input_name
        Key or position of the one input that is moved, of a model that takes several.
    layer
        Name of a layer whose output is moved, in place of the inputs.

    References
    ----------
    .. [1] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        ihvp_calculator: Any = "exact",
        n_samples_for_hessian: int | None = None,
        seed: int | None = None,
        measurement: Measurement = None,
        input_name: str | int | None = None,
        layer: str | None = None,
    ) -> None:
        check_influence_model(model)
        check_dataset(dataset, "dataset", model.input_rank)
        self.model = model
        self.engine = GradientEngine.of(model)
        self.measurement = measurement
        self._look_at_queries()
        self.train_dataset = dataset
        self.derivatives = MixedDerivatives(choose_perturbed(model, dataset, input_name, layer))
        self.ihvp_calculator = resolve_ihvp(
            ihvp_calculator,
            model,
            dataset,
            n_samples_for_hessian=n_samples_for_hessian,
            seed=seed,
        )

    @cached_property
    def num_train_examples(self) -> int:
        """The number n of examples in the training set, counted where no fit knows it."""
        return size_of_training_set(self.ihvp_calculator, self.train_dataset)

    def influence_blocks(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> Iterator[PerturbationBlock]:
        """Compute the influence of every input value on every query, block after block.

        Parameters
        ----------
        dataset_to_evaluate
            The m queries, batched.
        train_set
            The n training examples, batched.
        id_fn
            Reads the ids ``(b,)`` of training examples off a batch, as for `score`.
        device
            Where to compute; None leaves it to TensorFlow.
        verbose
            As in Keras.
        query_id_fn
            As ``id_fn``, for the queries.

        Yields
        ------
        A block for each training batch. Queries whose vectors ``H⁻¹ g(z)`` do not fit in memory
        together come in several passes over the training set.
        """
        asked = (dataset_to_evaluate, train_set, id_fn, device, verbose, query_id_fn)
        for _, blocks in self._passes(*asked):
            yield from blocks

    def influence_tensor(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        return_ids: bool = False,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
        query_id_fn: IdFunction | None = None,
    ) -> Any:
        """Return what `influence_blocks` computes as one array, where memory allows it.

        Parameters
        ----------
        dataset_to_evaluate, train_set, id_fn, device, verbose, query_id_fn
            As for `influence_blocks`.
        return_ids
            Whether the ids of queries and of training examples are returned as well.

        Returns
        -------
        Array ``(m, n, *x.shape)``, or a dict of such arrays by name where several tensors are
        moved; with ``return_ids``: that, query ids ``(m,)``, training ids ``(n,)``. Without them
        the datasets must keep their order from pass to pass, whatever ``id_fn`` is.
        """
        # Without ids in the result, an example is known by its position alone.
        ordered_by = id_fn if return_ids else POSITION
        asked = (dataset_to_evaluate, train_set, ordered_by, device, verbose)
        query_and_train_passes(self.engine, *asked, opened=True)
        rows, query_ids, train_ids = [], [], None
        for ids, blocks in self._passes(*asked, query_id_fn):
            values, found = _joined(list(blocks), train_ids)
            rows.append(values)
            query_ids.append(ids)
            train_ids = found if train_ids is None else train_ids
        values = join_values(rows, axis=0)
        return (values, np.concatenate(query_ids), train_ids) if return_ids else values

    def influence_on_total_loss(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Values:
        """Return ``Σ_z I(z_i, z)``, the influence on the sum of the losses of all queries.

        One product with the inverse Hessian serves all queries.

        Parameters
        ----------
        dataset_to_evaluate, train_set, id_fn, device, verbose
            As for `influence_blocks`.

        Returns
        -------
        Array ``(n, *x.shape)``, or a dict of such arrays by name. ``train_set`` must keep its order
        from pass to pass, whatever ``id_fn`` is.
        """
        Pass(train_set).checked(self.engine, opened=True)
        blocks = self._total_blocks(dataset_to_evaluate, train_set, id_fn, device, verbose)
        values = join_values([block.values for block in blocks], axis=1)
        return tf.nest.map_structure(lambda part: part[0], values)

    def sensitivity(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Scores:
        """Return ``‖Σ_z I(z_i, z)‖₁`` for each training example.

        Times r/n this is how much, in first order, the total loss of the queries can rise when
        each number of x_i is moved by at most r. The highest are the examples through which the
        training process is attacked most easily.

        Parameters
        ----------
        dataset_to_evaluate, train_set, id_fn, device, verbose
            As for `influence_blocks`.

        Returns
        -------
        Ids and values, shape ``(n,)``; ``.top_k(k)`` gives the highest.
        """
        ids, values = [], []
        for block in self._total_blocks(dataset_to_evaluate, train_set, id_fn, device, verbose):
            parts = [np.abs(part[0]) for part in tf.nest.flatten(block.values)]
            values.append(sum(part.reshape(len(part), -1).sum(axis=1) for part in parts))
            ids.append(block.train_ids)
        return Scores(np.concatenate(ids), np.concatenate(values))

    def per_feature(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        reduction: str = "mean",
        feature_names: Sequence[str] | None = None,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray | pd.DataFrame:
        """Return the influence of each feature, taken over the training examples.

        Parameters
        ----------
        dataset_to_evaluate, train_set, id_fn, device, verbose
            As for `influence_blocks`; ``train_set`` may hold some of the n examples.
        reduction
            ``"mean"``: ``(1/n) Σ I(z_i, z)``, how fast the loss of each query changes when the
            feature is moved by the same amount in all of these examples, and the model trained
            again on all n. ``"sum"``: n times that. ``"mean_absolute"``: of the absolute values.
        feature_names
            Names of the features of rows ``(f,)``; they ask for a data frame.

        Returns
        -------
        Array ``(m, *x.shape)``; with ``feature_names`` a data frame with a row for each query.

        Raises
        ------
        ValueError
            For another reduction, or names that are not one for each feature.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        if feature_names is None:  # only a data frame has the ids of its rows
            Pass(dataset_to_evaluate, "dataset_to_evaluate").checked(self.engine, opened=True)
        rows, query_ids = [], []
        for ids, blocks in self._passes(dataset_to_evaluate, train_set, id_fn, device, verbose):
            total = np.zeros(())
            for block in blocks:
                values = np.abs(block.array) if reduction == "mean_absolute" else block.array
                total = total + values.sum(axis=1)
            rows.append(total)
            query_ids.append(ids)
        n = 1 if reduction == "sum" else self.num_train_examples
        features = np.concatenate(rows) / n
        if feature_names is None:
            return features
        return feature_frame(features, np.concatenate(query_ids), feature_names)

    def predict_loss_change(
        self,
        dataset_to_evaluate: Data,
        train_set: Data,
        shifts: Any,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Predict how the loss of each query changes when one training example is moved.

        The figure is ``(1/n) Σ I(z_i, z) δ_i``: what moving x_i by δ_i and training again comes
        to, in first order. Positive: the loss on z would rise.

        Parameters
        ----------
        dataset_to_evaluate, train_set, id_fn, device, verbose
            As for `influence_blocks`; the datasets must keep their order, whatever ``id_fn`` is.
        shifts
            What is added to each training example, shape ``(n, *x.shape)``, or to all of them,
            one after the other, shape ``x.shape``.

        Returns
        -------
        Array ``(m, n)``.

        Raises
        ------
        ValueError
            If the shifts have another shape.
        """
        query_and_train_passes(
            self.engine, dataset_to_evaluate, train_set, POSITION, device, verbose, opened=True
        )
        shifts, num_examples = np.asarray(shifts), count_examples(train_set)
        rows = []
        for _, blocks in self._passes(dataset_to_evaluate, train_set, id_fn, device, verbose):
            parts: list[np.ndarray] = []
            start = 0
            for block in blocks:
                values, stop = block.array, start + len(block.train_ids)
                shape = values.shape[2:]
                check_shifts(shifts, num_examples, shape)
                delta = shifts if shifts.shape == shape else shifts[start:stop]
                parts.append((values * delta).reshape(*values.shape[:2], -1).sum(axis=2))
                start = stop
            rows.append(np.concatenate(parts, axis=1))
        return np.concatenate(rows) / self.num_train_examples

    def _passes(self, *asked: Any) -> Iterator[tuple[np.ndarray, Iterator[PerturbationBlock]]]:
        """Yield the ids of some queries, and the blocks of a pass over the training set."""
        queries, train = self._checked(*asked)
        for chunk in query_chunks(self._query_vectors(queries)):
            yield chunk.ids, self._blocks(chunk, train)

    def _checked(
        self,
        dataset_to_evaluate: tf.data.Dataset,
        train_set: tf.data.Dataset,
        id_fn: IdFunction | None,
        device: str | None,
        verbose: str | int,
        query_id_fn: IdFunction | None = None,
    ) -> tuple[Pass, Pass]:
        self.ihvp_calculator.check_unchanged()
        asked = (dataset_to_evaluate, train_set, id_fn, device, verbose, "Perturbation")
        return query_and_train_passes(self.engine, *asked, query_id_fn=query_id_fn)

    def _query_vectors(self, queries: Pass) -> Iterator[tuple[Item, tf.Tensor]]:
        """Yield each batch of queries with ``H⁻¹ g(z)``, shape ``(b, p)``."""
        engine = self.query_engine
        for item in queries.items(engine):
            rows = run(rows_kernel(engine), item, (item.batch,), queries.device, axis=0)
            yield item, self.ihvp_calculator.solve(rows)

    def _total_blocks(self, *asked: Any) -> Iterator[PerturbationBlock]:
        """Yield the blocks of the sum over all queries, which takes the place of one query."""
        queries, train = self._checked(*asked)
        model = self.query_engine.model
        kernel = self.query_engine.kernel("query_sum", model.batch_gradient_tensor)
        total, query_ids = tf.zeros((model.nb_params,), model.dtype), []
        for item in queries.items(self.query_engine):
            total += run(kernel, item, (item.batch,), queries.device, axis=None)
            query_ids.append(item.ids)
        vectors = self.ihvp_calculator.solve(total[None])
        yield from self._blocks(Queries((), (), np.concatenate(query_ids), vectors), train)

    def _blocks(self, queries: Queries, train: Pass) -> Iterator[PerturbationBlock]:
        for item in train.items(self.engine):
            # The minus sign of equation 5 goes to the vectors, the smaller factor.
            values = self.derivatives.products(-queries.vectors, item, train.device)
            yield PerturbationBlock(queries.ids, item.ids, item.batch, values)


def _joined(
    blocks: list[PerturbationBlock], first_ids: np.ndarray | None
) -> tuple[Values, np.ndarray]:
    """Return the values of a pass, its examples as in the first pass, and its training ids."""
    ids = np.concatenate([block.train_ids for block in blocks])
    values = join_values([block.values for block in blocks], axis=1)
    order = order_like(ids, ids if first_ids is None else first_ids)
    if order is None:
        return values, ids
    return tf.nest.map_structure(lambda v: np.take(v, order, axis=1), values), ids[order]
