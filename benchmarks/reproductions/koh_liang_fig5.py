"""Test predictions turned by invisible changes of training images: Koh & Liang (2017), section 5.2.

A logistic regression on the features of a frozen network tells dogs from fish. For each test image
that it gets right, the training images through whose pixels its loss is moved most are changed by
less than half a level, step by step along the sign of the perturbation influence, so that the
stored images stay the same; the last layer is trained again after each step. The paper turns 57 %
of 591 predictions with one training image, 77 % with two, and all but one with ten.

This script does the same to SqueezeNet 1.1 on images of 64 x 64 that are enlarged to 192 x 192, in
place of Inception-v3 and 299 x 299. As in the authors' code, the first and the second training
image are tried alone, and more for those test images that fewer did not turn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from evidence import Evidence, read_options
from koh_liang_dogfish import Problem, load_problem
from matplotlib.figure import Figure
from pieces import Piece, Task, compute_pieces, pieces_folder, split_workers
from scipy.stats import binomtest

from deel_influence.ihvp import ExactIHVP, InverseHessianVectorProductFactory
from deel_influence.influence import PerturbationInfluenceCalculator, attack
from deel_influence.model import BaseInfluenceModel

NAME = "koh_liang_fig5"
COMMON: dict[str, Any] = {
    "weight_decay": 1e-3,
    # From and to which place in the list of training images, one attempt after the other.
    "attempts": [[0, 1], [1, 2], [0, 2], [0, 10]],
    "step_size": 0.02,
    # A little less than half a level, which could be rounded either way.
    "radius": 0.499,
    "max_steps": 100,
    "seed": 0,
}
LARGE: dict[str, Any] = {**COMMON, "per_class": [900, 300], "size": 192, "shortlist": 100}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {**LARGE, "num_attacked": 8},
    "short": {**LARGE, "num_attacked": 4, "max_steps": 25},
    "smoke": {
        **COMMON,
        "per_class": [30, 10],
        "size": 12,
        "shortlist": 12,
        "num_attacked": 1,
        "attempts": [[0, 1], [0, 2]],
        "max_steps": 3,
    },
}
# Accuracies of the last layer in cross-validation on the training images, by the size to which the
# images are enlarged; the size of the full form is the best of them.
VALIDATED = {64: 0.915, 128: 0.978, 192: 0.986}
PUBLISHED_SHARES = {1: 0.57, 2: 0.77, 10: 590 / 591}


class CurvatureOfLastLayer(InverseHessianVectorProductFactory):
    """Makes strategies from the Hessian that the features in memory give.

    The attack fits a strategy after each step. Given the training set it would run all 1,800
    images through the network each time, of which only the perturbed ones have changed.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def build(self, model_influence: BaseInfluenceModel, dataset: tf.data.Dataset) -> ExactIHVP:
        """Return the exact strategy; what the data would tell is in the features."""
        return ExactIHVP(model_influence, train_hessian=self.problem.last_layer.hessian())


def batches(images: np.ndarray, signs: np.ndarray) -> tf.data.Dataset:
    """Return a dataset of images and labels 1 and -1."""
    arrays = images.astype(np.float32), signs[:, None]
    return tf.data.Dataset.from_tensor_slices(arrays).batch(16)


def most_sensitive(
    problem: Problem, query: tf.data.Dataset, position: int, settings: dict[str, Any]
) -> list[int]:
    """Return the training images through which the loss on the query is moved most, in order.

    The derivative in the pixels takes a pass through the network for each image. It is that in the
    features, times the network's own, and only the images for which the former is large are asked.
    """
    sizes = problem.last_layer.sensitivity(problem.test_features[position])
    shortlist = np.argsort(-sizes)[: settings["shortlist"]]
    candidates = batches(problem.train_images[shortlist], problem.last_layer.signs[shortlist])
    ihvp = CurvatureOfLastLayer(problem).build(problem.model, candidates)
    calculator = PerturbationInfluenceCalculator(problem.model, candidates, ihvp)
    scores = calculator.sensitivity(query, candidates, verbose=0)
    number = max(stop for _, stop in settings["attempts"])
    return shortlist[scores.top_k(number).ids].tolist()


