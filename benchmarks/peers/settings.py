"""Settings that every library is given, and the reference."""

BATCH = 128
"""Examples a batch, for every library, unless a function in ``with_*.py`` says why not."""

EKFAC_DAMPING = 1e-3
EKFAC_QUERIES = 128

HEAD_DAMPING = 1e-3
TOP_K = 10

CG_EXAMPLES = 2048
CG_QUERIES = 32
CG_DAMPING = 0.1
CG_TOLERANCE = 1e-3

ARNOLDI_RANK = 50
ARNOLDI_STEPS = 200
"""Krylov vectors, where a library asks for their number."""

TRAK_EXAMPLES = 2048
TRAK_QUERIES = 100
TRAK_DIM = 512

KNN = 5
KNN_QUERIES = 256

SEED = 0
