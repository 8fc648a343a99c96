"""How well calculators find labels that were flipped on purpose."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..datasets.label_noise import flip_labels
from ..errors import EmptyDatasetError
from ..linalg.checks import check_count
from ..model.computations import describe_settings
from ..utils.digests import digest_of_examples
from ..utils.order import check_fixed_order
from .calculator_factory import InfluenceCalculatorFactory
from .result_folder import ResultFolder
from .results import MethodResult, SeedResult
from .summaries import require_tensorboard, write_summaries
from .training import BaseTrainingProcedure, TrainedModel

_READ_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class _Experiment:
    """A training set with flipped labels and the model that was trained on it."""

    seed: int
    batches: tf.data.Dataset
    mislabelled: np.ndarray
    trained: TrainedModel
    seconds: float


class MislabelingDetectorEvaluator:
    """Flip labels, train on them, and see how soon each calculator finds the flipped ones.

    For each seed the noise is drawn once, with NumPy, one model is trained, and every method
    scores all n examples by their self-influence. A run that is on disk is read, not repeated.

    Parameters
    ----------
    training_dataset
        Single examples ``(x, y)`` in a fixed order; y is a class, or a one-hot row ``(c,)``.
    test_dataset
        Single examples ``(x, y)``, whose labels stay as they are.
    training_procedure
        Trains a model anew for every seed.
    nb_classes
        Number c of classes.
    mislabeling_ratio
        Share of the labels to flip, between 0 and 1.
    train_batch_size, test_batch_size
        Examples in a batch of the training and of the test.
    influence_batch_size
        Examples in a batch when scores are computed; None takes ``train_batch_size``.
    config
        Settings to keep beside the results. Results are only taken up again under the same ones.
    """

    def __init__(
        self,
        training_dataset: tf.data.Dataset,
        test_dataset: tf.data.Dataset,
        training_procedure: BaseTrainingProcedure,
        nb_classes: int,
        mislabeling_ratio: float,
        train_batch_size: int = 128,
        test_batch_size: int = 128,
        influence_batch_size: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        _check_ratio(mislabeling_ratio)
        self._one_hot = _has_one_hot_labels(training_dataset, nb_classes)
        self.training_dataset = training_dataset
        self.test_dataset = test_dataset
        self.training_procedure = training_procedure
        self.nb_classes = nb_classes
        self.mislabeling_ratio = mislabeling_ratio
        self.train_batch_size = train_batch_size
        self.test_batch_size = test_batch_size
        self.influence_batch_size = influence_batch_size or train_batch_size
        self.config = dict(config or {})

    def bench(
        self,
        influence_calculator_factories: Mapping[str, InfluenceCalculatorFactory],
        nbr_of_evaluation: int,
        path_to_save: str | Path | None = None,
        seed: int = 0,
        verbose: bool = True,
        use_tensorboard: bool = False,
    ) -> dict[str, MethodResult]:
        """Evaluate several methods on the same noise and the same models.

        Parameters
        ----------
        influence_calculator_factories
            Makes the calculator of each method; the names are free.
        nbr_of_evaluation
            Number s of seeds.
        path_to_save
            A folder for the results; runs that it holds already are not computed again.
        seed
            The first of the s seeds.
        verbose
            Whether a line is printed for every run.
        use_tensorboard
            Whether results are logged for TensorBoard, in ``path_to_save``.

        Returns
        -------
        The result of each method, by name.

        Raises
        ------
        ValueError
            If the folder holds results of another benchmark.
        TypeError
            If a factory is none, such as a class that was not called.
        DataSourceError
            If a file of results is damaged.
        MissingExtraError
            If TensorBoard is asked for and not installed.
        """
        if use_tensorboard:
            require_tensorboard()
        check_count("nbr_of_evaluation", nbr_of_evaluation)
        factories = _check_factories(influence_calculator_factories)
        folder = None if path_to_save is None else ResultFolder(path_to_save)
        settings = {} if folder is None else self._settings(factories)
        runs: dict[str, list[SeedResult]] = {name: [] for name in factories}
        for run_seed in range(seed, seed + nbr_of_evaluation):
            for name, run in self._runs_of_seed(run_seed, factories, settings, folder):
                runs[name].append(run)
                if verbose:
                    print(_line(name, run))
            if folder is not None:
                # Also where nothing was computed: the last benchmark may have died on the way.
                for name in factories:
                    folder.write_summary(name, settings[name])
        results = {name: MethodResult(name, tuple(runs[name])) for name in factories}
        if use_tensorboard:
            write_summaries(Path(path_to_save or "."), results)
        return results

    def evaluate(
        self,
        influence_factory: InfluenceCalculatorFactory,
        nbr_of_evaluation: int,
        seed: int = 0,
        verbose: bool = True,
        path_to_save: str | Path | None = None,
        use_tensorboard: bool = False,
        method_name: str | None = None,
    ) -> MethodResult:
        """Evaluate one method.

        Parameters
        ----------
        influence_factory
            Makes its calculator.
        nbr_of_evaluation, seed, verbose, path_to_save, use_tensorboard
            As for `bench`.
        method_name
            Its name, which is also that of its folder; None means ``"experiment"``.

        Returns
        -------
        Its result, which unpacks into ``curves (s, n), mean_curve (n,), roc``.
        """
        name = method_name or "experiment"
        factories = {name: influence_factory}
        return self.bench(
            factories, nbr_of_evaluation, path_to_save, seed, verbose, use_tensorboard
        )[name]

    @staticmethod
    def set_seed(seed: int) -> None:
        """Seed the global generators of Python, NumPy and TensorFlow."""
        keras.utils.set_random_seed(seed)

    def build_noisy_training_dataset(self, seed: int = 0) -> tuple[tf.data.Dataset, np.ndarray]:
        """Return the training set with flipped labels, the same on every pass.

        Parameters
        ----------
        seed
            Seed of the draw.

        Returns
        -------
        Single examples in the order of ``training_dataset``, and the positions of the flipped
        ones, int64, ascending.
        """
        labels, mislabelled = self._draw(seed)
        if self._one_hot:
            labels = np.eye(self.nb_classes)[labels]
        dtype = self.training_dataset.element_spec[1].dtype
        noisy = tf.data.Dataset.from_tensor_slices(tf.cast(labels, dtype))
        paired = tf.data.Dataset.zip((self.training_dataset, noisy))
        dataset = paired.map(lambda example, label: (example[0], label, *example[2:]))
        return dataset, np.flatnonzero(mislabelled)

    @cached_property
    def _true_labels(self) -> np.ndarray:
        """The classes of the n examples, shape ``(n,)``, read in one pass."""
        check_fixed_order(self.training_dataset.batch(_READ_AT_ONCE), "training_dataset")
        batches = self.training_dataset.map(lambda *example: example[1]).batch(_READ_AT_ONCE)
        parts = [batch.numpy() for batch in batches]
        if not parts:
            message = "Argument `training_dataset` must yield at least one example. Received: none."
            raise EmptyDatasetError(message)
        labels = np.concatenate(parts)
        return labels.argmax(axis=1) if self._one_hot else labels.astype(np.int64)

    def _draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels with noise ``(n,)`` and the mask of the flipped ones ``(n,)``."""
        labels = self._true_labels
        flips = round(self.mislabeling_ratio * len(labels))
        if not 0 < flips < len(labels):
            message = (
                "Argument `mislabeling_ratio` must flip some labels, and not all. Received: "
                f"mislabeling_ratio={self.mislabeling_ratio!r}, which flips {flips} of "
                f"{len(labels)}."
            )
            raise ValueError(message)
        return flip_labels(labels, self.mislabeling_ratio, self.nb_classes, seed)

    def _runs_of_seed(
        self,
        seed: int,
        factories: Mapping[str, InfluenceCalculatorFactory],
        settings: Mapping[str, dict[str, Any]],
        folder: ResultFolder | None,
    ) -> Iterator[tuple[str, SeedResult]]:
        """Yield the run of every method, read or computed; train only if one is missing."""
        mislabelled = self._draw(seed)[1]
        # All are read first: what the folder refuses is refused before the training.
        finished = {
            name: None if folder is None else folder.read(name, seed, settings[name], mislabelled)
            for name in factories
        }
        experiment = None
        for name, run in finished.items():
            if run is None:
                experiment = experiment or self._train(seed, folder)
                run = self._score(factories[name], experiment)
                if folder is not None:
                    folder.write(name, run, settings[name])
            yield name, run

    def _train(self, seed: int, folder: ResultFolder | None) -> _Experiment:
        noisy, _ = self.build_noisy_training_dataset(seed)
        self.set_seed(seed)
        start = time.perf_counter()
        trained = self.training_procedure.train(
            noisy,
            self.test_dataset,
            self.train_batch_size,
            self.test_batch_size,
            log_path=None if folder is None else str(folder.path / "logs" / f"seed_{seed:06d}"),
        )
        seconds = time.perf_counter() - start
        batches = noisy.batch(self.influence_batch_size).prefetch(tf.data.AUTOTUNE)
        return _Experiment(seed, batches, self._draw(seed)[1], TrainedModel(*trained), seconds)

    def _score(self, factory: InfluenceCalculatorFactory, experiment: _Experiment) -> SeedResult:
        # Seeded here, so that a method draws the same whatever ran before it.
        self.set_seed(experiment.seed)
        trained = experiment.trained
        start = time.perf_counter()
        calculator = factory.build(experiment.batches, trained.model, trained.train_info)
        scores = calculator.score(experiment.batches, verbose=0).values
        return SeedResult(
            seed=experiment.seed,
            scores=scores,
            mislabelled=experiment.mislabelled,
            train_accuracy=float(trained.train_accuracy),
            test_accuracy=float(trained.test_accuracy),
            train_seconds=experiment.seconds,
            score_seconds=time.perf_counter() - start,
        )

    def _settings(
        self, factories: Mapping[str, InfluenceCalculatorFactory]
    ) -> dict[str, dict[str, Any]]:
        """Return, by method, what its runs depend on beside the seed."""
        common = {
            "training_procedure": describe_settings(self.training_procedure),
            "training_dataset": digest_of_examples(self.training_dataset),
            # No order is asked of the test set.
            "test_dataset": digest_of_examples(self.test_dataset, in_order=False),
            "mislabeling_ratio": self.mislabeling_ratio,
            "nb_classes": self.nb_classes,
            "train_batch_size": self.train_batch_size,
            "influence_batch_size": self.influence_batch_size,
            "config": describe_settings(self.config),
        }
        return {name: {"factory": describe_settings(f), **common} for name, f in factories.items()}


