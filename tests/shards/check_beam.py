"""Pipelines of Apache Beam give what one process gives; `make test-beam` runs this.

Beam needs older protobuf and pyarrow than the other tests are run with, so that it has an
environment of its own, and this file a name that keeps it out of the ordinary run.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest

from deel_influence.ihvp import EKFACIHVP
from deel_influence.shards import Shard, split
from deel_influence.shards.beam import FindTopK, Merge, Score, SumFit
from tests.shards import program
from tests.shards.program import BATCH


@pytest.fixture(scope="module")
def model():
    return program.wrapped()


@pytest.fixture(scope="module")
def calculator(model):
    return program.calculator(model)


SHARDS = split(program.arrays(), 4, BATCH)


def keep(part, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(part))


@pytest.fixture
def run(tmp_path):
    """Run a pipeline in this process, and return what it comes to."""

    def run(transform, shards=SHARDS):
        found = tmp_path / "found"
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            parts = pipeline | beam.Create(shards) | transform
            parts | Merge() | beam.Map(keep, str(found))
        return pickle.loads(found.read_bytes())

    return run


def test_scores_are_the_same_bytes(run, calculator):
    expected = calculator.score(program.train_set(), verbose=0)
    found = run(Score(calculator))
    assert found.ids.tobytes() == expected.ids.tobytes()
    assert found.values.tobytes() == expected.values.tobytes()


def test_the_best_examples_are_the_same(run, calculator):
    queries = tuple(array[:7] for array in program.arrays())
    expected = calculator.find_top_k(Shard(queries).open(), program.train_set(), k=3, verbose=0)
    found = run(FindTopK(calculator, queries, k=3))
    np.testing.assert_array_equal(found.train_ids, expected.train_ids)
    np.testing.assert_array_equal(found.values, expected.values)


def test_a_fit_of_two_stages_is_the_same_to_rounding(run, model):
    settings = {"damping": 0.1, "seed": 0}
    stages: list = []
    for _ in range(2):
        stages.append(run(SumFit(EKFACIHVP, model, stages, **settings)))
    fit = EKFACIHVP.finish(model, stages, **settings)
    whole = EKFACIHVP(model, program.train_set(), **settings, verbose=0)
    vectors = np.random.default_rng(1).normal(size=(3, model.nb_params)).astype("float32")
    np.testing.assert_allclose(fit.solve(vectors), whole.solve(vectors), rtol=1e-3, atol=1e-4)


def test_an_id_of_two_shards_is_refused(run, calculator):
    with pytest.raises(Exception, match="Argument `other` must hold scores of other examples"):
        run(Score(calculator), [Shard(program.train_set)] * 2)
