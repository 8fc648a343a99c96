"""Training a model so that the run can be gone through again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import DataSourceError, IgnoredTermWarning, UnsupportedModelError
from ..linalg.checks import check_count
from ..model.acceptance import check_compiled
from ..model.influence_model import BaseInfluenceModel
from ..model.objective import MEANS, compiled_loss
from ..types import Data, IdFunction
from ..utils import running
from ..utils.datasets import Item
from ..utils.digests import array_digest
from ..utils.kernels import Kernel
from ..utils.progress import check_verbose, progress_bar
from ..utils.records import Arrays, RecordKind, Settings, differing
from .examples import digest_of, items_of, read_examples
from .order import BatchOrder
from .recorded_run import Checkpoints, RecordedRun, check_finite_state, network_fingerprint
from .steps import State, TrainingStep
from .updates import learning_rates, read_optimizer

RUN = RecordKind("recorded run", "Record it in another folder, or delete this one.")
RUN_FILE = "run.npz"


def record_fit(
    model: keras.Model,
    data: Data,
    *,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    folder: str | Path | None = None,
    checkpoint_every: int | None = None,
    eps_root: float = 0.0,
    id_fn: IdFunction | None = None,
    verbose: str | int = "auto",
) -> RecordedRun:
    """Train a compiled model as `fit` does, and record what it takes to go through it again.

    Each epoch has an order of its own. The last batch of an epoch is as large as is left. What
    dropout and augmentation draw goes on from the seeds of the model's layers, which belong to the
    state. The model has the trained weights afterwards.

    Parameters
    ----------
    model
        A built Keras model, compiled with SGD, with or without momentum, Adam or AdamW: decoupled
        weight decay, schedules of the learning rate and clipping by norm included. Its optimizer
        has taken no steps yet, and its own state stays as it is.
    data
        The n training examples, ``(x, y)`` or ``(x, y, sample_weight)``. They are read once, and
        held in memory.
    epochs, batch_size
        As for `fit`.
    seed
        Of the order of the examples.
    folder
        Where to keep the run. Called again after it was cut off, with the same arguments and
        initial weights, training goes on from the last checkpoint, to the same bytes; a finished
        run is read. None keeps it in memory.
    checkpoint_every
        How many steps lie between two states that are kept; 1 keeps all. None takes the root of
        the number of steps T, with which going back needs the room of 2√T states.
    eps_root
        Added under the root of Adam's velocity, after its bias is corrected. Above 0 the training
        is another one than that of `fit`, and smoother: a step is a smooth function of gradients
        that are small against its root.
    id_fn
        As for `score`.
    verbose
        ``"auto"``, 0, 1 or 2, as in Keras.

    Returns
    -------
    The run.

    Raises
    ------
    ValueError
        If a number is out of its range, or ``eps_root`` is given without Adam.
    UnsupportedModelError
        If the model is not compiled, or the optimizer, the loss or a layer has no derivative here.
    BatchError
        If the model or its loss does not take an example, for instance a label beyond the classes.
    DataSourceError
        If the folder holds another run.
    NonFiniteError
        If examples hold NaN or infinity, or the training ends with them.

    Examples
    --------
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> x, y = np.eye(2, dtype="float32"), np.array([1.0, 0.0])
    >>> record_fit(model, (x, y), epochs=3, batch_size=1, verbose=0).num_steps
    6
    """
    check_verbose(verbose)
    check_compiled(model, "model", "be")
    optimizer = read_optimizer(model, eps_root)
    wrapped = _wrapped(model)
    examples, ids = read_examples(data, "data", wrapped, id_fn)
    counts = check_count("epochs", epochs), check_count("batch_size", batch_size)
    order = BatchOrder(len(ids), *counts, check_count("seed", seed, 0))
    every = math.isqrt(order.num_steps - 1) + 1 if checkpoint_every is None else checkpoint_every
    every = check_count("checkpoint_every", every)
    settings = _settings(wrapped, order, every, digest_of(examples, ids), repr(optimizer))
    rates = learning_rates(model.optimizer, order.num_steps)
    settings |= {"rates": array_digest(rates), "eps_root": float(eps_root)}
    step = TrainingStep(wrapped, optimizer, examples)
    checkpoints = Checkpoints(None if folder is None else Path(folder))
    run = RecordedRun(wrapped, step, order, rates, ids, checkpoints, every, settings)
    initial = step.initial_state()
    if checkpoints.folder is not None:
        _open_folder(checkpoints.folder, run, initial)
    if 0 not in checkpoints:
        _check_examples(wrapped, items_of(examples, ids, order.batch_size))
        checkpoints.write(0, initial)
    _trained(run, verbose)
    run.load(model, run.final)
    return run


def load_run(
    folder: str | Path, model: keras.Model, data: Data, id_fn: IdFunction | None = None
) -> RecordedRun:
    """Return a finished run that `record_fit` kept in a folder.

    Parameters
    ----------
    folder
        The folder.
    model
        A model with the same layers, compiled with the same optimizer and loss. Its weights do not
        matter, and stay as they are.
    data, id_fn
        The training set, as it was recorded.

    Raises
    ------
    DataSourceError
        If the folder holds no finished run, or one of another model or other data.
    """
    check_compiled(model, "model", "be")
    path = Path(folder)
    kept, rates = RUN.read(path / RUN_FILE, _parsed)
    wrapped = _wrapped(model)
    examples, ids = read_examples(data, "data", wrapped, id_fn)
    with RUN.parsing(path / RUN_FILE):
        numbers = {name: kept[name] for name in ("epochs", "batch_size", "seed")}
        order, every = BatchOrder(len(ids), **numbers), kept["checkpoint_every"]
        eps_root = float(kept["eps_root"])
    optimizer = read_optimizer(model, eps_root)
    settings = _settings(wrapped, order, every, digest_of(examples, ids), repr(optimizer))
    settings |= {"rates": array_digest(rates), "eps_root": eps_root}
    _check_same(path, kept, settings)
    step = TrainingStep(wrapped, optimizer, examples)
    run = RecordedRun(wrapped, step, order, rates, ids, Checkpoints(path), every, settings)
    if run.num_steps not in run.checkpoints:
        raise RUN.refused(path, "was cut off. Call record_fit as before to go on with it")
    return run


def _trained(run: RecordedRun, verbose: str | int) -> None:
    """Go on from the last checkpoint to the end, and keep the states that are due."""
    due = [*range(0, run.num_steps, run.checkpoint_every), run.num_steps]
    # Of a run that was cut off, those up to the first that is missing.
    done = next((i for i, step in enumerate(due) if step not in run.checkpoints), len(due)) - 1
    if done == len(due) - 1:
        return
    wanted = {*due[done + 1 :]}
    steps = run.states(due[done], run.num_steps)
    total = run.num_steps - due[done] + 1
    for step, state in progress_bar(steps, "Training", total, verbose, unit="step"):
        if step == run.num_steps:
            check_finite_state(state)
        if step in wanted:
            run.checkpoints.write(step, state)


def _check_examples(model: BaseInfluenceModel, items: Iterable[Item]) -> None:
    """Refuse examples that the model or its loss does not take, by name."""
    losses = Kernel(model.per_example_losses)
    with warnings.catch_warnings():
        # Of terms that are no example's, which belong to the objective of a step all the same.
        warnings.simplefilter("ignore", IgnoredTermWarning)
        for item in items:
            running.run(losses, item, (item.batch,))


def _wrapped(model: keras.Model) -> BaseInfluenceModel:
    """Wrap a model with the loss of `fit`, whose reduction has to be the mean."""
    reductions = {
        getattr(loss, "reduction", MEANS[0]) for loss in tf.nest.flatten(compiled_loss(model))
    }
    if reductions - set(MEANS):
        message = (
            "The loss of a run that is recorded must be a mean over examples. Received: the "
            f"reductions {sorted(map(str, reductions))}. Compile with a loss of "
            "reduction='sum_over_batch_size'."
        )
        raise UnsupportedModelError(message)
    return BaseInfluenceModel(model, loss_over_positions="mean", weight_decay=0.0)


def _settings(
    model: BaseInfluenceModel,
    order: BatchOrder,
    checkpoint_every: int,
    data: str,
    optimizer: str,
) -> dict[str, Any]:
    """Return what a run depends on beside its initial state, as JSON gives it back."""
    return {
        "epochs": order.epochs,
        "batch_size": order.batch_size,
        "seed": order.seed,
        "checkpoint_every": checkpoint_every,
        "data": data,
        "optimizer": optimizer,
        **network_fingerprint(model),
    }


def _open_folder(folder: Path, run: RecordedRun, initial: State) -> None:
    """Begin a folder, or check that it holds this run, cut off or whole."""
    file = folder / RUN_FILE
    if not file.exists():
        RUN.write(file, run.settings, {"rates": run.rates}, only_new=True)
    _check_same(folder, RUN.read(file, _parsed)[0], run.settings)
    if 0 in run.checkpoints:
        kept = run.checkpoints.read(0)
        if not all(np.array_equal(a, b) for a, b in zip(kept, initial, strict=True)):
            raise _another(folder, "initial weights, or seeds of its layers")


def _check_same(folder: Path, kept: dict[str, Any], asked: dict[str, Any]) -> None:
    names = differing(kept, asked)
    if names:
        raise _another(folder, ", ".join(names))


def _another(folder: Path, what: str) -> DataSourceError:
    return RUN.refused(folder, f"is of another run: it differs in {what}")


def _parsed(header: Settings, arrays: Arrays) -> tuple[dict[str, Any], np.ndarray]:
    kept = {name: value for name, value in header.items() if name not in ("kind", "version")}
    return kept, arrays["rates"]
