"""Kronecker factors of padded sequences against those of each sequence alone, in float64.

The oracle runs every example by itself, without padding, and differentiates its logits in tensors
of zeros that are added to the outputs of the layers. It knows of no mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.ihvp.ekfac import EKFACIHVP
from deel_influence.ihvp.kfac import KFACIHVP
from deel_influence.ihvp.kronecker import KroneckerIHVP
from deel_influence.model.influence_model import BaseInfluenceModel
from tests.oracles import assert_close
from tests.padded_sequences import LONGEST, SEQUENCE_CASES, N, SequenceCase

layers = keras.layers
pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::deel_influence.errors.LayerRuleWarning"),
]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Sums of some 30 terms in another order, and eigenvectors of matrices with condition numbers of
# some hundreds, in float64.
ROUNDING = 1e-10


@cache
def wrapped(case: SequenceCase) -> BaseInfluenceModel:
    """Return a model that watches its factored layers, with weights that are not small."""
    keras.utils.set_random_seed(2)
    keras_model = case.build()
    generator = np.random.default_rng(3)
    for variable in keras_model.trainable_variables:
        variable.assign(variable.value + 0.3 * generator.normal(size=variable.shape))
    watched = [v for layer in factored_layers(keras_model) for v in (layer.kernel, layer.bias)]
    return BaseInfluenceModel(keras_model, watched, loss_function=LOSS)


def factored_layers(model: keras.Model) -> list[keras.layers.Layer]:
    kinds = (layers.Dense, layers.EinsumDense, layers.Conv1D)
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


@contextmanager
def nudged(layer: keras.layers.Layer, tape: tf.GradientTape, uses: list) -> Iterator[None]:
    """Note a layer's inputs, and tensors of zeros that are added to its outputs."""
    call, activation = layer.call, layer.activation

    def noting(inputs: tf.Tensor, **options: object) -> tf.Tensor:
        uses.append([inputs])
        return call(inputs, **options)

    def added(outputs: tf.Tensor) -> tf.Tensor:
        nudge = tf.zeros_like(outputs)
        tape.watch(nudge)
        uses[-1].append(nudge)
        outputs = outputs + nudge
        return outputs if activation is None else activation(outputs)

    vars(layer).update(call=noting, activation=added)
    try:
        yield
    finally:
        del vars(layer)["call"]
        vars(layer)["activation"] = activation


