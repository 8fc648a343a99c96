"""Symmetric operators and solvers as functions of tensors; they know neither Keras nor tf.data."""

from .arnoldi import ArnoldiResult, arnoldi
from .conjugate_gradients import conjugate_gradients
from .estimation import Estimate, hutchinson_diagonal, hutchinson_trace
from .lanczos import KrylovBasis, extreme_eigenvalues, lanczos
from .linear_operator import (
    BlockDiagonalOperator,
    DenseOperator,
    DiagonalOperator,
    IdentityOperator,
    LinearOperator,
    ScaledOperator,
    SumOperator,
)
from .lissa import lissa
from .low_rank import LowRank
from .neumann import preconditioned_neumann
from .nystrom import NystromResult, nystrom
from .preconditioners import JacobiPreconditioner, NystromPreconditioner
from .result import SolveResult

__all__ = [
    "ArnoldiResult",
    "BlockDiagonalOperator",
    "DenseOperator",
    "DiagonalOperator",
    "Estimate",
    "IdentityOperator",
    "JacobiPreconditioner",
    "KrylovBasis",
    "LinearOperator",
    "LowRank",
    "NystromPreconditioner",
    "NystromResult",
    "ScaledOperator",
    "SolveResult",
    "SumOperator",
    "arnoldi",
    "conjugate_gradients",
    "extreme_eigenvalues",
    "hutchinson_diagonal",
    "hutchinson_trace",
    "lanczos",
    "lissa",
    "nystrom",
    "preconditioned_neumann",
]