def retraining(problem: Problem, positions: np.ndarray) -> Callable[..., BaseInfluenceModel]:
    """Return what trains the last layer on the perturbed images at these positions and the rest."""

    def retrain(perturbed: tf.data.Dataset) -> BaseInfluenceModel:
        images = np.concatenate([x for x, _ in perturbed.as_numpy_iterator()])
        problem.last_layer.features[positions] = problem.features_of(images)
        problem.last_layer.refit()
        problem.assign()
        return problem.model

    return retrain


def attack_with(
    problem: Problem, query: tf.data.Dataset, positions: np.ndarray, settings: dict[str, Any]
) -> Piece:
    """Perturb the training images at these positions; the problem is put back afterwards."""
    result = attack(
        problem.model,
        batches(problem.train_images[positions], problem.last_layer.signs[positions]),
        query,
        range(len(positions)),
        retraining(problem, positions),
        step_size=settings["step_size"],
        radius=settings["radius"],
        bounds=(0.0, 255.0),
        max_steps=settings["max_steps"],
        ihvp_calculator=CurvatureOfLastLayer(problem),
        verbose=0,
    )
    problem.restore()
    losses = result.losses[:, 0].astype(np.float64)
    change = np.abs(result.examples - result.original_examples)
    stored = np.array_equal(np.rint(result.examples), result.original_examples)
    return {
        "num_images": len(positions),
        "flipped": bool(result.flipped[0]),
        "steps": result.num_steps,
        "loss_before": float(losses[0]),
        "loss_after": float(losses[-1]),
        "largest_change": float(change.max()),
        "same_stored_images": stored,
    }


def attack_one(task: Task) -> Piece:
    """Attack the prediction for one test image, with more training images until it turns."""
    settings, position = task["settings"], task["position"]
    data_dir = None if task["data_dir"] is None else Path(task["data_dir"])
    problem = load_problem(
        data_dir, tuple(settings["per_class"]), settings["size"], settings["weight_decay"]
    )
    query = batches(problem.test_images[[position]], problem.test_signs[[position]])
    chosen = most_sensitive(problem, query, position, settings)
    attacks = []
    for start, stop in settings["attempts"]:
        attacks.append(attack_with(problem, query, np.array(chosen[start:stop]), settings))
        if attacks[-1]["flipped"]:
            break
    return {"position": position, "training_images": chosen, "attacks": attacks}


def shares_turned(pieces: list[Piece], counts: list[int]) -> list[float]:
    """Return the shares of predictions turned with at most so many training images."""
    flipped = [[r["num_images"] for r in piece["attacks"] if r["flipped"]] for piece in pieces]
    return [float(np.mean([min(f, default=np.inf) <= count for f in flipped])) for count in counts]


