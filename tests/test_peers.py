"""The comparison with other libraries: its references, what it lets pass, and its page."""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / "peers"
MODULES = ("numpy_networks", "numpy_convolutions", "problems", "references", "agreement")

FAKE = """
import json, os, sys, time
import numpy as np
library, function, problem, folder, out = sys.argv[1:6]
if library == "traker":
    time.sleep(60)
if library == "dattri":
    sys.exit("no such thing")
scores = np.array([1.0, 2.0]) if library != "captum" else np.array([1.0, 2.5])
measured = {"setup": 0.0, "cold": 2.0, "warm": 1.0, "repeats": 5, "memory_mb": 10.0}
if library == "deel_influence":
    measured["warm"] = 0.25
elif os.environ.get("OMP_NUM_THREADS") == "1":
    measured["warm"] = 0.75
elif "OMP_NUM_THREADS" in os.environ:
    measured["warm"] = 4.0
np.savez(out, measured=json.dumps({**measured, "version": "9"}), scores=scores)
"""


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the comparison."""
    monkeypatch.syspath_prepend(str(PEERS))
    names = (*MODULES, "works", "run", "peers_page")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def runner(peers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The runner with one work, and a program in place of all libraries."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE, encoding="utf-8")
    work = peers.works.Work(
        "norms",
        "norms of something",
        "mlp",
        "norms",
        "norms_mlp",
        "relative",
        bound=0.1,
        reason="a reason",
        empty={"kronfluence": "it cannot"},
    )
    for module in (peers.works, peers.run):
        monkeypatch.setattr(module, "WORKS", (work,))
    monkeypatch.setattr(peers.run, "load_problem", lambda *_: None)
    reference = {"scores": np.array([1.0, 2.0])}
    monkeypatch.setattr(peers.run, "load_reference", lambda *_: reference)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{peers.peers_page.BEGIN}\nstale\n{peers.peers_page.END}\nafter\n")

    def run(*argv: str) -> tuple[dict[str, Any], str]:
        out = tmp_path / "peers.json"
        peers.run.main(
            [*argv, "--out", str(out), "--page", str(page), "--limit", "10"],
            lambda _: [sys.executable, str(script)],
        )
        return json.loads(out.read_text()), page.read_text()

    return run


def test_a_wrong_result_a_stopped_and_a_failed_process_have_no_time(runner):
    result, page = runner()
    cells = result["cells"]["norms"]
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "deel_influence": "measured",
        "captum": "wrong",
        "dattri": "failed",
        "pydvl": "measured",
        "traker": "stopped",
    }
    assert not {"warm", "cold"} & {key for name in ("captum", "dattri") for key in cells[name]}
    told = "0.25 (2.00) | refused: 0.224 | failed |  | 1.00 (2.00) | stopped after 10 s | 4.00"
    assert f"| norms of something | mlp | {told} |" in page
    assert "kronfluence: it cannot; dattri failed: `no such thing`" in page
    assert "stale" not in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")


def test_merging_keeps_what_was_not_run_again(runner):
    first, _ = runner("--only", "deel_influence", "captum")
    assert set(first["cells"]["norms"]) == {"deel_influence", "captum"}
    second, page = runner("--only", "pydvl", "--merge")
    assert second["cells"]["norms"] == {
        **first["cells"]["norms"],
        "pydvl": second["cells"]["norms"]["pydvl"],
    }
    assert "refused" in page
    third, _ = runner("--only", "pydvl")
    assert set(third["cells"]["norms"]) == {"pydvl"}


def test_of_two_numbers_of_threads_the_faster_is_kept(runner, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runner("--only", "deel_influence", "pydvl")
    for threads, expected in (("3", (1.0, None)), ("1", (0.75, 1)), ("2", (0.75, 1))):
        result, page = runner("--faster", "--threads", threads, "--only", "pydvl")
        cells = result["cells"]["norms"]
        assert (cells["pydvl"]["warm"], cells["pydvl"]["threads"]) == expected
        assert cells["deel_influence"]["threads"] is None
    assert "--only pydvl --faster --threads 3; python benchmarks/peers/run.py" in page


def test_a_first_call_is_compared_with_a_first_call(peers):
    ours = {"status": "measured", "cold": 4.0, "warm": 1.0}
    once = {"status": "measured", "cold": 20.0, "warm": None}
    assert peers.peers_page.ratio({"deel_influence": ours, "captum": once}) == 5.0
    again = {"status": "measured", "cold": 3.0, "warm": 2.0}
    cells = {"deel_influence": ours, "captum": once, "pydvl": again, "traker": {"status": "wrong"}}
    assert peers.peers_page.ratio(cells) == 2.0
    assert peers.peers_page.ratio({"captum": once}) is None


def test_what_is_no_work_and_no_library_is_refused(peers):
    with pytest.raises(ValueError, match=r"^Argument `--only` must name .* Received: nothing\.$"):
        peers.works.chosen(["nothing", "cg"])
    found = peers.works.chosen(["cg", "captum", "pydvl"])
    assert [(work.name, library) for work, library in found] == [("cg", "pydvl")]


def test_a_missing_environment_is_asked_for(peers, tmp_path):
    argv = ["--only", "cg", "--peers", str(tmp_path / "python")]
    with pytest.raises(FileNotFoundError, match="^Argument `--peers` must be a Python"):
        peers.run.main(argv)


def test_every_library_has_a_function_for_every_work_that_it_does(peers):
    for library in peers.works.LIBRARIES:
        tree = ast.parse((PEERS / f"with_{library}.py").read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        asked = {work.function for work in peers.works.WORKS if library in work.libraries}
        assert asked <= functions
        done = {name for name in functions if name in {w.function for w in peers.works.WORKS}}
        assert done == asked


def test_every_work_has_a_problem_a_reference_and_a_measure(peers):
    for work in peers.works.WORKS:
        assert work.problem in peers.problems.TITLES
        assert callable(getattr(peers.references, work.reference))
        assert work.measure in peers.agreement.MEASURES
        assert work.reason


def test_the_page_holds_the_tables_that_the_measurements_make(peers):
    result = peers.peers_page.read_result()
    assert peers.peers_page.part_on_page() == peers.peers_page.markdown(result)
    assert set(result["works"]) == {work.name for work in peers.works.WORKS}


def differences(function, at, step=1e-6):
    """Central differences of a function of a vector, shape ``(p,)``."""
    units = step * np.eye(len(at))
    return np.array([(function(at + u) - function(at - u)) / (2 * step) for u in units])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_and_products_of_dense_networks_are_those_of_differences(peers, activation):
    nets, generator = peers.numpy_networks, np.random.default_rng(0)
    drawn = nets.draw_layers((4, 5, 3), generator)
    layers = [(kernel, generator.normal(size=bias.shape)) for kernel, bias in drawn]
    x, y = generator.normal(size=(6, 4)), generator.integers(0, 3, 6)
    flat = nets.flat(layers)

    def loss(vector):
        logits = nets.forward(nets.unflat(vector, layers), x, activation)[1]
        return nets.losses(logits, y)

    def gradient(vector):
        return nets.mean_gradient(nets.unflat(vector, layers), x, y, activation)

    # Central differences err by the square of the step and by rounding over the step: 1e-9 or so.
    rows = nets.rows_of_gradients(layers, x, y, activation)
    np.testing.assert_allclose(rows.T, differences(loss, flat), atol=1e-7)
    vector = generator.normal(size=flat.size)
    product = nets.hessian_product(layers, x, y, activation, vector)
    np.testing.assert_allclose(product, differences(gradient, flat) @ vector, atol=1e-6)


def test_slopes_of_the_margin_are_those_of_differences(peers):
    nets, logits = peers.numpy_networks, np.random.default_rng(0).normal(size=4)

    def margin(row):
        probability = nets.softmax(row[None])[0, 2]
        return np.log(probability / (1 - probability))

    found = nets.margin_slopes(logits[None], np.array([2]))[0]
    np.testing.assert_allclose(found, differences(margin, logits), atol=1e-7)


@pytest.mark.parametrize("side", [6, 7])
def test_gradients_of_convolutions_are_those_of_differences(peers, side):
    generator, convolutions = np.random.default_rng(0), peers.numpy_convolutions
    shapes = [(3, 3, 1, 2), (2,), (3, 3, 2, 2), (2,), (2, 3), (3,)]
    parts = [generator.normal(size=shape) for shape in shapes]
    x, y = generator.normal(size=(3, side, side, 1)), np.array([0, 2, 1])
    ends = np.cumsum([part.size for part in parts])[:-1]

    def gradients(vector):
        arrays = [v.reshape(s) for v, s in zip(np.split(vector, ends), shapes, strict=True)]
        layers = list(zip(arrays[::2], arrays[1::2], strict=True))
        return convolutions.gradients(layers, (1, 2), x, y)

    flat = np.concatenate([part.ravel() for part in parts])
    rows = [part.reshape(3, -1) for part in gradients(flat)[1]]
    # They come from the last layer to the first.
    rows = np.concatenate([rows[i] for i in (4, 5, 2, 3, 0, 1)], axis=1)
    np.testing.assert_allclose(rows.T, differences(lambda v: gradients(v)[0], flat), atol=1e-6)


def test_convolutions_pad_as_keras_does(peers):
    generator = np.random.default_rng(0)
    image, kernel = generator.normal(size=(2, 6, 6, 1)), generator.normal(size=(3, 3, 1, 2))
    layer = keras.layers.Conv2D(2, 3, 2, "same", dtype="float64")
    layer.build(image.shape)
    layer.set_weights([kernel, np.zeros(2)])
    found = peers.numpy_convolutions.patches(image, 2) @ kernel.reshape(9, 2)
    np.testing.assert_allclose(found.reshape(2, 3, 3, 2), layer(image), atol=1e-12)


def test_largest_eigenpairs_are_those_of_the_dense_matrix(peers):
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(40, 40)))[0]
    values = np.concatenate([[9.0, -8.0, 7.0], np.linspace(-1, 1, 37)])
    matrix = basis * values @ basis.T
    found, vectors = peers.references.largest_eigenpairs(lambda v: matrix @ v, 40, 3, 30)
    np.testing.assert_allclose(found, values[:3], rtol=1e-9)
    np.testing.assert_allclose(np.abs((vectors * basis[:, :3]).sum(axis=0)), 1, rtol=1e-9)
    with pytest.raises(ArithmeticError, match="take more"):
        peers.references.largest_eigenpairs(lambda v: matrix @ v, 40, 3, 4)


def test_shapley_values_are_the_mean_over_all_orders(peers):
    same, k = [True, False, True, True, False], 2

    def worth(members):
        return sum(same[i] for i in sorted(members)[:k]) / k

    values = np.zeros(5)
    orders = list(itertools.permutations(range(5)))
    for order in orders:
        for place, point in enumerate(order):
            values[point] += worth(order[: place + 1]) - worth(order[:place])
    found = peers.references.shapley_of_sorted(same, k)
    np.testing.assert_allclose(found, values / len(orders), atol=1e-12)


def test_the_exact_last_layer_is_that_of_differences_of_the_gradient(peers, monkeypatch):
    problem, damping = small_problem(peers), 0.5
    monkeypatch.setattr(peers.references, "HEAD_DAMPING", damping)
    nets, layers = peers.numpy_networks, peers.references.double(problem)
    start = sum(part.size for layer in layers[:-1] for part in layer)
    flat = nets.flat(layers)

    def gradient(tail):
        made = nets.unflat(np.concatenate([flat[:start], tail]), layers)
        return nets.mean_gradient(made, problem.x, problem.y, "tanh")[start:]

    hessian = differences(gradient, flat[start:]) + damping * np.eye(flat.size - start)
    train, asked = (
        nets.rows_of_gradients(layers, *data, "tanh")[:, start:]
        for data in ((problem.x, problem.y), (problem.queries, problem.query_labels))
    )
    expected = asked @ np.linalg.solve(hessian, train.T)
    found = peers.references.exact_head(problem)["scores"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def small_problem(peers: SimpleNamespace):
    """A problem of few examples, for references that are computed the slow way."""
    generator = np.random.default_rng(0)
    arrays = {"x": generator.normal(size=(12, 4)), "y": generator.integers(0, 3, 12)}
    arrays |= {"queries": generator.normal(size=(3, 4)), "query_labels": np.array([0, 1, 2])}
    for i, (kernel, bias) in enumerate(peers.numpy_networks.draw_layers((4, 5, 3), generator)):
        arrays |= {f"kernel{i}": kernel, f"bias{i}": bias}
    return peers.problems.Problem("small", "a small one", "tanh", arrays)


def test_ekfac_is_that_of_dense_blocks(peers, monkeypatch):
    problem, damping = small_problem(peers), 0.1
    monkeypatch.setattr(peers.references, "EKFAC_DAMPING", damping)
    nets, layers = peers.numpy_networks, peers.references.double(problem)
    pi = nets.softmax(nets.forward(layers, problem.x, "tanh")[1])
    labels = [np.full(12, c) for c in range(3)]
    passes = [peers.references.passes(problem, problem.x, y) for y in labels]
    total = np.zeros((3, 12))
    for i in range(2):
        inputs = passes[0][i][0]
        _, of_inputs = np.linalg.eigh(inputs.T @ inputs)
        deltas = [p[i][1] for p in passes]
        weighted = sum((d * w[:, None]).T @ d for d, w in zip(deltas, pi.T, strict=True))
        basis = np.kron(of_inputs, np.linalg.eigh(weighted)[1])
        rows = [np.einsum("ni,no->nio", *p[i]).reshape(12, -1) @ basis for p in passes]
        values = sum((w[:, None] * r**2).sum(axis=0) for w, r in zip(pi.T, rows, strict=True)) / 12
        train, asked = (
            np.einsum("ni,no->nio", *peers.references.passes(problem, *data)[i])
            for data in ((problem.x, problem.y), (problem.queries, problem.query_labels))
        )
        train, asked = (g.reshape(len(g), -1) @ basis for g in (train, asked))
        total += asked / (values + damping) @ train.T
    np.testing.assert_allclose(peers.references.ekfac_pairs(problem)["scores"], total, rtol=1e-9)


def test_a_residual_is_that_of_the_damped_hessian(peers, monkeypatch):
    problem, nets = small_problem(peers), peers.numpy_networks
    monkeypatch.setattr(peers.agreement, "CG_DAMPING", 2.0)
    layers, gradients = peers.references.double(problem), peers.references.cg(problem)["gradients"]
    data = (problem.x, problem.y, "tanh")
    units = np.eye(gradients.shape[1])
    hessian = np.array([nets.hessian_product(layers, *data, unit) for unit in units])
    solutions = np.linalg.solve(hessian + 2.0 * units, gradients.T).T
    residual = peers.agreement.MEASURES["residual"].of
    reference = {"gradients": gradients}
    assert residual({"solutions": solutions}, reference, problem) < 1e-12
    assert residual({"solutions": 1.5 * solutions}, reference, problem) == pytest.approx(0.5)


def test_a_result_of_another_shape_or_without_numbers_is_wrong(peers):
    measures = peers.agreement.MEASURES
    reference = {"scores": np.arange(6.0).reshape(2, 3)}
    wrong = {"scores": np.arange(6.0).reshape(3, 2)}
    assert not measures["relative"].holds(measures["relative"].of(wrong, reference, None), 1e9)
    assert not measures["pearson"].holds(measures["pearson"].of(wrong, reference, None), -1.0)
    assert not measures["relative"].holds(float("nan"), 1.0)


def test_examples_that_are_not_the_best_are_found_out(peers):
    scores = np.array([[5.0, 4.0, 1.0, 3.0]])
    reference = {"all": scores, "scores": np.array([[5.0, 4.0]])}
    best = peers.agreement.MEASURES["best"]
    right = {"scores": np.array([[5.0, 4.0]]), "ids": np.array([[0, 1]])}
    other = {"scores": np.array([[5.0, 4.0]]), "ids": np.array([[0, 3]])}
    assert best.of(right, reference, None) == 0
    assert best.of(other, reference, None) > 0.1
