"""A script for Influenciae runs after two replacements, and every row of the page holds."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NoGradientWarning, NotBatchedError
from deel_influence.influence import ArnoldiInfluenceCalculator, FirstOrderInfluenceCalculator
from deel_influence.model import InfluenceModel
from tests.migration_claims import CLAIMS

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "migration.md").read_text(encoding="utf-8")

SCRIPT = """
import numpy as np
import tensorflow as tf
from deel.influenciae.common import InfluenceModel, ExactIHVP, ExactIHVPFactory
from deel.influenciae.influence import FirstOrderInfluenceCalculator
from deel.influenciae.influence import SecondOrderInfluenceCalculator
from deel.influenciae.rps import RepresenterPointLJE
from deel.influenciae.trac_in import TracIn
from deel.influenciae.boundary_based import SampleBoundaryCalculator
from deel.influenciae.plots import plot_most_influential_images
from deel.influenciae.utils import ORDER

x = np.random.default_rng(0).normal(size=(60, 8, 8, 1)).astype("float32")
y = tf.one_hot(np.arange(60) % 3, 3).numpy()
train_dataset = tf.data.Dataset.from_tensor_slices((x[:48], y[:48])).batch(16)
samples_to_explain = tf.data.Dataset.from_tensor_slices((x[48:], y[48:])).batch(6)
model = tf.keras.Sequential([
    tf.keras.layers.Input((8, 8, 1)), tf.keras.layers.Conv2D(4, 3, activation="relu"),
    tf.keras.layers.Flatten(), tf.keras.layers.Dense(3, use_bias=False)])
loss_function = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=Reduction.NONE)
model.compile("adam", loss=loss_function)
model.fit(train_dataset, epochs=2, shuffle=False, verbose=0)

influence_model = InfluenceModel(model, start_layer=-1, loss_function=loss_function)
ihvp_calculator = ExactIHVP(influence_model, train_dataset)
calculator = FirstOrderInfluenceCalculator(influence_model, train_dataset, ihvp_calculator)
for (samples, labels), influence in calculator.compute_influence_values(train_dataset):
    self_influence = influence
top, values = calculator.compute_top_k_from_training_dataset(train_dataset, 4, ORDER.DESCENDING)
scores = calculator.estimate_influence_values_in_batches(samples_to_explain, train_dataset)
for batch, scored in scores:
    pairwise = [values for (train_samples, train_labels), values in scored]
for batch, k_values, k_samples in calculator.top_k(samples_to_explain, train_dataset, k=5):
    shape = k_samples.shape
