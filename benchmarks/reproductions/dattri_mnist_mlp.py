"""dattri's benchmark on MNIST with a network of two hidden layers (arXiv:2410.04555).

As ``dattri_mnist_lr.py``, with the network 784-128-64-10 of the benchmark, with dropout, trained
for 50 epochs. The paper has no leave-one-out figures above noise here (0.03). Beyond the paper,
methods look at an early checkpoint of the same training as well as at the last one, and are
compared with the mean of some retrainings of each half as well as with one.
"""

from __future__ import annotations

from typing import Any

from dattri_mnist_lr import damped, entry, notes
from dattri_report import reproduce

NAME = "dattri_mnist_mlp"
EARLY = 4
"""Epochs of the early checkpoint."""

DAMPINGS = [1e-1, 1e-2, 1e-3, 1e-4, 1e-7]
FEW_DAMPINGS = [1e-2, 1e-4]
MARGIN_DAMPINGS = [0.1, 3e-2, 1e-2, 1e-3]
RIDGES = [1e-1, 1e-3]


def early(grid: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return settings at the early checkpoint in place of the last one."""
    return [{**given, "epochs": EARLY} for given in grid]


def both(name: str, method: str, grid: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a method at the last checkpoint, and at the early one, as two entries."""
    return {name: entry(method, *grid), f"{name}, early": entry(method, *early(grid))}


def trak(models: int) -> dict[str, dict[str, Any]]:
    """Return TRAK with some models of halves, by dattri's number of features and by LoGra's."""
    given = {"kind": "half", "models": models}
    # Of many models, wide projections and early checkpoints take minutes each.
    few = models <= 10
    logra = [
        {**given, "projection": "logra", "projection_dim": [size, size], "damping": "auto"}
        for size in ((16, 32) if few else (16,))
    ]
    dampings = (0.0, "auto") if few else ("auto",)
    sparse = damped(dampings, **given, projection="sjlt", projection_dim=512)
    name = f"trak-{models}"
    found = both(f"{name}, logra", "trak", logra)
    return found | (both(name, "trak", sparse) if few else {name: entry("trak", *sparse)})


CHEAP = {
    **both("ekfac", "ekfac", damped(DAMPINGS)),
    **both("kfac", "kfac", damped(DAMPINGS)),
    **both("ekfac of margins", "ekfac of margins", damped(MARGIN_DAMPINGS)),
    **both("logra", "logra", damped(FEW_DAMPINGS, projection_dim=[32, 32])),
    **both("identity", "identity", [{}]),
    **both("grad-dot", "grad-dot", [{}]),
    **both("grad-cos", "grad-cos", [{}]),
    **both("tracin, 10 models", "tracin", [{"models": 10}]),
    **both(
        "representer-l2",
        "representer-l2",
        [{"lambda_regularization": value} for value in RIDGES],
    ),
    **both("knn-shapley", "knn-shapley", [{}]),
    "similarity": entry("similarity"),
    **trak(1),
    **trak(10),
}
COSTLY = {
    **both("cgd", "cgd", damped([1e-1, 1e-2], n_opt_iters=8, n_samples_for_hessian=500)),
    **both("lissa", "lissa", damped([1e-1], n_opt_iters=50, batch_size=50)),
    **both("arnoldi", "arnoldi", damped([1e-2], subspace_dim=100, k_largest_eig_vals=50)),
    **both("arnoldi calculator", "arnoldi calculator", [{"k_largest_eig_vals": 50}]),
    **both("nystrom", "nystrom", damped([1e-2], rank=200)),
    **both("datainf", "datainf", damped([1e-2], n_samples_for_hessian=500)),
    **both("woodbury", "woodbury", damped([1e-2], n_samples_for_hessian=100)),
    **both(
        "astra",
        "astra",
        damped([1e-2], n_opt_iters=5, solver="cg", n_samples_for_hessian=500),
    ),
    **both("ekfac, theta-RelatIF", "ekfac, theta-RelatIF", damped([1e-3])),
    **both("ekfac, l-RelatIF", "ekfac, l-RelatIF", damped([1e-3])),
    **both("representer-lje", "representer-lje", [{}]),
    **both("tracin-fast, 10 models", "tracin-fast", [{"models": 10}]),
    **trak(50),
}
FEW = damped([1e-1, 1e-3])
SPARSE = {
    "kind": "half",
    "models": 10,
    "projection": "sjlt",
    "projection_dim": 512,
    "damping": "auto",
}
SINGLE = {
    **both("ekfac", "ekfac", FEW),
    **both("kfac", "kfac", FEW),
    **both("ekfac of margins", "ekfac of margins", damped([0.1])),
    **both("logra", "logra", damped([1e-2], projection_dim=[32, 32])),
    **{name: CHEAP[name] for name in ("grad-dot", "grad-cos", "knn-shapley")},
    "representer-l2": entry("representer-l2", {"lambda_regularization": 1e-2}),
    "tracin, 10 models": CHEAP["tracin, 10 models"],
    "trak-10, logra": entry(
        "trak",
        {
            "kind": "half",
            "models": 10,
            "projection": "logra",
            "projection_dim": [16, 16],
            "damping": "auto",
        },
    ),
    "trak-10": entry("trak", SPARSE, *early([SPARSE])),
    "loss": entry("loss", {"models": 1}),
    "loss, early": entry("loss", {"models": 1, "epochs": EARLY}),
    "loss, 10 models of halves": entry("loss", {"kind": "half", "models": 10}),
    "el2n, 10 models": entry("el2n", {"models": 10}, {"models": 10, "epochs": EARLY}),
    "grand, 10 models": entry("grand", {"models": 10}, {"models": 10, "epochs": EARLY}),
}
COMMON: dict[str, Any] = {
    "num_train": 5000,
    "num_test": 500,
    "hidden": [128, 64],
    "dropout": 0.1,
    "epochs": 50,
    "checkpoints": [4, 50],
    "alone": [],
    "training_batch": 64,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "batch": 500,
    "num_subsets": 50,
    "shares": 64,
    "truth_seeds": 3,
    "num_left_out": 0,
    "num_full": 10,
    "models": {"full": 10, "half": 50},
    "mislabelled": 0.1,
    "noise_seeds": 2,
    "noise_models": {"full": 10, "half": 10},
    "pairs": {**COSTLY, **CHEAP},
    "single": SINGLE,
    "ensembles": ["ekfac, early", "ekfac of margins, early"],
    "at_least": {
        "single-model strategy": {"published": 0.256, "at_least": 0.256},
        "ensemble": {"published": 0.446, "at_least": 0.40},
        "detection": {"published": 0.997},
    },
}
SHORT = (
    "ekfac, early",
    "ekfac of margins, early",
    "grad-dot",
    "grad-cos",
    "trak-10, logra",
    "knn-shapley",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "full": COMMON,
    "short": {
        **COMMON,
        "num_test": 100,
        "truth_seeds": 1,
        "num_full": 4,
        "models": {"full": 4, "half": 10},
        "noise_seeds": 2,
        "noise_models": {"full": 1, "half": 10},
        "pairs": {"ekfac": entry("ekfac", *damped([1e-6, 1e-7])), **{n: CHEAP[n] for n in SHORT}},
        "single": {n: SINGLE[n] for n in ("grad-dot", "loss", "loss, 10 models of halves")},
        "ensembles": ["ekfac, early"],
    },
    "smoke": {
        **COMMON,
        "num_train": 60,
        "num_test": 8,
        "hidden": [6, 5],
        "epochs": 3,
        "checkpoints": [1, 3],
        "num_subsets": 6,
        "shares": 1,
        "truth_seeds": 2,
        "num_full": 2,
        "models": {"full": 2},
        "noise_seeds": 2,
        "noise_models": {"full": 1},
        "pairs": {
            "ekfac of margins, early": entry("ekfac of margins", *damped([0.1], epochs=1)),
            "tracin, 2 models": entry("tracin", {"models": 2}),
        },
        "single": {"loss": SINGLE["loss"]},
        "ensembles": ["ekfac of margins, early"],
    },
}
PUBLISHED = {
    "lds": {
        "cgd": 0.256,
        "lissa": 0.136,
        "arnoldi calculator": 0.087,
        "tracin, 10 models": 0.144,
        "grad-dot": 0.100,
        "grad-cos": 0.122,
        "representer-l2": 0.093,
        "trak-1": 0.112,
        "trak-10": 0.331,
        "trak-50": 0.446,
    },
    "loo": {},
    "auc": {
        "tracin, 10 models": 0.855,
        "grad-cos": 0.504,
        "representer-l2": 0.968,
        "trak-10": 0.995,
    },
}


def main(arguments: list[str] | None = None) -> None:
    """Run the reproduction."""
    title = "MNIST, network of two hidden layers"
    reproduce(NAME, title, SETTINGS, PUBLISHED, notes(EARLY, COMMON["epochs"]), arguments, __doc__)


if __name__ == "__main__":
    main()