def patches(layer: keras.layers.Layer, inputs: np.ndarray) -> np.ndarray:
    """Return what each position of a layer sees, ``(t, r)``, a one for the bias at the end."""
    if isinstance(layer, layers.Conv1D):
        (size,) = layer.kernel_size
        around = np.pad(inputs, [(size // 2, size // 2), (0, 0)])
        inputs = np.stack([around[t : t + size].ravel() for t in range(len(inputs))])
    r = int(np.prod(layer.kernel.shape)) // int(np.prod(layer.bias.shape))
    rows = inputs.reshape(-1, r)
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def roots(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return B ``(s, K)`` with ``B Bᵀ`` the Hessian of the loss in logits ``(t, c)``."""
    t, c = logits.shape
    full = np.zeros((t * c, t * c))
    for position, row in enumerate(logits):
        pi = np.exp(row - row.max())
        pi /= pi.sum()
        place = slice(position * c, (position + 1) * c)
        full[place, place] = weights[position] * (np.diag(pi) - np.outer(pi, pi))
    values, vectors = np.linalg.eigh(full)
    return vectors * np.sqrt(np.maximum(values, 0))


@cache
def factors(case: SequenceCase) -> dict[str, list[list[tuple[np.ndarray, np.ndarray]]]]:
    """Return by layer, for each example and use, a ``(t, r)`` and δ ``(K, t, s)``."""
    model = wrapped(case).model
    chosen = factored_layers(model)
    result: dict[str, list] = {layer.path: [] for layer in chosen}
    for x, *rest in case.sequences():
        noted: list[list] = [[] for _ in chosen]
        with tf.GradientTape(persistent=True) as tape:
            with ExitStack() as stack:
                for layer, uses in zip(chosen, noted, strict=True):
                    stack.enter_context(nudged(layer, tape, uses))
                logits = model(x[None])
            flat = tf.reshape(logits, (-1,))
        weights = rest[1] if case.weighted else np.ones(len(x))
        root = roots(np.reshape(logits, (-1, logits.shape[-1])), weights)
        for layer, uses in zip(chosen, noted, strict=True):
            s = int(np.prod(layer.bias.shape))
            rows = []
            for inputs, nudge in uses:
                jacobian = tape.jacobian(flat, nudge, experimental_use_pfor=False)
                delta = root.T @ np.reshape(jacobian, (len(root), -1))
                rows.append((patches(layer, inputs.numpy()[0]), delta.reshape(len(delta), -1, s)))
            result[layer.path].append(rows)
    return result


def kronecker_factors(
    of_layer: list[list[tuple[np.ndarray, np.ndarray]]], approximation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return A and G, the sums over examples, uses, positions and columns of the docstring."""
    examples = [
        (np.concatenate([a for a, _ in uses]), np.concatenate([d for _, d in uses], axis=1))
        for uses in of_layer
    ]
    if approximation == "reduce":
        examples = [(a.mean(0, keepdims=True), d.sum(1, keepdims=True)) for a, d in examples]
    count = sum(len(a) for a, _ in examples)
    inputs = sum(a.T @ a for a, _ in examples) / count
    return inputs, sum(np.einsum("kti,ktj->ij", d, d) for _, d in examples) / N


def corrected(
    of_layer: list[list[tuple[np.ndarray, np.ndarray]]], a: np.ndarray, g: np.ndarray
) -> np.ndarray:
    """Return the layer's curvature with corrected eigenvalues, ``(r·s, r·s)``."""
    basis = np.kron(np.linalg.eigh(a)[1], np.linalg.eigh(g)[1])
    values = np.zeros(len(basis))
    for uses in of_layer:
        gradients = sum(np.einsum("ti,kto->kio", inputs, delta) for inputs, delta in uses)
        values += np.sum((gradients.reshape(len(gradients), -1) @ basis) ** 2, axis=0)
    return basis @ np.diag(values / N) @ basis.T


def fitted(case: SequenceCase, dataset: tf.data.Dataset, kind: type, **options) -> KroneckerIHVP:
    options = {"damping": 0.0, "fisher": "expected", "seed": 0, **options}
    return kind(wrapped(case), dataset, verbose=0, **options)


def layer_block(ihvp: KroneckerIHVP, layer: keras.layers.Layer) -> np.ndarray:
    """Return the curvature of a kernel and its bias, ``(r·s, r·s)``."""
    layout = ihvp.model.layout
    slots = [layout.slots[layout.position(v)] for v in (layer.kernel, layer.bias)]
    entries = np.concatenate([np.arange(*slot) for slot in slots])
    return np.asarray(ihvp.multiply(np.eye(layout.size)))[np.ix_(entries, entries)]


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize("case", SEQUENCE_CASES, ids=lambda case: case.id)
def test_kronecker_factors_of_padded_sequences_are_those_of_the_sequences_alone(
    case, approximation
):
    chosen = factored_layers(wrapped(case).model)
    pairs = [kronecker_factors(factors(case)[layer.path], approximation) for layer in chosen]
    of_kfac = [np.kron(a, g) for a, g in pairs]
    of_ekfac = [
        corrected(factors(case)[layer.path], a, g)
        for layer, (a, g) in zip(chosen, pairs, strict=True)
    ]
    for kind, blocks in ((KFACIHVP, of_kfac), (EKFACIHVP, of_ekfac)):
        ihvp = fitted(case, case.dataset(LONGEST + 4), kind, approximation=approximation)
        found = [layer_block(ihvp, layer).ravel() for layer in chosen]
        # All layers together: under 'reduce' those of attention keys vanish.
        expected = np.concatenate([block.ravel() for block in blocks])
        assert_close(np.concatenate(found), expected, ROUNDING)


def datasets(case: SequenceCase) -> dict[str, tf.data.Dataset]:
    found = {f"padded to {length}": case.dataset(length) for length in (LONGEST, 12, 30)}
    found["another batch size"] = case.dataset(LONGEST, 5)
    if not case.before:
        found["each batch to its longest"] = case.dataset_of_own_lengths()
        found["one by one"] = case.dataset_of_own_lengths(1)
    return found


@pytest.mark.parametrize("fisher", ["true", "expected", "empirical"])
@pytest.mark.parametrize("case", SEQUENCE_CASES, ids=lambda case: case.id)
def test_padding_and_batches_leave_the_curvature_as_it_is(case, fisher):
    vectors = np.random.default_rng(0).normal(size=(3, wrapped(case).nb_params))
    kind = EKFACIHVP if fisher == "true" else KFACIHVP
    products = {
        name: fitted(case, dataset, kind, fisher=fisher).multiply(vectors)
        for name, dataset in datasets(case).items()
    }
    for name, product in products.items():
        assert_close(product, products[f"padded to {LONGEST}"], ROUNDING), name


def test_a_layer_that_ignores_its_mask_counts_every_position():
    """Flatten takes padding for data, so that masked positions receive gradients."""
    case = SEQUENCE_CASES[0]
    matrices = []
    for mask_zero in (True, False):
        keras.utils.set_random_seed(0)
        keras_model = keras.Sequential(
            [
                keras.Input((LONGEST,), dtype="int32"),
                layers.Embedding(12, 4, mask_zero=mask_zero),
                layers.Dense(2, "tanh"),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        model = BaseInfluenceModel(keras_model, loss_function=LOSS)
        with (
            pytest.warns(UserWarning, match="does not support masking")
            if mask_zero
            else ExitStack()
        ):
            ihvp = KFACIHVP(model, case.dataset(LONGEST), fisher="expected", damping=0.0, verbose=0)
        matrices.append(ihvp.multiply(np.eye(model.nb_params)))
    assert_close(matrices[0], matrices[1], 0)


def test_sequences_that_are_nothing_but_padding_add_no_position():
    case = SequenceCase("recurrent", SEQUENCE_CASES[3].build)
    x, y = case.padded(LONGEST)
    empty = np.concatenate([x, np.zeros((2, LONGEST), "int32")]), np.concatenate([y, [0, 1]])
    model = wrapped(case)
    data = [tf.data.Dataset.from_tensor_slices(arrays).batch(4) for arrays in ((x, y), empty)]
    for approximation in ("expand", "reduce"):
        blocks = [
            layer_block(
                KFACIHVP(
                    model, d, fisher="expected", approximation=approximation, damping=0.0, verbose=0
                ),
                model.model.get_layer("first"),
            )
            for d in data
        ]
        # G is the mean over two examples more, which add nothing.
        assert_close(blocks[1], blocks[0] * N / (N + 2), ROUNDING)


def test_two_sequences_with_masks_of_their_own_do_not_share_them():
    """One layer sees both; the second is longer where the first is padded."""
    one, two = (keras.Input((None,), dtype="int32") for _ in range(2))
    embedding, first = (
        layers.Embedding(12, 4, mask_zero=True),
        layers.Dense(2, "relu", name="first"),
    )
    pool, head = layers.GlobalAveragePooling1D(), layers.Dense(3, name="head")
    parts = [pool(first(embedding(tokens))) for tokens in (one, two)]
    model = BaseInfluenceModel(
        keras.Model([one, two], head(layers.Concatenate()(parts))), loss_function=LOSS
    )
    x, y = SEQUENCE_CASES[0].padded(LONGEST)

    def curvature(left: int, right: int) -> tf.Tensor:
        inputs = tuple(np.pad(a, ((0, 0), (0, more))) for a, more in ((x, left), (x[::-1], right)))
        data = tf.data.Dataset.from_tensor_slices((inputs, y)).batch(3)
        ihvp = KFACIHVP(model, data, fisher="expected", damping=0.0, verbose=0)
        return ihvp.multiply(np.eye(model.nb_params))

    for lengths in ((0, 7), (7, 0), (7, 7)):
        assert_close(curvature(*lengths), curvature(0, 0), ROUNDING)


def test_models_without_masks_have_no_padding():
    case = SEQUENCE_CASES[-2]
    engine = fitted(case, case.dataset(LONGEST), KFACIHVP).engine
    x, y, _ = case.padded(LONGEST)
    gradients = engine.gradients((tf.constant(x), tf.constant(y)))
    assert all(placed.padding is None for placed in gradients.blocks)
