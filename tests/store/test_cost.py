"""What an index costs is told before it is built, and nothing stays behind."""

from __future__ import annotations

import pytest

from deel_influence.store import IndexCost, build_index, index_cost
from deel_influence.store.cost import TIMED
from tests.store.test_index import N, arrays, batched, first_order, model  # noqa: F401 - a fixture


def test_bytes_and_files_are_those_of_the_index(model, tmp_path):  # noqa: F811
    calculator = first_order(model)
    data = batched(*arrays(2000), 50)
    found = index_cost(calculator, data, tmp_path / "new" / "index", part_size=512)
    assert list(tmp_path.iterdir()) == []
    index = build_index(calculator, data, tmp_path / "index", part_size=512, verbose=0)
    size = sum(part.path.stat().st_size for part in index.parts)
    assert found.disk == pytest.approx(size, rel=0.2)  # the heads of the files are not counted
    assert (found.examples, found.dimension) == (2000, index.header.dimension)
    assert found.parts == len(index.parts)
    assert found.memory == pytest.approx(2 * 512 * found.disk / 2000, rel=0.01)
    assert found.free_disk > found.disk


def test_few_batches_are_computed_and_time_grows_with_the_examples(model, tmp_path, monkeypatch):  # noqa: F811
    calculator = first_order(model)
    clock = [0.0]
    kept = type(calculator)._computed

    def counted(self, *args, **kwargs):
        for item, values in kept(self, *args, **kwargs):
            clock[0] += item.size
            yield item, values

    monkeypatch.setattr(type(calculator), "_computed", counted)
    monkeypatch.setattr("deel_influence.store.cost.time.perf_counter", lambda: clock[0])
    data = batched(*arrays(100), 10)
    found = index_cost(calculator, data, tmp_path, num_examples=10**6)
    assert clock[0] == 10 * (1 + 1 + 1 + TIMED)
    assert found.seconds == 10**6  # one for each example
    single = index_cost(calculator, batched(*arrays(), N), tmp_path)
    assert single.seconds == N


def test_it_prints_as_a_table_and_refuses_what_building_does(model, tmp_path):  # noqa: F811
    cost = IndexCost(10**6, 966, 31, 20.6, 2**27, 2 * 10**9, None, 10**11)
    lines = str(cost).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["time", "20.6", "s"],
        ["memory", "128.0", "MiB"],
        ["disk", "1.9", "GiB"],
    ]
    assert "1,000,000 examples" in lines[0]
    assert "31 files" in cost._repr_html_()
    with pytest.raises(ValueError, match="^Argument `dtype` must be one of"):
        index_cost(first_order(model), batched(*arrays()), tmp_path, "int8")
    with pytest.raises(ValueError, match="^Argument `num_examples`"):
        index_cost(first_order(model), batched(*arrays()), tmp_path, num_examples=0)
