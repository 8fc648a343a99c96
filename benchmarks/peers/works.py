"""The table of works: what is asked, how a result is judged, and who cannot do it.

A work is a function of this name in ``with_LIBRARY.py``, which sets up and returns a call; the call
is what is timed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OURS = "deel_influence"

LIBRARIES = {
    OURS: "deel_influence",
    "captum": "captum",
    "dattri": "dattri",
    "kronfluence": "kronfluence",
    "pydvl": "pyDVL",
    "traker": "traker",
}
"""Names, and how the page writes them."""

PEERS = tuple(name for name in LIBRARIES if name != OURS)

EXACT = "Float32 leaves 1e-6 or so of a sum of squares; a wrong layer or loss leaves far more."
SOLVED = (
    "Float32, times the condition number of the damped Hessian, which is below a thousand: 1e-4, "
    "and as much again for the order of sums."
)
DRAWN = (
    "Labels are drawn once for each example, where the reference takes the mean over them, so that "
    "small eigenvalues are noisy. Products of gradients without curvature come to 0.28."
)


@dataclass(frozen=True)
class Work:
    """A row of the table.

    Attributes
    ----------
    name
        How the command line calls it.
    title
        What is asked.
    problem
        Whose network and examples.
    function
        In ``with_LIBRARY.py``.
    reference
        The function in ``references.py``.
    measure
        How a result is held against the reference: a key of `agreement.MEASURES`.
    bound
        Where a result begins to be right.
    reason
        Why the bound is there: what rounding, draws and another method would give, and never what
        a library gave.
    empty
        Who cannot do it, and why.
    is_pass
        Whether it is a matter of passes over all examples, so that epochs are a measure of it.
    """

    name: str
    title: str
    problem: str
    function: str
    reference: str
    measure: str
    bound: float
    reason: str
    empty: dict[str, str] = field(default_factory=dict)
    is_pass: bool = False

    @property
    def libraries(self) -> list[str]:
        """Who does it."""
        return [name for name in LIBRARIES if name not in self.empty]


def _only_ours(reason: str) -> dict[str, str]:
    return dict.fromkeys(PEERS, reason)


_NO_SELF = {
    "pydvl": "no self-influence",
    "traker": "features of projected gradients alone",
}
_NO_EKFAC = {
    "captum": "no EKFAC",
    "dattri": (
        "its Fisher matrix is that of the function whose gradients the queries have, so of the "
        "labels that are given: another matrix"
    ),
    "traker": "no curvature",
}
_NO_HESSIAN = {
    "kronfluence": "no exact Hessian, only Kronecker-factored and diagonal Fisher matrices",
    "traker": "no Hessian",
}
_NOT_COMPARED = "a call or a limit of ours, to hold our own rows against"

WORKS = (
    Work(
        "norms_mlp",
        "squared gradient norms, n = 8,192",
        "mlp",
        "norms",
        "norms_mlp",
        "relative",
        1e-4,
        EXACT,
        _NO_SELF,
        is_pass=True,
    ),
    Work(
        "norms_cnn",
        "squared gradient norms, n = 2,048",
        "cnn",
        "norms",
        "norms_cnn",
        "relative",
        1e-4,
        EXACT,
        _NO_SELF,
        is_pass=True,
    ),
    Work(
        "ekfac_fit",
        "EKFAC, fit, n = 8,192",
        "mlp",
        "ekfac_fit",
        "ekfac_pairs",
        "pearson",
        0.9,
        "As for the pairs, which it is judged by. " + DRAWN,
        _NO_EKFAC,
        is_pass=True,
    ),
    Work(
        "ekfac_self",
        "EKFAC, self-influence, n = 8,192",
        "mlp",
        "ekfac_self",
        "ekfac_self",
        "relative",
        0.2,
        "Labels are drawn once, as for the pairs, which moves scores by some hundredths. Norms "
        "without curvature would be off by up to the inverse of the damping, 1,000.",
        {**_NO_EKFAC, "pydvl": "no self-influence"},
        is_pass=True,
    ),
    Work(
        "ekfac_pairs",
        "EKFAC, 128 x 8,192 pairs",
        "mlp",
        "ekfac_pairs",
        "ekfac_pairs",
        "pearson",
        0.9,
        DRAWN,
        _NO_EKFAC,
    ),
    Work(
        "exact_head",
        "exact last layer: fit and 100 x 8,192 pairs",
        "small",
        "exact_head",
        "exact_head",
        "relative",
        1e-3,
        SOLVED,
        _NO_HESSIAN,
    ),
    Work(
        "top_k",
        "exact last layer, fitted: 10 best of 8,192 for 100",
        "small",
        "top_k",
        "top_k",
        "best",
        1e-3,
        SOLVED,
        _NO_HESSIAN,
    ),
    Work(
        "cg",
        "conjugate gradients: 32 solutions, n = 2,048",
        "small",
        "cg",
        "cg",
        "residual",
        2e-3,
        "1e-3 is asked for; a solver's own residual is updated in float32 and may lag behind, and "
        "twice as much is let pass.",
        {
            "captum": "no conjugate gradients",
            "kronfluence": "no iterative solver",
            "traker": "no Hessian",
        },
    ),
    Work(
        "arnoldi",
        "Arnoldi, rank 50: fit and 32 x 2,048 pairs",
        "small",
        "arnoldi",
        "arnoldi",
        "pearson",
        0.9,
        "As many Krylov vectors as the paper takes (200) find most of 50 eigenvectors; what is "
        "missing changes few scores.",
        {"kronfluence": "no Arnoldi", "traker": "no Hessian"},
    ),
    Work(
        "trak",
        "TRAK, 512 features: fit and 100 x 2,048 pairs",
        "mlp",
        "trak",
        "trak",
        "draw",
        0.5,
        "The reference is the mean over five projections, each of which has a correlation with the "
        "mean of the others, 0.07: so noisy are 512 features. Half of that is asked of a "
        "library's one projection; scores that have nothing to do with these come to 0.03.",
        {
            "captum": "no TRAK",
            "kronfluence": "no TRAK",
            "pydvl": "no TRAK",
        },
    ),
    Work(
        "knn_shapley",
        "KNN-Shapley, k = 5, n = 8,192, 256 queries",
        "mlp",
        "knn_shapley",
        "knn_shapley",
        "relative",
        1e-2,
        "The order of neighbours at nearly equal distances depends on rounding in float32, and "
        "changes single values a little.",
        {
            "captum": "no Shapley values",
            "kronfluence": "no Shapley values",
            "traker": "no Shapley values",
        },
        is_pass=True,
    ),
    Work(
        "influence_values_mlp",
        "compute_influence_values, n = 8,192",
        "mlp",
        "influence_values",
        "norms_mlp",
        "relative",
        1e-4,
        EXACT,
        _only_ours(_NOT_COMPARED),
        is_pass=True,
    ),
    Work(
        "influence_values_cnn",
        "compute_influence_values, n = 2,048",
        "cnn",
        "influence_values",
        "norms_cnn",
        "relative",
        1e-4,
        EXACT,
        _only_ours(_NOT_COMPARED),
        is_pass=True,
    ),
    *(
        Work(
            f"{name}_{problem}",
            title,
            problem,
            name,
            name,
            "relative",
            1e-4,
            EXACT,
            _only_ours(_NOT_COMPARED),
        )
        for name, title in (
            ("step", "forward and backward, an epoch"),
            ("fit", "Keras's `fit`, an epoch"),
        )
        for problem in ("mlp", "cnn")
    ),
)


def chosen(names: list[str]) -> list[tuple[Work, str]]:
    """Return the pairs of works and libraries to run; names of either narrow them down.

    Raises
    ------
    ValueError
        If a name is that of no work and no library.
    """
    known = {work.name for work in WORKS} | set(LIBRARIES)
    unknown = sorted(set(names) - known)
    if unknown:
        message = (
            f"Argument `--only` must name works or libraries, which are {', '.join(sorted(known))}."
            f" Received: {', '.join(unknown)}."
        )
        raise ValueError(message)
    works = set(names) - set(LIBRARIES) or {work.name for work in WORKS}
    libraries = set(names) & set(LIBRARIES) or set(LIBRARIES)
    wanted = [work for work in WORKS if work.name in works]
    return [(work, name) for work in wanted for name in work.libraries if name in libraries]