def interval(share: float, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share that was found among so many test images."""
    found = binomtest(round(share * number), number).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def counts_of(settings: dict[str, Any]) -> list[int]:
    """Return the numbers of training images that are changed, ascending."""
    return sorted({stop - start for start, stop in settings["attempts"]})


def add_rows(evidence: Evidence, pieces: list[Piece]) -> None:
    """Add the shares of predictions turned, and what it took."""
    counts = counts_of(evidence.settings)
    for count, share in zip(counts, shares_turned(pieces, counts), strict=True):
        plural = "image" if count == 1 else "images"
        low, high = interval(share, len(pieces))
        evidence.add(
            f"share of predictions turned with {count} training {plural} at most (95 % interval "
            f"{low:.2f} to {high:.2f})",
            share,
            published=PUBLISHED_SHARES.get(count),
        )
    results = [result for piece in pieces for result in piece["attacks"]]
    evidence.add(
        "largest change of a pixel, in levels",
        max(result["largest_change"] for result in results),
        published="below 0.5",
    )
    same = np.mean([result["same_stored_images"] for result in results])
    evidence.add("share of attacks that leave the 8-bit images as they are", same, published=1)


def draw(evidence: Evidence, pieces: list[Piece]) -> Figure:
    """Draw the shares turned beside the published ones, and what each attack came to."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    counts = counts_of(evidence.settings)
    shares = shares_turned(pieces, counts)
    places = np.arange(len(counts))
    axes[0].bar(places - 0.2, np.multiply(shares, 100), 0.4, label="here")
    published = [100 * PUBLISHED_SHARES.get(count, np.nan) for count in counts]
    axes[0].bar(places + 0.2, published, 0.4, color="tab:gray", label="published")
    axes[0].set_xticks(places, [str(count) for count in counts])
    axes[0].set(xlabel="training images changed", ylabel="predictions turned (%)", ylim=(0, 100))
    axes[0].legend()
    for count in counts:
        results = [r for p in pieces for r in p["attacks"] if r["num_images"] == count]
        before, after = (
            [-np.log(np.expm1(result[key])) for result in results]
            for key in ("loss_before", "loss_after")
        )
        axes[1].plot(before, after, ".", label=str(count))
    axes[1].axhline(0, color="black", lw=0.5)
    axes[1].set(xlabel="margin before", ylabel="margin after (below 0: turned)")
    axes[1].legend(title="images changed")
    return figure


def notes(size: int, num_right: int, num_attacked: int) -> list[str]:
    """Return what a reader of the figures must know."""
    return [
        f"The test images are drawn at random from the {num_right} that are predicted right.",
        f"The intervals of the shares are Wilson's, of {num_attacked} test images: they are wide.",
        "Changes of less than half a level, which leave the stored images as they are, are what "
        "the attack allows; they are no findings, and have no bound.",
        f"Images are enlarged to {size}. Accuracies in cross-validation by size: "
        + ", ".join(f"{each}: {accuracy}" for each, accuracy in VALIDATED.items())
        + ".",
        "SqueezeNet's 512 features of 192 x 192 pixels in place of Inception's 2,048 of 299 x 299.",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the reproduction."""
    num_workers, arguments = split_workers(arguments)
    options = read_options(__doc__, arguments)
    settings = SETTINGS[options.form]
    evidence = Evidence(
        NAME,
        "Test predictions turned by invisible changes of training images",
        "P. W. Koh, P. Liang, ICML 2017, section 5.2, figure 5",
        options,
        {**settings, "accuracy_in_cross_validation_by_size": VALIDATED},
        num_workers,
    )
    problem = load_problem(
        options.data_dir, tuple(settings["per_class"]), settings["size"], settings["weight_decay"]
    )
    margins = problem.test_signs * (problem.test_features @ problem.last_layer.weights)
    fits = problem.last_layer.signs * (problem.last_layer.features @ problem.last_layer.weights)
    evidence.add("training accuracy", (fits > 0).mean(), published=1.0)
    evidence.add("test accuracy", (margins > 0).mean(), published=0.985)
    evidence.add("test loss", np.logaddexp(0, -margins).mean(), published=0.0485)

    right = np.random.default_rng(settings["seed"]).permutation(np.flatnonzero(margins > 0))
    # Pieces do not depend on how many there are, so that a later run may add to them.
    each = {key: value for key, value in settings.items() if key != "num_attacked"}
    data_dir = None if options.data_dir is None else str(options.data_dir)
    tasks = {
        f"test-{i}": {"settings": each, "data_dir": data_dir, "position": int(i)}
        for i in right[: settings["num_attacked"]]
    }
    evidence.add("test images attacked, of those predicted right", len(tasks), published=591)
    folder = pieces_folder(NAME, options, each)
    pieces = list(compute_pieces(attack_one, tasks, folder, num_workers).values())
    add_rows(evidence, pieces)
    evidence.details = {"num_predicted_right": len(right), "attacks": pieces}
    evidence.notes = notes(settings["size"], len(right), len(pieces))
    evidence.save(draw(evidence, pieces))


if __name__ == "__main__":
    main()
