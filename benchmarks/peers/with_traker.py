"""The work with traker."""

from __future__ import annotations

import logging
import tempfile

import torch
import trak as traker
from problems import Problem
from settings import BATCH, SEED, TRAK_DIM, TRAK_EXAMPLES, TRAK_QUERIES
from torch_networks import Call, loader, network, query_tensors, train_tensors

VERSION = f"{traker.__version__}, PyTorch {torch.__version__}"


def trak(problem: Problem) -> Call:
    """Fit and take the scores, each time anew, with the default projection of a CPU."""
    problem = problem.first(TRAK_EXAMPLES, TRAK_QUERIES)
    model = network(problem)

    def call() -> dict:
        fitted = traker.TRAKer(
            model=model,
            task="image_classification",
            train_set_size=len(problem.x),
            save_dir=tempfile.mkdtemp(),
            device="cpu",
            proj_dim=TRAK_DIM,
            projector_seed=SEED,
            use_half_precision=False,
            logging_level=logging.ERROR,
        )
        fitted.load_checkpoint(model.state_dict(), model_id=0)
        for batch in loader(train_tensors(problem), BATCH):
            fitted.featurize(batch=batch, num_samples=len(batch[0]))
        fitted.finalize_features()
        fitted.start_scoring_checkpoint("queries", model.state_dict(), 0, len(problem.queries))
        for batch in loader(query_tensors(problem), BATCH):
            fitted.score(batch=batch, num_samples=len(batch[0]))
        return {"scores": fitted.finalize_scores("queries").T.copy()}

    return call
