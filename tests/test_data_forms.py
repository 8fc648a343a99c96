"""Every form of data, with every kind of id, through every way of asking."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from deel_influence.common import InfluenceModel
from deel_influence.datasets import load_source
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.report import run_triage, write_report

layers = keras.layers
N, M = 9, 4
NAMES = [f"mail-{i}" for i in range(N)]
generator = np.random.default_rng(0)
X, Y = generator.normal(size=(N, 3)).astype("float32"), np.arange(N) % 2
COLUMNS = {name: X[:, i] for i, name in enumerate("abc")}
FRAME = pd.DataFrame(X, columns=list("abc"))
TEXTS = np.array([f"{'good' if i % 2 else 'bad'} film {i}" for i in range(N)])


def compiled(*stack) -> keras.Model:
    return with_loss(keras.Sequential(list(stack)))


def with_loss(model: keras.Model) -> keras.Model:
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def of_rows() -> keras.Model:
    return compiled(keras.Input((3,)), layers.Dense(2))


def of_columns() -> keras.Model:
    inputs = {name: keras.Input((1,), name=name) for name in "abc"}
    return with_loss(
        keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(list(inputs.values()))))
    )


def of_texts() -> keras.Model:
    vectorize = layers.TextVectorization(max_tokens=20, output_mode="tf_idf")
    vectorize.adapt(TEXTS)
    return compiled(keras.Input((), dtype="string"), vectorize, layers.Dense(2))


def of_images(num_classes: int = 2) -> keras.Model:
    scale = layers.Rescaling(1 / 255)
    return compiled(keras.Input((8, 8, 1)), scale, layers.Flatten(), layers.Dense(num_classes))


class InBatches(keras.utils.PyDataset):
    def __len__(self):
        return -(-N // 4)

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def generated():
    batches = InBatches()
    yield from (batches[i] for i in range(len(batches)))


def hugging_face():
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()})


def written(frame, path, **options):
    (frame.to_csv if path.suffix == ".csv" else frame.to_parquet)(path, **options)
    return path


def image_folder(folder):
    for i in range(N):
        path = folder / "images" / f"class {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 1), dtype=np.uint8)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    return folder / "images"


def npz_of_texts(folder):
    np.savez(folder / "texts.npz", x=TEXTS, y=["ham", "spam"] * 4 + ["ham"], ids=NAMES)
    return folder / "texts.npz"


# How the model is made, how the data are, and the ids that they have; None for positions.
FORMS = {
    "arrays": (of_rows, lambda _: (X, Y), None),
    "dict of arrays": (of_columns, lambda _: (COLUMNS, Y), None),
    "data frame": (of_rows, lambda _: (FRAME, pd.Series(Y)), None),
    "data frame of columns": (of_columns, lambda _: (FRAME, Y), None),
    "data frame by number": (of_rows, lambda _: (FRAME.set_axis(range(70, 79)), Y), range(70, 79)),
    "data frame by name": (of_rows, lambda _: (FRAME.set_axis(NAMES), Y), NAMES),
    "PyDataset": (of_rows, lambda _: InBatches(), None),
    "generator": (of_rows, lambda _: generated, None),
    "tf.data": (of_rows, lambda _: tf.data.Dataset.from_tensor_slices((X, Y)).batch(4), None),
    "Hugging Face": (of_rows, lambda _: hugging_face(), None),
    "CSV": (
        of_rows,
        lambda folder: load_source(
            written(FRAME.assign(label=Y, id=NAMES), folder / "data.csv", index=False), 4
        ),
        NAMES,
    ),
    "Parquet": (
        of_columns,
        lambda folder: load_source(
            written(FRAME.assign(label=Y), folder / "data.parquet"), 4, model=of_columns()
        ),
        None,
    ),
    "image folder": (
        of_images,
        lambda folder: load_source(image_folder(folder), 4, (8, 8, 1)),
        [f"class {k}/{i}.png" for k in (0, 1) for i in range(k, N, 2)],
    ),
    "npz with texts": (of_texts, lambda folder: load_source(npz_of_texts(folder), 4), NAMES),
    "digits": (lambda: of_images(10), lambda _: load_source("tfds:digits:train[:9]", 4), None),
}


@pytest.fixture(scope="module", params=FORMS)
def case(request, tmp_path_factory):
    make_model, make_data, ids = FORMS[request.param]
    keras.utils.set_random_seed(0)
    model = InfluenceModel(make_model())
    data = make_data(tmp_path_factory.mktemp("data"))
    calculator = FirstOrderInfluenceCalculator(model, data, "identity")
    return calculator, data, list(range(N) if ids is None else ids)


@pytest.fixture(scope="module")
def scores(case):
    calculator, data, _ = case
    return calculator.score(data, verbose=0)


def test_scores(case, scores):
    assert scores.ids.tolist() == case[2]
    assert np.isfinite(scores.values).all()
    assert len(np.unique(scores.values)) > 1


def test_the_influence_matrix(case, scores):
    calculator, data, ids = case
    values, _, found = calculator.influence_matrix(data, data, return_ids=True, verbose=0)
    assert found.tolist() == ids
    np.testing.assert_allclose(np.diag(values), scores.values, rtol=1e-4)


def test_top_k(case):
    calculator, data, ids = case
    matrix = calculator.influence_matrix(data, data, verbose=0)
    found = [part.numpy() for *_, part in calculator.top_k(data, data, k=2, return_ids=True)]
    names = np.concatenate(found)
    names = names.astype(str) if names.dtype == object else names
    places = {name: place for place, name in enumerate(ids)}
    chosen = np.array([[places[name] for name in row] for row in names.tolist()])
    best = -np.sort(-matrix, axis=1)[:, :2]
    np.testing.assert_allclose(np.take_along_axis(matrix, chosen, axis=1), best, rtol=1e-4)


def test_predicted_changes_of_the_loss(case):
    calculator, data, _ = case
    changes = calculator.predict_loss_change(data, data, verbose=0)
    expected = calculator.influence_matrix(data, data, verbose=0) / N
    np.testing.assert_allclose(changes, expected, rtol=1e-4, atol=1e-7)


def test_triage_and_its_page(case, scores, tmp_path):
    calculator, data, ids = case
    triage = run_triage(calculator.model, calculator, data, verbose=0)
    assert triage.ids.tolist() == ids
    np.testing.assert_allclose(triage.scores, scores.values, rtol=1e-5)
    triage.to_parquet(tmp_path / "scores.parquet")
    assert type(triage).from_parquet(tmp_path / "scores.parquet").ids.tolist() == ids
    page = write_report(tmp_path, triage, data, {"Data": {"source": "test"}}, top=3)
    shown = page.read_text(encoding="utf-8")
    for position in triage.most_suspicious(3):
        assert str(ids[position]) in shown


def test_content_names_examples_of_every_form(case):
    calculator, data, _ = case
    ids = calculator.score(data, id_fn="content", verbose=0).ids
    assert len(set(ids)) == N
    assert all(len(name) == 16 for name in ids)
