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

from deel_influence.curvature.kronecker import correct_eigenvalues, fit_kronecker
from deel_influence.curvature.kronecker_basis import EigenBlock
from deel_influence.curvature.kronecker_passes import FisherPass, HeldFactors
from deel_influence.gradients.engine import GradientEngine
from deel_influence.ihvp.kfac import KFACIHVP
from deel_influence.model.influence_model import BaseInfluenceModel
from tests.oracles import assert_close
from tests.padded_sequences import (
    LONGEST,
    SEQUENCE_CASES,
    N,
    SequenceCase,
    embedded,
    unmasked_tokens,
)

layers = keras.layers
pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::deel_influence.errors.LayerRuleWarning"),
]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TOKENS = next(case for case in SEQUENCE_CASES if case.id == "tokens")
# Recurrent layers and attention take a while to trace, in every form of the data.
SLOW = ("lstm", "gru-along-the-sequence", "attention", "attending-tokens", "tokens-padded-before")
CASES = [
    pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.id in SLOW else [])
    for case in SEQUENCE_CASES
]
SINGULAR = ("attention", "attending-tokens", "convolution-with-an-explicit-mask")
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


def fisher_pass(case: SequenceCase, dataset: tf.data.Dataset, fisher: str) -> FisherPass:
    return FisherPass(GradientEngine.of(wrapped(case)), dataset, fisher, seed=0, verbose=0)


