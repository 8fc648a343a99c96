"""The CIFAR-10 benchmark, on other images of the same form, and its command line."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.benchmark import (
    Cifar10MislabelingDetectorEvaluator,
    Cifar10TrainingProcedure,
    ResNet,
    benchmark_runner,
    cifar10,
    cifar10_network,
    load_cifar10,
)
from deel_influence.datasets.source import DataSource

N = 40


def fake_data(count: int = N) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Return images whose mean is their class, in a training and a test set."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, size=count)
    x = generator.normal(y[:, None, None, None] / 5 - 1, 0.1, (count, 32, 32, 3))
    dataset = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y))
    return dataset, dataset.take(10)


def small_resnet(*args: object, **settings: object) -> keras.Model:
    model = ResNet(*args, repetitions=(1,), initial_filters=2, **settings)
    # Compiling such a model would take longer than training it.
    model.layers[1].supports_jit = False
    return model


@pytest.fixture(autouse=True)
def _small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "ResNet", small_resnet)


def test_the_default_network_is_the_one_of_20_layers():
    model = ResNet()
    # The paper's table 6 counts 0.27 million.
    assert 0.265e6 < model.count_params() < 0.28e6
    sizes = [tuple(layer.output.shape[1:]) for layer in model.layers if "add" in layer.name]
    assert sizes == [(32, 32, 16)] * 3 + [(16, 16, 32)] * 3 + [(8, 8, 64)] * 3
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert sum(layer.kernel_size == (3, 3) for layer in convolutions) == 19
    assert model.output_shape == (None, 10)


def test_without_its_top_the_network_gives_feature_maps():
    model = ResNet((8, 8, 1), repetitions=(1, 1), initial_filters=4, include_top=False)
    assert model.output_shape == (None, 4, 4, 8)


def test_a_block_adds_its_input_to_what_it_computes():
    model = ResNet((8, 8, 4), repetitions=(1,), initial_filters=4, include_top=False)
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for name in names[1:]:
        model.get_layer(name).kernel.assign(keras.ops.zeros_like(model.get_layer(name).kernel))
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    stem = keras.Model(model.input, model.get_layer(model.layers[3].name).output)
    np.testing.assert_allclose(model(images), stem(images), rtol=1e-6)


@pytest.mark.parametrize("name", ["resnet", "vgg19"])
def test_networks_give_ten_logits_with_or_without_penalties(name):
    penalised, free = cifar10_network(name), cifar10_network(name, use_regularization=False)
    assert penalised.output_shape == free.output_shape == (None, 10)
    assert len(penalised.losses) == len(free.losses) + 2
    assert free.layers[-1].use_bias
    assert not cifar10_network(name, use_bias=False).layers[-1].use_bias


def test_a_model_of_the_user_starts_anew_each_time():
    features = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3, strides=8)])
    networks = [cifar10_network(features) for _ in range(2)]
    kernels = [network.layers[1].kernel for network in networks]
    assert not np.array_equal(*(tf.convert_to_tensor(kernel) for kernel in kernels))


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="'alexnet'"):
        cifar10_network("alexnet")


def test_images_of_tfds_are_scaled_and_come_one_by_one(monkeypatch):
    asked = []

    def fake(name: str, batch_size: int, data_dir: object) -> DataSource:
        asked.append((name, data_dir))
        images = np.array([0, 255], dtype=np.uint8)[:, None, None, None] * np.ones((2, 32, 32, 3))
        batch = (tf.cast(images, tf.uint8), tf.constant([3, 7], tf.int64))
        return DataSource(name, tf.data.Dataset.from_tensor_slices(batch).batch(batch_size))

    monkeypatch.setattr(cifar10, "load_source", fake)
    train, _ = load_cifar10("folder")
    assert asked == [("tfds:cifar10:train", "folder"), ("tfds:cifar10:test", "folder")]
    images, labels = zip(*train, strict=True)
    np.testing.assert_allclose([image.numpy().max() for image in images], [-1.0, 1.0])
    assert [int(label) for label in labels] == [3, 7]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (cifar10.halving_rate, {0: 1e-3, 9: 1e-3, 10: 5e-4, 20: 2.5e-4, 59: 1e-3 / 32}),
        (cifar10.falling_rate, {0: 0.1, 100: 10**-2.5, 200: 1e-4}),
    ],
)
def test_learning_rates_fall_as_documented(rate, expected):
    np.testing.assert_allclose([rate(epoch) for epoch in expected], list(expected.values()))


def moved_images(passes: int) -> np.ndarray:
    """Return what the training sees of one image at several passes, in batches of 16."""
    image = np.arange(32 * 32 * 3, dtype="float32").reshape(32, 32, 3)
    batch = tf.data.Dataset.from_tensors((np.stack([image] * 16), np.zeros(16)))
    keras.utils.set_random_seed(5)
    augmented = Cifar10TrainingProcedure()._augment(batch)
    return np.concatenate([x.numpy() for _ in range(passes) for x, _ in augmented])


def test_augmented_images_are_mirrored_and_shifted_and_differ_from_pass_to_pass():
    image = np.arange(32 * 32 * 3, dtype="float32").reshape(32, 32, 3)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    mirrored = np.pad(image[:, ::-1], ((3, 3), (3, 3), (0, 0)), mode="edge")
    possible = {
        source[i : i + 32, j : j + 32].tobytes()
        for source in (padded, mirrored)
        for i in range(7)
        for j in range(7)
    }
    seen = moved_images(passes=2)
    assert {x.tobytes() for x in seen} <= possible
    assert len({x.tobytes() for x in seen}) > 10
    assert not np.array_equal(seen[:16], seen[16:])
    np.testing.assert_array_equal(seen, moved_images(passes=2))


def test_the_command_line_runs_methods_and_prints_their_areas(tmp_path, capsys):
    arguments = (
        "-method_name tracein arnoldi -epochs 2 -epochs_to_save 0,1 -mislabeling_ratio 0.2 "
        "-take_batch 30 -subspace_dim 4 -k_largest_eig_vals 2 -nbr_of_evaluation 1 "
        f"-use_regu False -force_overfit -path_to_save {tmp_path}"
    )
    results = benchmark_runner.main(arguments.split(), data=fake_data())
    assert [result.curves.shape for result in results.values()] == [(1, 30)] * 2
    assert results["tracein"].runs[0].mislabelled.sum() == 6
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tracein, seed 0: ROC AUC")
    assert lines[-1].startswith("arnoldi: ROC AUC")
    settings = json.loads((tmp_path / "arnoldi" / "results.json").read_text("utf-8"))["settings"]
    told = settings["training_procedure"]["attributes"]
    assert told["use_regu"] is False
    assert told["force_overfit"] is True
    assert told["epochs_to_save"] == [0, 1]


@pytest.mark.parametrize(("word", "value"), [("False", False), ("true", True), ("0", False)])
def test_false_is_false_on_the_command_line(word, value):
    assert benchmark_runner.boolean(word) is value


def test_other_words_are_refused_on_the_command_line(capsys):
    with pytest.raises(SystemExit):
        benchmark_runner.main(["-method_name", "rps_l2", "-use_regu", "maybe"])
    assert "must be true or false" in capsys.readouterr().err


@pytest.mark.parametrize("name", benchmark_runner.FACTORIES)
def test_every_method_of_the_command_line_has_a_factory(name, monkeypatch):
    made = {}

    def note(self, factories, **settings):
        made.update(factories)
        return {}

    monkeypatch.setattr(Cifar10MislabelingDetectorEvaluator, "bench", note)
    arguments = ["-method_name", name, "-epochs_to_save", "0"]
    benchmark_runner.main(arguments, data=fake_data())
    assert list(made) == [name]


def test_flags_of_influenciae_reach_the_factories(monkeypatch):
    made = {}

    def note(self, factories, **settings):
        made.update(factories)
        return {}

    monkeypatch.setattr(Cifar10MislabelingDetectorEvaluator, "bench", note)
    arguments = (
        "-method_name tracin rps_lje rps_l2 boundary_weights arnoldi -epochs_to_save 0 "
        "-ihvp_mode lissa -n_opt_iters 7 -boundary_iter 5 -force_hermitian False -layer_index -2 "
        "-scaling_factor 0.1 -feature_extractor -1 -start_layer -1"
    )
    benchmark_runner.main(arguments.split(), data=fake_data())
    assert made["rps_lje"].ihvp_settings == {"n_opt_iters": 7}
    assert made["boundary_weights"].step_nbr == 5
    assert made["arnoldi"].force_hermitian is False


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ("-method_name rps_l2 tracein", "tracein needs -epochs_to_save"),
        ("-method_name tracein -epochs 3 -epochs_to_save 1,3", "below -epochs, which is 3"),
    ],
)
def test_epochs_that_do_not_fit_are_refused_before_the_data_is_loaded(arguments, match, capsys):
    with pytest.raises(SystemExit):
        benchmark_runner.main(arguments.split())
    assert match in capsys.readouterr().err
