"""Mislabel detection on CIFAR-10 from the command line.

``python -m deel_influence.benchmark.benchmark_runner -method_name influence_first_order``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from .calculator_factory import InfluenceCalculatorFactory
from .cifar10 import Cifar10MislabelingDetectorEvaluator, Splits
from .factories import (
    ArnoldiCalculatorFactory,
    FirstOrderFactory,
    RPSL2Factory,
    RPSLJEFactory,
    SampleBoundaryCalculatorFactory,
    TracInFactory,
    WeightsBoundaryCalculatorFactory,
)
from .results import MethodResult

FACTORIES: dict[str, Callable[[argparse.Namespace], InfluenceCalculatorFactory]] = {
    "influence_first_order": lambda options: _with_curvature(FirstOrderFactory, options),
    "rps_lje": lambda options: _with_curvature(RPSLJEFactory, options),
    "rps_l2": lambda options: RPSL2Factory(
        lambda_regularization=options.lambda_regularization, epochs=options.epochs_rpsl2
    ),
    "tracein": lambda _: TracInFactory(),
    "tracin": lambda _: TracInFactory(),
    "arnoldi": lambda options: ArnoldiCalculatorFactory(
        options.subspace_dim,
        options.force_hermitian,
        options.k_largest_eig_vals,
        start_layer=options.start_layer,
        dataset_hessian_size=options.dataset_hessian_size,
    ),
    "boundary_sample": lambda options: SampleBoundaryCalculatorFactory(options.step_nbr),
    "boundary_weights": lambda options: WeightsBoundaryCalculatorFactory(options.step_nbr),
}
"""The methods by name, and what makes their factories of the options."""


def main(
    arguments: Sequence[str] | None = None, data: Splits | None = None
) -> dict[str, MethodResult]:
    """Run the benchmark, print one line per run and the means, and return the results.

    Parameters
    ----------
    arguments
        The command line without the program; None takes that of the process.
    data
        Training and test set in place of CIFAR-10.
    """
    options = _read_options(arguments)
    # Made before the data is loaded, so that wrong settings are refused at once.
    factories = {name: FACTORIES[name](options) for name in options.method_name}
    evaluator = Cifar10MislabelingDetectorEvaluator(
        epochs=options.epochs,
        model_type=options.model_type,
        mislabeling_ratio=options.mislabeling_ratio,
        use_regu=options.use_regu,
        use_bias=options.use_bias,
        force_overfit=options.force_overfit,
        train_batch_size=options.train_batch_size,
        test_batch_size=options.test_batch_size,
        influence_batch_size=options.influence_batch_size,
        epochs_to_save=options.epochs_to_save,
        take_batch=options.take_batch if options.take_batch > 0 else None,
        verbose_training=options.verbose_training,
        use_tensorboard=options.use_tensorboard,
        data=data,
    )
    results = evaluator.bench(
        factories,
        nbr_of_evaluation=options.nbr_of_evaluation,
        path_to_save=options.path_to_save,
        seed=options.seed,
        use_tensorboard=options.use_tensorboard,
    )
    for name, result in results.items():
        mean, spread = result.mean(), result.spread()
        print(
            f"{name}: ROC AUC {mean['roc_auc']:.4f} ± {spread['roc_auc']:.4f}, average precision "
            f"{mean['average_precision']:.4f} ± {spread['average_precision']:.4f} over "
            f"{len(result.runs)} seeds"
        )
    return results


def boolean(text: str) -> bool:
    """Read true or false.

    Raises
    ------
    argparse.ArgumentTypeError
        For any other word.
    """
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        message = f"must be true or false. Received: {text!r}"
        raise argparse.ArgumentTypeError(message)
    return words[text.lower()]


def _switch(default: bool) -> dict[str, Any]:
    return {"type": boolean, "nargs": "?", "const": True, "default": default}


def _integers(text: str) -> list[int] | None:
    return [int(part) for part in text.split(",")] if text else None


def _layer(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def _with_curvature(
    factory: type[FirstOrderFactory] | type[RPSLJEFactory], options: argparse.Namespace
) -> InfluenceCalculatorFactory:
    iterative = options.ihvp_mode in ("cgd", "lissa")
    return factory(
        options.ihvp_mode,
        options.start_layer,
        options.dataset_hessian_size,
        options.n_opt_iters if iterative else None,
    )


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.epochs_to_save:
        for name in {"tracein", "tracin"}.intersection(options.method_name):
            parser.error(f"{name} needs -epochs_to_save, such as 19,39,59: epochs counted from 0")
    if options.epochs_to_save and max(options.epochs_to_save) >= options.epochs:
        parser.error(f"-epochs_to_save must be below -epochs, which is {options.epochs}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deel_influence.benchmark.benchmark_runner",
        description="Flip labels of CIFAR-10, train on them, and see how soon each method finds "
        "them. A run that is in the folder of results already is not computed again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_training(parser)
    _add_evaluation(parser)
    _add_methods(parser)
    return parser


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    switch = _switch(default=False)
    models = ["resnet", "efficient_net", "vgg19"]
    group.add_argument("-epochs", type=int, default=60, help="passes over the training set")
    group.add_argument("-model_type", choices=models, default="resnet", help="the network")
    group.add_argument("-mislabeling_ratio", type=float, default=0.0005, help="share to flip")
    group.add_argument("-use_regu", **switch, help="penalties on the last layers")
    group.add_argument("-use_bias", **_switch(default=True), help="a bias in the last layer")
    group.add_argument("-force_overfit", **switch, help="learn the labels by heart")
    group.add_argument("-train_batch_size", type=int, default=128, help="examples in a batch")
    group.add_argument("-test_batch_size", type=int, default=128, help="the same, in the test")
    group.add_argument("-epochs_to_save", type=_integers, help="for tracin: 19,39,59")
    group.add_argument("-take_batch", type=int, default=-1, help="only so many examples")
    group.add_argument("-verbose_training", **switch, help="show the progress of the training")
    group.add_argument("-use_tensorboard", **switch, help="log for TensorBoard")


def _add_evaluation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "-method_name", nargs="+", choices=list(FACTORIES), required=True, help="what to compare"
    )
    group.add_argument("-nbr_of_evaluation", type=int, default=10, help="number of seeds")
    group.add_argument("-seed", type=int, default=0, help="the first of the seeds")
    group.add_argument("-path_to_save", default="./results/", help="folder of the results")
    group.add_argument("-influence_batch_size", type=int, default=128, help="when scoring")


def _add_methods(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("methods")
    group.add_argument("-ihvp_mode", default="exact", help="strategy for the inverse Hessian")
    group.add_argument("-start_layer", type=_layer, help="the watched layer; default: the last")
    group.add_argument("-dataset_hessian_size", type=int, default=2000, help="-1 for all")
    group.add_argument(
        *("-n_opt_iters", "-n_cgd_iters"), type=int, default=100, help="steps of cgd and lissa"
    )
    group.add_argument("-lambda_regularization", type=float, default=1e-4, help="for rps_l2")
    group.add_argument("-epochs_rpsl2", type=int, default=100, help="Newton steps of rps_l2")
    group.add_argument("-subspace_dim", type=int, default=200, help="for arnoldi")
    group.add_argument("-k_largest_eig_vals", type=int, default=100, help="for arnoldi")
    group.add_argument("-force_hermitian", **_switch(default=True), help="for arnoldi")
    group.add_argument(
        *("-step_nbr", "-boundary_iter"), type=int, default=100, help="steps to a boundary"
    )
    for name in ("-feature_extractor", "-layer_index", "-scaling_factor"):
        group.add_argument(name, help="without effect, for commands of Influenciae")


if __name__ == "__main__":
    main()