def _line(name: str, run: SeedResult) -> str:
    return (
        f"{name}, seed {run.seed}: ROC AUC {run.roc_auc:.4f}, average precision "
        f"{run.average_precision:.4f}; accuracy {run.train_accuracy:.4f} in training, "
        f"{run.test_accuracy:.4f} in test"
    )


def _check_factories(
    factories: Mapping[str, InfluenceCalculatorFactory],
) -> dict[str, InfluenceCalculatorFactory]:
    for name, factory in factories.items():
        if not isinstance(factory, InfluenceCalculatorFactory):
            message = (
                "Argument `influence_calculator_factories` must hold objects of "
                "InfluenceCalculatorFactory. "
                f"Received: {factory!r} for {name!r}. Call a class, as in TracInFactory(), and "
                "wrap a function with FunctionFactory."
            )
            raise TypeError(message)
    return dict(factories)


def _check_ratio(ratio: float) -> None:
    if not 0.0 < ratio < 1.0:
        message = (
            "Argument `mislabeling_ratio` must be a share between 0 and 1 (a tenth is 0.1). "
            f"Received: mislabeling_ratio={ratio!r}."
        )
        raise ValueError(message)


def _has_one_hot_labels(dataset: tf.data.Dataset, nb_classes: int) -> bool:
    """Tell one-hot labels from classes.

    Raises
    ------
    ValueError
        If the dataset does not yield single examples with one label.
    """
    spec = dataset.element_spec
    label = spec[1].shape if isinstance(spec, tuple) and len(spec) in (2, 3) else None
    if label is not None and label.rank == 0:
        return False
    if label is not None and label.as_list() == [nb_classes]:
        return True
    message = (
        "Argument `training_dataset` must yield single examples (x, y), where y is a class or a "
        f"one-hot row ({nb_classes},). Received: {spec}. Undo batches with .unbatch()."
    )
    raise ValueError(message)