second = SecondOrderInfluenceCalculator(influence_model, train_dataset, ihvp_calculator)
on_others = second.estimate_influence_values_group(train_dataset.take(1), samples_to_explain)
on_itself = second.estimate_influence_values_group(train_dataset.take(1))
traced = TracIn([influence_model], [0.01]).compute_influence_values(train_dataset)
points = RepresenterPointLJE(influence_model, train_dataset, ExactIHVPFactory(), 25)
explained = next(iter(points.top_k(samples_to_explain, train_dataset, k=2)))
boundary = SampleBoundaryCalculator(model).compute_influence_values(train_dataset)
lists = [next(iter(dataset)) for dataset in (traced, boundary)]
"""

RENAMED = (("deel.influenciae", "deel_influence"), ("Reduction.NONE", '"none"'))


def migrated(script: str) -> str:
    for before, after in RENAMED:
        script = script.replace(before, after)
    return script


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """What the script leaves behind."""
    space: dict[str, object] = {}
    exec(compile(migrated(SCRIPT), "script.py", "exec", dont_inherit=True), space)
    return space


def test_the_script_runs_after_the_two_replacements(names):
    assert names["self_influence"].shape == (16,)
    assert names["top"].shape == (4, 8, 8, 1)
    assert [part.shape for part in names["pairwise"]] == [(6, 16)] * 3
    assert names["k_samples"].shape == (6, 5, 8, 8, 1)
    assert float(names["on_itself"]) != 0
    assert names["on_others"].shape == ()
    assert [scores.shape for _, scores in names["lists"]] == [(16,), (16,)]
    assert names["explained"][1].shape == (6, 2)
    assert not hasattr(keras.losses, "Reduction")


def table_rows(section: str) -> list[list[str]]:
    """Return the cells of the tables under a heading of the page, without their first lines."""
    text = re.split(rf"^#+ {re.escape(section)}$", PAGE, flags=re.M)[1]
    text = re.split(r"^#+ ", text, flags=re.M)[0]
    lines = re.findall(r"^\| ?(.*?) ?\|$", text, flags=re.M)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def spans(cell: str) -> list[str]:
    """Return what stands in a cell as code."""
    return re.findall(r"`([^`]+)`", cell)


CALLS = """
InfluenceModel(model, -1, None, loss)
BaseInfluenceModel(model, model.layers[-1].weights, loss)
isinstance(ihvp_calculator, InverseHessianVectorProduct)
ExactIHVP(influence_model, train_dataset)
FirstOrderInfluenceCalculator(influence_model, train_dataset, IHVPCalculator.Exact, 25, 25, True)
ForwardOverBackwardHVP(influence_model, train_dataset, influence_model.weights)
ConjugateGradientDescentIHVP(influence_model, -1, train_dataset, 20, None)
LissaIHVP(influence_model, -1, train_dataset, 20, None, 1e-3, 10.0)
isinstance(ExactIHVPFactory().build(influence_model, train_dataset), ExactIHVP)
issubclass(ExactIHVPFactory, InverseHessianVectorProductFactory)
CGDIHVPFactory(-1, 20, None).build(influence_model, train_dataset)
LissaIHVPFactory(-1, 20, None, 1e-3, 10.0).build(influence_model, train_dataset)
isinstance(calculator, SelfInfluenceCalculator)
isinstance(calculator, BaseInfluenceCalculator)
list(calculator.estimate_influence_values_in_batches(queries, train_dataset, CACHE.MEMORY))
calculator.estimate_influence_values_group(train_dataset.take(2), queries)
isinstance(calculator, BaseGroupInfluenceCalculator)
SecondOrderInfluenceCalculator(influence_model, train_dataset, "exact", 25, 25)
ArnoldiInfluenceCalculator(influence_model, train_dataset, 10, True, 5, tf.float32)
issubclass(RepresenterPointL2, BaseRepresenterPoint)
RepresenterPointL2(model, train_dataset, loss, 0.1, 0.1, 100)
RepresenterPointLJE(influence_model, train_dataset, ExactIHVPFactory(), 25, -1, 25)
TracIn([influence_model, influence_model], [0.1, 0.2]).score(train_dataset)
SampleBoundaryCalculator(model, 20, 1e-6).compute_influence_values(train_dataset)
WeightsBoundaryCalculator(model, 20, 2, 1e-6).compute_influence_values(train_dataset)
plot_most_influential_images((images, np.ones(4)), 2, 1.0)
plot_datacentric_explanations(images[0], (images, np.ones(4)), 2, 1.0)
callable(BenchmarkDisplay.plot_bench_from_path)
issubclass(Cifar10TrainingProcedure, BaseTrainingProcedure)
MislabelingDetectorEvaluator(single, single, Cifar10TrainingProcedure(), 3, 0.1, 16, 16, 16)
ModelsSaver([0], keras.optimizers.SGD(0.1))
Cifar10TrainingProcedure(2, "resnet", True, False, False, [0, 1], False, False)
Cifar10MislabelingDetectorEvaluator(2, "resnet", 0.1, True, False, False, 16, data=(single, single))
ResNet((8, 8, 1), 3, repetitions=(1,), initial_filters=2)
issubclass(FirstOrderFactory, InfluenceCalculatorFactory)
FirstOrderFactory("cgd", -1, -1, 100, -1, loss).build(train_dataset, model)
RPSLJEFactory("cgd", -1, -1, 100, -1, loss).build(train_dataset, model)
RPSL2Factory(loss, 0.1, 0.1, -2, 100).build(train_dataset, model)
TracInFactory(loss).build(train_dataset, model, ([model], [0.1]))
WeightsBoundaryCalculatorFactory(20, 2).build(train_dataset, model)
SampleBoundaryCalculatorFactory(20).build(train_dataset, model)
ArnoldiCalculatorFactory(10, True, 5, -1, -1, loss, tf.float32).build(train_dataset, model)
calculator.compute_top_k_from_training_dataset(train_dataset, 3, ORDER.ASCENDING)
array_to_dataset((x, y), 16, True, 64)
BatchSort(1, 3, ORDER.DESCENDING)
isinstance(LinearNearestNeighbors(), BaseNearestNeighbors)
"""
"""What a script of 0.3.0 writes with each name, arguments in its order."""

NAMES = [
    (name, spans(package)[0]) for names, package, _ in table_rows("Names") for name in spans(names)
]

SETUP = """
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
images = np.random.default_rng(0).uniform(size=(4, 8, 8, 1))
single = train_dataset.unbatch()
exact = ExactIHVP(influence_model, train_dataset, damping=0.1)
"""


@pytest.fixture(scope="module")
def page_names() -> dict[str, Any]:
    """What the Python blocks of the page leave behind."""
    space: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
    for package in {package for _, package in NAMES}:
        library = importlib.import_module(f"deel_influence.{package}")
        space.update((name, getattr(library, name)) for name in library.__all__)
    for code in [*blocks, SETUP]:
        exec(compile(code, "migration.md", "exec", dont_inherit=True), space)
    return space


@pytest.mark.parametrize(("name", "package"), NAMES, ids=[name for name, _ in NAMES])
@pytest.mark.filterwarnings("ignore::deel_influence.errors.ConvergenceWarning")
def test_every_name_is_exported_and_taken_as_it_was(name, package, page_names):
    assert name in importlib.import_module(f"deel_influence.{package}").__all__
    lines = [line for line in CALLS.splitlines() if re.search(rf"\b{name}\b", line)]
    assert lines
    for line in lines:
        assert eval(line, page_names) not in (None, False)


TO_WRITE = [
    (section, old, new)
    for section in ("Names that are gone", "Attributes", "Calls", "Calculators of one's own")
    for old, new in table_rows(section)
]
NO_LINE = re.compile(r"\([a-z, ]*\)|\.\w+|\"\w+\"|[a-z_]+|TypeError")
"""Shapes, attributes of something, strings, arguments."""


@pytest.mark.parametrize(("section", "old", "new"), TO_WRITE, ids=[old for _, old, _ in TO_WRITE])
@pytest.mark.filterwarnings("ignore::deel_influence.errors.ConvergenceWarning")
def test_the_lines_to_write_instead_run(section, old, new, page_names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [span for span in spans(new) if not NO_LINE.fullmatch(span) or span in page_names]
    assert lines or new.startswith("nothing: ")
    for line in lines:
        exec(line, page_names)


@pytest.mark.parametrize("section", CLAIMS)
def test_every_row_of_the_tables_of_differences_has_a_test(section, page_names):
    rows = {first or second for first, second, _ in table_rows(section)}
    assert rows == set(CLAIMS[section])
    for claim in CLAIMS[section].values():
        file, _, test = claim.partition("::")
        if test:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in ast.walk(tree) if hasattr(node, "name")}
        else:
            assert eval(claim, page_names)


def test_shapes_are_no_lines_to_run_and_attributes_are():
    assert NO_LINE.fullmatch("(m, n)")
    assert not NO_LINE.fullmatch("calculator.train_dataset")
    assert table_rows("Attributes")[0][0].startswith("`calculator.train_set`")


def test_losses_and_gradients_of_a_dataset_are_those_of_its_batches(page_names):
    model, data = page_names["influence_model"], page_names["train_dataset"]
    rows = model.batch_jacobian(data).numpy()
    assert rows.shape == (64, model.nb_params)
    summed = rows.reshape(4, 16, -1).sum(axis=1)
    np.testing.assert_allclose(model.batch_gradient(data), summed, rtol=1e-4, atol=1e-5)
    batches = [model.batch_loss_tensor(batch) for batch in data]
    for form in (data, (page_names["x"], page_names["y"])):
        np.testing.assert_allclose(model.batch_loss(form), np.concatenate(batches), rtol=1e-5)
    with pytest.raises(NotBatchedError, match="`dataset` must yield batches"):
        model.batch_loss(data.unbatch())


def test_attributes_hold_what_they_held(page_names):
    model, data, strategy = (page_names[n] for n in ("influence_model", "train_dataset", "exact"))
    np.testing.assert_allclose(strategy.inv_hessian, np.linalg.inv(strategy.hessian), rtol=1e-6)
    arnoldi = ArnoldiInfluenceCalculator(model, data, 10, True, 5, seed=0)
    products = (arnoldi.G.numpy().T / arnoldi.eig_vals) @ arnoldi.G.numpy()
    rows = np.eye(model.nb_params, dtype="float32")
    np.testing.assert_allclose(arnoldi.ihvp_calculator.solve(rows), products, rtol=1e-3, atol=1e-4)
    assert page_names["TracIn"]([model, model], 0.1).models == [model, model]


def test_queries_labelled_with_predictions_are_told_of_and_the_remedy_works():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([1e4 * np.eye(3, 2)])
    predicted = model.predict(x, verbose=0).argmax(axis=1)
    train = tf.data.Dataset.from_tensor_slices((x, 1 - predicted)).batch(8)
    queries = tf.data.Dataset.from_tensor_slices((x, predicted)).take(9).batch(8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped = InfluenceModel(model, -1, loss_function=loss)
    of_loss = FirstOrderInfluenceCalculator(wrapped, train, "identity")
    with pytest.warns(NoGradientWarning, match="the model's own prediction.*measurement='logit'"):
        assert not of_loss.influence_matrix(queries, train).any()
    of_logit = FirstOrderInfluenceCalculator(wrapped, train, "identity", measurement="logit")
    assert of_logit.influence_matrix(queries, train).all()
