"""Arguments that cannot be, each refused in one line that begins with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deel_influence.baselines import KNNShapley, RepresentationSimilarity
from deel_influence.calculators import InfluenceBlock, Scores
from deel_influence.common import (
    CACHE,
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    InverseHessianVectorProduct,
)
from deel_influence.datasets import load_source
from deel_influence.errors import DataSourceError, LabelError, SavedCurvatureError
from deel_influence.evaluation import GroundTruth, leave_one_out, random_subsets, roc_auc
from deel_influence.ihvp import EKFACIHVP, ArnoldiIHVP, NystromIHVP
from deel_influence.influence import ArnoldiInfluenceCalculator, FirstOrderInfluenceCalculator
from deel_influence.report import write_report
from deel_influence.rps import RepresenterPointL2
from deel_influence.trac_in import CheckpointRecorder, GradientDot, TracIn
from deel_influence.trak import TRAK
from tests.errors.small import N, Row, Small, X, Y, check_row, row


def fitted(kind: Any, **options: Any) -> Callable[[Small], Any]:
    return lambda s: kind(s.model, train_dataset=s.data, **options)


def reported(**options: Any) -> Callable[[Small], Any]:
    given = {"summary": {}, **options}
    return lambda s: write_report(s.folder / "page", s.triage, s.data, **given)


def cut(path: Path) -> Path:
    content = path.read_bytes()
    shorter = path.with_name(f"cut_{path.name}")
    shorter.write_bytes(content[: len(content) // 2])
    return shorter


ROWS: dict[str, Row] = {
    "no influence model": row(
        lambda s: FirstOrderInfluenceCalculator(s.keras, s.data), TypeError, "`model`", "Wrap"
    ),
    "no strategy of that name": row(
        lambda s: FirstOrderInfluenceCalculator(s.model, s.data, "magic"),
        ValueError,
        "`ihvp_calculator`",
        "'magic'",
    ),
    "no way to normalise": row(
        lambda s: FirstOrderInfluenceCalculator(s.model, s.data, normalize="l3"),
        ValueError,
        "`normalize`",
        "'l3'",
    ),
    "no device": row(lambda s: s.calculator.score(s.data, device="/ABC:9"), ValueError, "`device`"),
    "no verbosity": row(
        lambda s: s.calculator.score(s.data, verbose="loud"), ValueError, "`verbose`", "'loud'"
    ),
    "k of zero": row(lambda s: s.calculator.top_k(s.data, s.data, k=0), ValueError, "`k`", "0"),
    "k of a half": row(lambda s: s.calculator.top_k(s.data, s.data, k=0.5), ValueError, "`k`"),
    "no order": row(
        lambda s: s.calculator.top_k(s.data, s.data, order="best"), ValueError, "`order`", "'best'"
    ),
    "no cache": row(
        lambda s: list(s.calculator.estimate_influence_values_in_batches(s.data, s.data, "disk")),
        ValueError,
        "`influence_vector_in_cache`",
    ),
    "a cache without its path": row(
        lambda s: s.calculator.top_k(s.data, s.data, influence_vector_in_cache=CACHE.DISK),
        ValueError,
        "`load_influence_vector_path`",
    ),
    "damping below zero": row(fitted(ExactIHVP, damping=-1.0), ValueError, "`damping`", "-1"),
    "damping in words": row(fitted(EKFACIHVP, damping="some"), ValueError, "`damping`", "'some'"),
    "no curvature of that name": row(
        fitted(ExactIHVP, curvature="round"), ValueError, "`curvature`", "'round'"
    ),
    "a subspace of nothing": row(
        fitted(ArnoldiIHVP, subspace_dim=0), ValueError, "`subspace_dim`", "0"
    ),
    "a subspace of nothing, in the calculator": row(
        lambda s: ArnoldiInfluenceCalculator(s.model, s.data, subspace_dim=0),
        ValueError,
        "`subspace_dim`",
    ),
    "more eigenvalues than dimensions": row(
        fitted(ArnoldiIHVP, subspace_dim=2), ValueError, "`k_largest_eig_vals`", "100 of 2"
    ),
    "a rank of nothing": row(fitted(NystromIHVP, rank=0), ValueError, "`rank`", "0"),
    "no preconditioner of that name": row(
        fitted(ConjugateGradientDescentIHVP, preconditioner="ice"), ValueError, "'ice'"
    ),
    "a sample of nothing": row(
        fitted(ExactIHVP, n_samples_for_hessian=0), ValueError, "`n_samples_for_hessian`"
    ),
    "no Fisher matrix of that name": row(fitted(EKFACIHVP, fisher="x"), ValueError, "`fisher`"),
    "no projection of that name": row(
        lambda s: TRAK(s.model, s.data, projection="sketchy"), ValueError, "`projection`"
    ),
    "a projection on nothing": row(
        lambda s: GradientDot(s.model, "rademacher", 0), ValueError, "`projection_dim`"
    ),
    "other learning rates than checkpoints": row(
        lambda s: TracIn([s.model], [0.1, 0.2]), ValueError, "`learning_rates`"
    ),
    "no neighbours": row(lambda s: KNNShapley(s.model, k=0), ValueError, "`k`"),
    "no metric": row(
        lambda s: RepresentationSimilarity(s.model, metric="feeling"), ValueError, "`metric`"
    ),
    "no class for queries": row(
        lambda s: RepresenterPointL2(s.model, s.data, query_class="best"),
        ValueError,
        "`query_class`",
        "'best'",
    ),
    "checkpoints without a time": row(
        lambda s: CheckpointRecorder(s.folder / "c", every_epochs=0), ValueError, "`every_epochs`"
    ),
    "scores of other ids": row(
        lambda s: Scores(np.arange(2), np.zeros(3)), ValueError, "`values`", "(3,)"
    ),
    "a fraction above one": row(lambda s: random_subsets(N, 3, 1.5), ValueError, "`fraction`"),
    "an example that is not there": row(
        lambda s: leave_one_out(N, [N]), ValueError, "`positions`", "12"
    ),
    "a mask of another length": row(
        lambda s: roc_auc(np.zeros(4), np.zeros(5, bool)), ValueError, "`mislabelled`"
    ),
    "a summary that is a word": row(reported(summary="a"), TypeError, "`summary`", "str"),
    "class names in a word": row(reported(class_names="abc"), TypeError, "`class_names`"),
    "a number for class names": row(reported(class_names=3), TypeError, "`class_names`"),
    "too few class names": row(reported(class_names=["a"]), LabelError, "`class_names`", "1 names"),
    "feature names in a word": row(reported(feature_names="abcd"), TypeError, "`feature_names`"),
    "a source that is a number": row(
        lambda s: load_source(3), TypeError, "`source`", "int", "a text or a path"
    ),
    "a source of arrays": row(lambda s: load_source((X, Y)), TypeError, "`source`", "tuple"),
    "a path that is not there": row(
        lambda s: load_source(s.folder / "no.npz"), DataSourceError, "no such file"
    ),
    "arrays of dates": row(
        lambda s: load_source(s.arrays("t.npz", x=X.astype("M8[D]"), y=Y)), DataSourceError, "`x`"
    ),
    "a batch size of zero": row(
        lambda s: load_source(s.arrays("b.npz", x=X, y=Y), 0), ValueError, "`batch_size`"
    ),
    "a strategy that is cut": row(
        lambda s: InverseHessianVectorProduct.load(cut(s.strategy), s.model),
        SavedCurvatureError,
        "cannot be read",
    ),
    "a strategy that is none": row(
        lambda s: InverseHessianVectorProduct.load(s.arrays("a.npz", x=X), s.model),
        SavedCurvatureError,
        "a.npz",
    ),
    "scores that are cut": row(
        lambda s: Scores.load(cut(Scores(np.arange(3), np.ones(3)).save(s.folder / "s.npz"))),
        DataSourceError,
        "cannot be read",
    ),
    "a block that is not there": row(
        lambda s: InfluenceBlock.load(s.folder / "no.npz"), DataSourceError, "is not there"
    ),
    "a truth that is a text": row(
        lambda s: GroundTruth.load(s.write("truth.npz", "0.1 0.2")), DataSourceError, "truth.npz"
    ),
}


@pytest.mark.parametrize("case", ROWS.values(), ids=ROWS)
def test_an_argument_that_cannot_be_is_refused_in_one_line(case: Row, small: Small) -> None:
    check_row(case, small)
