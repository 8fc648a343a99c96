"""The element specs of the datasets that calculators return."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..utils.kernels import relax
from ..utils.tensors import dense_dataset


def relaxed_element_spec(dataset: tf.data.Dataset) -> Any:
    """Return the element spec of a dataset with an unknown batch size."""
    return tf.nest.map_structure(relax, dense_dataset(dataset).element_spec)


def inputs_spec(model: BaseInfluenceModel, dataset: tf.data.Dataset) -> Any:
    """Return the spec of the model's inputs in a dataset, with unknown batch size."""
    in_parts = isinstance(dataset.element_spec, tuple)

    def inputs_of(*parts: Any) -> Any:
        # `Dataset.map` passes the parts of a tuple one by one, anything else as it is.
        return model.process_batch_for_loss_fn(parts if in_parts else parts[0])[0]

    # AutoGraph would make an error of its own of those of the function.
    plain = tf.autograph.experimental.do_not_convert(inputs_of)
    return relaxed_element_spec(dense_dataset(dataset).map(plain))


def scored_spec(train_set: tf.data.Dataset, num_queries: int, dtype: tf.DType) -> tuple:
    """Return the spec of ``((training batch...), scores (m, b))``."""
    return relaxed_element_spec(train_set), tf.TensorSpec((num_queries, None), dtype)


def top_k_spec(
    model: BaseInfluenceModel,
    queries: tf.data.Dataset,
    train_set: tf.data.Dataset,
    dtype: tf.DType,
    id_type: tf.DType | None,
) -> tuple:
    """Return the spec of ``(query batch, scores, training inputs[, ids])``."""
    samples = tf.nest.map_structure(
        lambda spec: tf.TensorSpec([None, None, *spec.shape[1:]], spec.dtype),
        inputs_spec(model, train_set),
    )
    spec = (relaxed_element_spec(queries), tf.TensorSpec((None, None), dtype), samples)
    return spec if id_type is None else (*spec, tf.TensorSpec((None, None), id_type))
