"""dattri's benchmark on MNIST with logistic regression (Deng et al. 2024, arXiv:2410.04555).

The paper gives, for each method, the linear datamodelling score over 50 models trained on random
halves of 5,000 images, the correlation with leaving each image out, and the area under the curve of
finding wrong labels, at the best settings of a grid. Here the settings are chosen on one half of
the 500 queries and the figures are those of the other half. Beyond the paper, strategies look at
earlier checkpoints of the same training as well as at the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dattri_report import reproduce

NAME = "dattri_mnist_lr"
DAMPINGS = [0.3, 0.1, 0.06, 0.03, 0.02, 0.01, 1e-3, 1e-4, 1e-5]
FEW_DAMPINGS = [0.1, 0.06, 0.03, 0.01]
EARLY, STAGES = 8, [3, 8, 20]
"""Epochs of an early checkpoint, and of those that scores are added up over."""


def damped(dampings: Sequence[float | str], **more: Any) -> list[dict[str, Any]]:
    """Return settings that differ in the damping."""
    return [{"damping": damping, **more} for damping in dampings]


def entry(method: str, *grid: dict[str, Any]) -> dict[str, Any]:
    """Return a method with the settings that are tried."""
    return {"method": method, "grid": list(grid) or [{}]}


CHEAP = {
    "ekfac": entry("ekfac", *damped(DAMPINGS)),
    "ekfac, early": entry("ekfac", *damped(DAMPINGS[:6], epochs=EARLY)),
    "kfac": entry("kfac", *damped(DAMPINGS)),
    "kfac, early": entry("kfac", *damped(DAMPINGS[:6], epochs=EARLY)),
    "datainf": entry("datainf", *damped(FEW_DAMPINGS, n_samples_for_hessian=1000)),
    "logra": entry("logra", *damped(FEW_DAMPINGS, projection_dim=[64, 10])),
    "identity": entry("identity"),
    "grad-dot": entry("grad-dot"),
    "grad-cos": entry("grad-cos"),
    "representer-l2": entry(
        "representer-l2", *({"lambda_regularization": value} for value in (1e-1, 1e-2, 1e-3, 1e-4))
    ),
    "ekfac, theta-RelatIF": entry("ekfac, theta-RelatIF", *damped(FEW_DAMPINGS)),
    "ekfac, l-RelatIF": entry("ekfac, l-RelatIF", *damped(FEW_DAMPINGS)),
    "ekfac of margins": entry("ekfac of margins", *damped([10.0, 1.0, 0.1, 0.01])),
    "knn-shapley": entry("knn-shapley"),
    "similarity": entry("similarity"),
    "tracin, 10 models": entry("tracin", {"models": 10}),
    "trak-1": entry("trak", {"kind": "half", "models": 1, "projection_dim": 512}),
    "trak-10": entry("trak", {"kind": "half", "models": 10, "projection_dim": 512}),
}
COSTLY = {
    "cgd, 3 checkpoints": entry("cgd", *damped([0.03], n_opt_iters=20, epochs=STAGES)),
    "cgd": entry("cgd", *damped([0.1, 0.03, 0.01], n_opt_iters=20)),
    "cgd, early": entry("cgd", *damped([0.06, 0.03, 0.02], n_opt_iters=20, epochs=EARLY)),
    "lissa": entry("lissa", *damped([0.03], n_opt_iters=300, batch_size=500)),
    "arnoldi": entry("arnoldi", *damped([0.06, 0.01], subspace_dim=200, k_largest_eig_vals=100)),
    "arnoldi calculator": entry(
        "arnoldi calculator", *({"k_largest_eig_vals": k} for k in (30, 100))
    ),
    "nystrom": entry("nystrom", *damped([0.06, 0.03], rank=500)),
    "woodbury": entry("woodbury", *damped([0.06], n_samples_for_hessian=300)),
    "astra": entry("astra", *damped([0.03], n_opt_iters=20, solver="cg")),
    "representer-lje": entry("representer-lje"),
    "tracin-fast, 10 models": entry("tracin-fast", {"models": 10}),
    "trak-50": entry("trak", {"kind": "half", "models": 50, "projection_dim": 512}),
}
SINGLE = {
    **{name: CHEAP[name] for name in ("ekfac", "kfac", "datainf", "logra", "grad-dot", "grad-cos")},
    **{name: CHEAP[name] for name in ("representer-l2", "ekfac of margins", "knn-shapley")},
    "tracin, 10 models": CHEAP["tracin, 10 models"],
    "trak-1": CHEAP["trak-1"],
    "trak-10": CHEAP["trak-10"],
    "loss": entry("loss", {"models": 1}),
    "loss, 10 models of halves": entry("loss", {"kind": "half", "models": 10}),
    "el2n, 10 models": entry("el2n", {"models": 10}),
    "grand, 10 models": entry("grand", {"models": 10}),
}
COSTLY_SINGLE = {
    "arnoldi calculator": entry("arnoldi calculator", {"k_largest_eig_vals": 100}),
    "nystrom": entry("nystrom", *damped([0.06], rank=500)),
}
COMMON: dict[str, Any] = {
    "num_train": 5000,
    "num_test": 500,
    "hidden": [],
    "dropout": 0.0,
    "epochs": 20,
    "checkpoints": [3, 8, 20],
    "alone": [],
    "training_batch": 32,
    "learning_rate": 0.01,
    "momentum": 0.0,
    "batch": 500,
    "num_subsets": 50,
    "shares": 64,
    "truth_seeds": 1,
    "num_left_out": 5000,
    "num_full": 10,
    "models": {"full": 10, "half": 50},
    "mislabelled": 0.1,
    "noise_seeds": 2,
    "noise_models": {"full": 10, "half": 10},
    "pairs": {**COSTLY, **CHEAP},
    "single": {**COSTLY_SINGLE, **SINGLE},
    "ensembles": ["ekfac, early", "kfac, early"],
    "at_least": {
        "single-model strategy": {"published": 0.798, "at_least": 0.79},
        "leave-one-out": {"published": 0.878, "at_least": 0.87},
    },
}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": COMMON,
    "short": {
        **COMMON,
        "num_test": 200,
        "num_left_out": 100,
        "noise_seeds": 2,
        "models": {"full": 10, "half": 10},
        "pairs": {
            "cgd, early": entry("cgd", *damped([0.06, 0.03], n_opt_iters=15, epochs=EARLY)),
            **CHEAP,
        },
        "single": SINGLE,
    },
    "smoke": {
        **COMMON,
        "num_train": 60,
        "num_test": 8,
        "epochs": 2,
        "checkpoints": [1, 2],
        "num_subsets": 6,
        "shares": 1,
        "num_left_out": 3,
        "num_full": 2,
        "models": {"full": 2, "half": 1},
        "noise_seeds": 2,
        "noise_models": {"full": 1},
        "pairs": {
            "ekfac": entry("ekfac", *damped([1e-1, 1e-2])),
            "ekfac, 2 checkpoints": entry("ekfac", *damped([1e-1], epochs=[1, 2])),
            "trak-1": entry("trak", {"kind": "half", "models": 1, "projection_dim": 8}),
        },
        "single": {"loss": SINGLE["loss"], "grad-dot": entry("grad-dot")},
        "ensembles": ["ekfac"],
    },
}
PUBLISHED = {
    "lds": {
        "cgd": 0.798,
        "lissa": 0.787,
        "arnoldi calculator": 0.310,
        "tracin, 10 models": 0.330,
        "grad-dot": 0.327,
        "grad-cos": 0.191,
        "representer-l2": 0.188,
        "trak-1": 0.413,
        "trak-10": 0.643,
        "trak-50": 0.681,
    },
    "loo": {
        "cgd": 0.878,
        "lissa": 0.864,
        "arnoldi calculator": 0.269,
        "tracin, 10 models": 0.277,
        "grad-dot": 0.277,
        "grad-cos": 0.161,
        "representer-l2": 0.150,
        "trak-1": 0.476,
        "trak-10": 0.734,
        "trak-50": 0.778,
    },
    "auc": {
        "arnoldi calculator": "~0.98",
        "tracin, 10 models": "~0.98",
        "grad-dot": "~0.98",
        "grad-cos": 0.485,
        "representer-l2": 0.913,
        "trak-1": "~0.98",
        "trak-10": "~0.98",
    },
}
NOTES = [
    "Published figures are those of the best settings of a grid on the queries they are reported "
    "for. Here settings are chosen on half of the queries, and the other half is reported.",
    "The halves and the seeds are drawn anew: dattri's retrained models are not used. Models of "
    "halves that a method looks at (TRAK) are of other halves than those of the truth.",
    "Gradient cosine gives every example a self-score of 1 but for rounding: its area under the "
    "curve says nothing.",
]


def notes(early: int, epochs: int) -> list[str]:
    """Return what a reader has to know, given the epochs of the early and the last checkpoint."""
    trials = (
        f"The early checkpoint, after {early} of {epochs} epochs, and the ranges of settings were "
        "found in trials that looked at the scores of all queries, on the same subsets: only the "
        "choice among the settings that are listed does without the reported half."
    )
    return [*NOTES, trials]


def main(arguments: list[str] | None = None) -> None:
    """Run the reproduction."""
    title = "MNIST, logistic regression"
    reproduce(NAME, title, SETTINGS, PUBLISHED, notes(EARLY, COMMON["epochs"]), arguments, __doc__)


if __name__ == "__main__":
    main()
