"""What is said where TensorFlow or Keras refuses a batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import BatchError, MissingDerivativeError
from deel_influence.utils.datasets import Item
from deel_influence.utils.kernels import Kernel
from deel_influence.utils.reasons import reason_of
from deel_influence.utils.running import call

DUMP = """Attempting to add a function twice
signature {
  name: "body_grad"
  type: DT_INT32
}
arg_attr {
  key: 11
}
"""
MESSAGES = {
    "of a graph": (
        "Detected at node a\n\n{{node a}} Label is 7  Label values: 7 8\n\t [[a]]",
        "Label is 7",
    ),
    "of an operation": ("{{function_node f}} Shapes differ [Op:Mul] name: ", "Shapes differ"),
    "with a protocol buffer": (DUMP, "Attempting to add a function twice"),
    "of a layer": (
        "Exception in A.call().\n\n\x1b[1mIt must be:\n 4\x1b[0m\n\n • x=1",
        "It must be: 4",
    ),
    "of nothing": ("}\n", "ValueError"),
}


@pytest.mark.parametrize("case", MESSAGES.values(), ids=MESSAGES)
def test_the_reason_is_a_sentence_of_the_message(case):
    message, reason = case
    assert reason_of(ValueError(message)) == reason


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (tf.errors.InvalidArgumentError, "class labels are below the number of classes"),
        (tf.errors.ResourceExhaustedError, "Make the batches smaller"),
        (tf.errors.NotFoundError, "raised NotFoundError: it has no such computation"),
        (tf.errors.UnimplementedError, "raised UnimplementedError: it has no such computation"),
    ],
)
def test_whatever_tensorflow_raises_names_the_batch(error, remedy):
    def fail(values: tf.Tensor) -> tf.Tensor:
        raise error(None, None, "there is a reason")

    with pytest.raises(BatchError, match=rf"Batch 3 .*examples 4 to 6.*a reason\..*{remedy}"):
        call(Kernel(fail), Item(3, np.array([4, 5, 6]), ()), (np.ones(3),))


def test_an_operation_without_a_gradient_is_no_fault_of_the_batch():
    def gradient(values: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = tf.raw_ops.PreventGradient(input=values, message="said so")
        return tape.gradient(result, values)

    for compiled in (True, False):
        with pytest.raises(MissingDerivativeError, match="said so"):
            call(Kernel(gradient, compiled=compiled), Item(0, np.arange(3), ()), (np.ones(3),))


def test_a_missing_key_is_left_as_it_is():
    with pytest.raises(KeyError, match="loss"):
        Kernel(lambda values: {"a": values}["loss"])(np.ones(3))