def matrices(
    case: SequenceCase, dataset: tf.data.Dataset, fisher: str, approximation: str = "expand"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the curvature of each layer, of K-FAC and of EKFAC, by the name of the kernel."""
    passes, held = fisher_pass(case, dataset, fisher), HeldFactors()
    blocks = fit_kronecker(passes, approximation, held)
    return _by_kernel(case, blocks), _by_kernel(case, correct_eigenvalues(passes, blocks, held))


def _by_kernel(case: SequenceCase, blocks: list[EigenBlock]) -> dict[str, np.ndarray]:
    layout, found = wrapped(case).layout, {}
    for block in blocks:
        basis = np.kron(block.left, block.right)
        path = layout.variables[block.parts[0]].path
        found[path] = basis @ np.diag(block.values.ravel()) @ basis.T
    return found


def joined(blocks: dict[str, np.ndarray]) -> np.ndarray:
    """Join all layers: under 'reduce' those of attention keys vanish, but for rounding."""
    return np.concatenate([blocks[path].ravel() for path in sorted(blocks)])


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize("case", CASES)
def test_kronecker_factors_of_padded_sequences_are_those_of_the_sequences_alone(
    case, approximation
):
    dataset = case.dataset(LONGEST + 2)
    kfac, ekfac = matrices(case, dataset, "expected", approximation)
    chosen = {layer.kernel.path: layer.path for layer in factored_layers(wrapped(case).model)}
    of_layers = {kernel: factors(case)[path] for kernel, path in chosen.items()}
    pairs = {kernel: kronecker_factors(of, approximation) for kernel, of in of_layers.items()}
    expected = {kernel: np.kron(a, g) for kernel, (a, g) in pairs.items()}
    assert_close(joined(kfac), joined(expected), ROUNDING)
    # Where A or G has directions without any curvature, 'reduce' leaves their eigenvectors open.
    if approximation == "expand" or case.id not in SINGULAR:
        expected = {kernel: corrected(of_layers[kernel], *pair) for kernel, pair in pairs.items()}
        assert_close(joined(ekfac), joined(expected), ROUNDING)


def datasets(case: SequenceCase) -> dict[str, tf.data.Dataset]:
    """Return the same examples in other forms, the first of them padded least."""
    lengths = (LONGEST, LONGEST + 1, 20)
    found = {f"padded to {length}": case.dataset(length) for length in lengths}
    found["in other batches"] = case.dataset(LONGEST, 5)
    if not case.before:
        found["each batch padded to its longest"] = case.dataset_of_own_lengths()
    return found


@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize("case", CASES)
def test_neither_padding_nor_batches_change_the_curvature(case, fisher):
    found = {name: matrices(case, d, fisher) for name, d in datasets(case).items()}
    first, *others = found
    for name in others:
        for one, other in zip(found[name], found[first], strict=True):
            assert_close(joined(one), joined(other), ROUNDING)


@pytest.mark.parametrize("case", [SEQUENCE_CASES[0], TOKENS], ids=lambda case: case.id)
def test_batches_with_other_numbers_of_logits_weigh_the_same(case):
    """The expectation takes a set of gradients for each logit, and tokens have logits each."""
    alone = matrices(case, case.dataset(LONGEST), "expected")
    for size in (1, 3):
        padded = matrices(case, case.dataset_of_own_lengths(size), "expected")
        for one, other in zip(padded, alone, strict=True):
            assert_close(joined(one), joined(other), ROUNDING)


def curvature(model: BaseInfluenceModel, data: tf.data.Dataset, **options) -> np.ndarray:
    """Return the whole matrix of K-FAC, ``(p, p)``."""
    ihvp = KFACIHVP(model, data, fisher="expected", damping=0.0, verbose=0, **options)
    return np.asarray(ihvp.multiply(np.eye(model.nb_params)))


@pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning")
def test_a_layer_that_ignores_its_mask_counts_every_position():
    """Flatten takes padding for data, so that masked positions receive gradients."""
    found = []
    for mask_zero in (True, False):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((LONGEST,), dtype="int32")
        hidden = layers.Dense(2, "tanh")(embedded(inputs, mask_zero))
        keras_model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden)))
        model = BaseInfluenceModel(keras_model, loss_function=LOSS)
        found.append(curvature(model, SEQUENCE_CASES[0].dataset(LONGEST)))
    assert_close(found[0], found[1], 0)


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
def test_sequences_that_are_nothing_but_padding_add_no_position(approximation):
    """They leave A as it is; G is the mean over so many examples more, which add nothing."""
    case = next(case for case in SEQUENCE_CASES if case.id == "lstm")
    x, y = case.padded(LONGEST)
    empty = np.concatenate([x, np.zeros((2, LONGEST), "int32")]), np.concatenate([y, [0, 1]])
    first = wrapped(case).model.get_layer("first")
    model = BaseInfluenceModel(wrapped(case).model, [first.kernel, first.bias], LOSS)
    one, other = (
        curvature(
            model, tf.data.Dataset.from_tensor_slices(arrays).batch(4), approximation=approximation
        )
        for arrays in ((x, y), empty)
    )
    assert_close(other, one * N / (N + 2), ROUNDING)


def test_two_sequences_with_masks_of_their_own_do_not_share_them():
    """One layer sees both, and either may be the longer one."""
    one, two = (keras.Input((None,), dtype="int32") for _ in range(2))
    embedding = layers.Embedding(12, 4, mask_zero=True)
    first, pool = layers.Dense(2, "relu"), layers.GlobalAveragePooling1D()
    parts = [pool(first(embedding(tokens))) for tokens in (one, two)]
    keras_model = keras.Model([one, two], layers.Dense(2)(layers.Concatenate()(parts)))
    model = BaseInfluenceModel(keras_model, first.trainable_variables, LOSS)
    x, y = SEQUENCE_CASES[0].padded(LONGEST)

    def padded(left: int, right: int) -> np.ndarray:
        inputs = tuple(np.pad(a, ((0, 0), (0, more))) for a, more in ((x, left), (x[::-1], right)))
        return curvature(model, tf.data.Dataset.from_tensor_slices((inputs, y)).batch(3))

    alone = padded(0, 0)
    for lengths in ((0, 7), (7, 0), (7, 7)):
        assert_close(padded(*lengths), alone, ROUNDING)


def test_models_without_masks_have_no_padding():
    case = SequenceCase("unmasked-tokens", unmasked_tokens, of_tokens=True)
    batch = next(iter(case.dataset(LONGEST)))
    engine = GradientEngine.of(wrapped(case))
    engine.prepare(batch)
    assert all(placed.padding is None for placed in engine.gradients(batch).blocks)
