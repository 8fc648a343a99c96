"""An example has one key, whatever form it comes in, and no other example has it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import UnsupportedModelError
from deel_influence.training_dynamics import AreaUnderMargin, TrainingDynamics
from deel_influence.utils.content_keys import content_keys
from tests.training_dynamics.runs import SPARSE, batches, wrapped

layers = keras.layers
PICTURES = np.random.default_rng(0).integers(0, 256, (50, 7, 5)).astype("uint8")
LABELS = np.arange(50) % 3


def keys(x: object, y: object = None, **options: object) -> np.ndarray:
    function = tf.function(content_keys, **options) if options else content_keys
    return function(x, y).numpy()


REFERENCE = keys(PICTURES, LABELS)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (PICTURES.astype("float32"), LABELS),
        (PICTURES.astype("float64"), LABELS.astype("float32")),
        (PICTURES.astype("int64"), LABELS[:, None].astype("uint8")),
        (np.pad(PICTURES, ((0, 0), (0, 4), (0, 0))), LABELS),
    ],
    ids=["float32", "float64", "int64", "padded"],
)
def test_the_key_does_not_depend_on_the_form(x, y):
    np.testing.assert_array_equal(keys(x, y), REFERENCE)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_the_key_is_the_same_number_however_it_is_computed(jit_compile):
    found = keys(tf.constant(PICTURES), tf.constant(LABELS), jit_compile=jit_compile)
    np.testing.assert_array_equal(found, REFERENCE)


def test_the_key_depends_on_values_positions_labels_and_the_part_they_are_in():
    x = PICTURES.astype("float32")
    first, second = np.zeros_like(x[:, 0]), x[:, 1]
    variants = [
        keys(x, LABELS),
        keys(x, LABELS + 1),
        keys(np.flip(x, axis=1), LABELS),
        keys(np.nextafter(x, np.float32(1e9)), LABELS),
        keys({"a": first, "b": second}, LABELS),
        keys({"a": second, "b": first}, LABELS),
    ]
    assert len(np.unique(variants)) == len(variants) * len(x)


@pytest.mark.parametrize(
    "values",
    [
        (np.arange(2**16)[:, None] >> np.arange(16)) & 1,  # all rows of 16 bits
        np.arange(2**40, 2**40 + 5000)[:, None],  # ids that float32 cannot tell apart
        np.array([[f"text {i}"] for i in range(5000)]),
        np.linspace(0.5, 0.5001, 800, dtype="float32")[:, None],
    ],
    ids=["bits", "large-ids", "texts", "close-floats"],
)
def test_different_examples_have_different_keys(values):
    assert len(np.unique(keys(tf.constant(values)))) == len(np.unique(values, axis=0))


def test_what_has_no_key_is_refused():
    with pytest.raises(UnsupportedModelError, match="Received: RaggedTensor. Pad the data"):
        content_keys(tf.ragged.constant([[1], [1, 2]]), tf.constant([0, 1]))


def test_sequences_are_found_whatever_their_batch_was_padded_to():
    sequences = [list(range(1, length + 1)) for length in (3, 7, 2, 5, 4, 6)]
    numbered = tf.data.Dataset.from_generator(
        lambda: zip(sequences, range(6), strict=True),
        output_signature=(tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)),
    )
    padded = numbered.shuffle(6, seed=0).padded_batch(4, ([None], []))
    padded = padded.apply(tf.data.experimental.assert_cardinality(2))
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(9, 4, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(6),
        ]
    )
    model.compile("sgd", SPARSE(from_logits=True))
    dynamics = TrainingDynamics()
    model.fit(padded, epochs=2, shuffle=False, verbose=0, callbacks=[dynamics])
    scores = AreaUnderMargin(wrapped(model), dynamics).score(
        numbered.padded_batch(6, ([None], [])), verbose=0
    )
    assert len(dynamics.recorded) == 6
    assert np.isfinite(scores.values).all()


def test_arrays_given_to_fit_are_found_in_a_dataset_of_another_dtype():
    model = keras.Sequential([keras.Input((7, 5)), layers.Flatten(), layers.Dense(3)])
    model.compile("sgd", SPARSE(from_logits=True))
    dynamics = TrainingDynamics()
    model.fit(PICTURES / 255.0, LABELS, verbose=0, callbacks=[dynamics])
    train = batches((PICTURES / 255.0).astype("float32"), LABELS.astype("uint8"))
    assert len(AreaUnderMargin(wrapped(model), dynamics).score(train, verbose=0)) == 50
