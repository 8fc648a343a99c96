"""Engines with workers of their own give the same bytes, also where one of them is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from distributed import Client, LocalCluster

from deel_influence.errors import ShardError
from deel_influence.shards import build_index_in_shards, fit_in_shards, score_in_shards, split
from tests.shards import program
from tests.shards.program import BATCH


def worker(address: str) -> subprocess.Popen:
    """Start a worker as on a cluster; nothing starts it again when it is killed."""
    options = ["--no-nanny", "--nthreads", "1", "--no-dashboard"]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def client():
    cluster = LocalCluster(n_workers=0, dashboard_address=None)
    with cluster, Client(cluster) as client:
        workers = [worker(cluster.scheduler_address) for _ in range(2)]
        client.wait_for_workers(2)
        yield client
        for process in workers:
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def model():
    return program.wrapped()


@pytest.fixture(scope="module")
def calculator(model):
    return program.calculator(model)


def test_two_workers_of_dask_one_of_which_is_killed_give_the_same_bytes(
    client, calculator, tmp_path
):
    expected = calculator.score(program.train_set(), verbose=0)
    shards = program.slow_shards(tmp_path, 6, pause=0.3)
    found = []
    run = threading.Thread(target=lambda: found.append(score_in_shards(calculator, shards, client)))
    run.start()
    workers = set(client.run(os.getpid).values())
    assert len(workers) == 2
    while not list(tmp_path.glob("2-*")):  # the third shard is being computed
        assert run.is_alive()
        time.sleep(0.01)
    (mark,) = tmp_path.glob("2-*")
    killed = int(mark.name.partition("-")[2])
    assert killed in workers
    os.kill(killed, signal.SIGKILL)
    run.join()
    assert found[0].ids.tobytes() == expected.ids.tobytes()
    assert found[0].values.tobytes() == expected.values.tobytes()
    others = {int(mark.name.partition("-")[2]) for mark in tmp_path.glob("2-*")} - {killed}
    assert others != set()  # it was computed again


def test_an_index_and_a_fit_of_dask_are_those_of_one_process(client, calculator, model, tmp_path):
    shards = split(program.arrays(), 3, BATCH)
    build_index_in_shards(calculator, shards, tmp_path / "dask", client, part_size=8)
    build_index_in_shards(calculator, shards, tmp_path / "here", part_size=8)
    files = [
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("dask", "here")
    ]
    assert len(files[0]) == 1 + 9
    assert files[0] == files[1]
    settings = {"damping": 0.1, "seed": 0}
    paths = [
        fit_in_shards("ekfac", model, shards, executor, **settings).save(tmp_path / name)
        for name, executor in (("dask.npz", client), ("here.npz", None))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_data_that_cannot_be_sent_are_told_of(client, calculator):
    with pytest.raises(ShardError, match="pass data as arrays, paths or functions"):
        score_in_shards(calculator, split(program.train_set(), 2), client, retries=0)


def test_a_pool_that_loses_a_worker_says_so_and_another_goes_on(calculator, tmp_path):
    marks, kept = tmp_path / "marks", tmp_path / "kept"
    marks.mkdir()
    expected = calculator.score(program.train_set(), verbose=0)
    shards = program.slow_shards(marks, 6, pause=0.3)
    spawn = multiprocessing.get_context("spawn")

    def kill_a_worker() -> None:
        while not list(marks.glob("2-*")):
            time.sleep(0.01)
        (mark,) = marks.glob("2-*")
        os.kill(int(mark.name.partition("-")[2]), signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    with (
        ProcessPoolExecutor(2, mp_context=spawn) as pool,
        pytest.raises(ShardError, match="ProcessPoolExecutor, which lost task.*BrokenProcessPool"),
    ):
        score_in_shards(calculator, shards, pool, kept)
    killer.join()
    left = {file.name for file in kept.iterdir() if file.is_file()}
    assert 0 < len(left) < len(shards)
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        found = score_in_shards(calculator, shards, pool, kept)
    assert found.values.tobytes() == expected.values.tobytes()
    assert left < {file.name for file in kept.iterdir()}
