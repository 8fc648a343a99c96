"""Tables, and layers of one's own, on the command line."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest

TEXTS = ["a good film", "a bad film", "one fine movie", "no plot at all"] * 3
PLAIN = ("--ihvp", "identity")
OWN_LAYER = """
import keras

@keras.saving.register_keras_serializable("own")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

class Plain(keras.layers.Layer):
    def call(self, inputs):
        return inputs
"""


@pytest.fixture
def triage(run, tmp_path):
    def run_triage(model, data, *options):
        out = tmp_path / "out"
        result = run("triage", "--model", model, "--data", data, "--out", out, *options)
        return result, out / "scores.parquet"

    return run_triage


@pytest.fixture
def saved(tmp_path):
    def save(model):
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.save(tmp_path / "model.keras")
        return tmp_path / "model.keras"

    return save


def test_a_table_scores_as_the_arrays_in_it(
    triage, network, arrays, model_path, data_path, tmp_path
):
    x, y = arrays
    names = [f"row-{i}" for i in range(len(x))]
    table = pd.DataFrame(x, columns=list("abcd")).assign(kind=y, key=names)
    table.to_csv(tmp_path / "train.csv", index=False)
    result, path = triage(
        model_path, tmp_path / "train.csv", "--label", "kind", "--id", "key", "--ihvp", "identity"
    )
    assert result.exit_code == 0, result.output
    found = pd.read_parquet(path)
    _, path = triage(model_path, data_path, "--ihvp", "identity")
    expected = pd.read_parquet(path)
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)
    assert found["id"].tolist() == names
    assert found.sort_values("rank")["id"].iloc[0] in result.stdout


def test_texts_of_a_table_go_to_a_text_model(triage, saved, tmp_path):
    vectorize = keras.layers.TextVectorization(max_tokens=20, output_mode="tf_idf")
    vectorize.adapt(TEXTS)
    model = saved(
        keras.Sequential([keras.Input((1,), dtype="string"), vectorize, keras.layers.Dense(2)])
    )
    table = pd.DataFrame({"review": TEXTS, "stars": 3, "label": ["pos", "neg"] * 6})
    table.to_parquet(tmp_path / "reviews.parquet")
    result, path = triage(model, tmp_path / "reviews.parquet", "--text", "review")
    assert result.exit_code == 0, result.output
    assert "pos" in result.stdout
    assert len(pd.read_parquet(path)) == len(TEXTS)


@pytest.mark.parametrize("layer", ["Doubled", "Plain"])
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "module"])
def test_layers_of_ones_own_are_imported(
    triage, saved, data_path, tmp_path, monkeypatch, layer, as_file
):
    name = f"own_layers_{layer.lower()}_{as_file}".lower()
    source = tmp_path / f"{name}.py"
    source.write_text(OWN_LAYER)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": name}
    exec(compile(OWN_LAYER, str(source), "exec"), namespace)
    model = saved(keras.Sequential([keras.Input((4,)), namespace[layer](), keras.layers.Dense(3)]))
    keras.saving.get_custom_objects().clear()
    result, _ = triage(model, data_path)
    assert result.exit_code == 2
    assert f"has a {layer!r} that Keras does not know. Pass --import MODULE" in result.stderr
    result, path = triage(model, data_path, "--import", source if as_file else name)
    assert result.exit_code == 0, result.output
    assert path.is_file()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_such_module", "fails with: ModuleNotFoundError"),
        ("missing.py", "fails with: FileNotFoundError: no such file"),
        ("broken.py", "fails with: ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    triage, model_path, data_path, tmp_path, monkeypatch, module, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0")
    result, _ = triage(model_path, data_path, "--import", module)
    assert result.exit_code == 2
    assert (
        f"--import must name a module that can be imported, or a .py file. Received: {module!r}"
        in (result.stderr)
    )
    assert message in result.stderr


def test_a_column_of_what_has_no_columns_is_refused(triage, model_path, data_path):
    result, _ = triage(model_path, data_path, *PLAIN, "--id", "key")
    assert result.exit_code == 2
    assert "--id names a column of a CSV or Parquet file. Received: --id key" in result.stderr
