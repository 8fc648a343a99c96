# %% [markdown]
# # From Influenciae
#
# A script written for [Influenciae](https://github.com/deel-ai/influenciae) 0.3.0, TensorFlow 2.9
# and Keras 2, is moved over, line by line: what has to change stands in front of each piece, the
# rest stays as it was. [The migration page](../migration.md) is the complete list.
#
# ## Imports
#
# One word changes, and `Reduction` goes. `tf.keras` is Keras 3 now, and plain `keras` is the same.
#
# ```diff
# -from deel.influenciae.common import ExactIHVP, InfluenceModel
# -from deel.influenciae.influence import FirstOrderInfluenceCalculator
# -from deel.influenciae.influence import SecondOrderInfluenceCalculator
# -from deel.influenciae.plots import plot_datacentric_explanations, plot_most_influential_images
# -from deel.influenciae.trac_in import TracIn
# -from deel.influenciae.utils import ORDER
# -from tensorflow.keras.losses import Reduction
# +from deel_influence.common import ExactIHVP, InfluenceModel
# +from deel_influence.influence import FirstOrderInfluenceCalculator
# +from deel_influence.influence import SecondOrderInfluenceCalculator
# +from deel_influence.plots import plot_datacentric_explanations, plot_most_influential_images
# +from deel_influence.trac_in import TracIn
# +from deel_influence.utils import ORDER
# ```

# %%
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from deel_influence.common import ExactIHVP, InfluenceModel
from deel_influence.influence import FirstOrderInfluenceCalculator, SecondOrderInfluenceCalculator
from deel_influence.plots import plot_datacentric_explanations, plot_most_influential_images
from deel_influence.trac_in import TracIn
from deel_influence.utils import ORDER

tf.keras.utils.set_random_seed(0)

# %% [markdown]
# ## Model and loss
#
# Keras 3 has no `Reduction`. Influenciae needed a loss without one; here any will do, and the form
# for single examples is made from it.
#
# ```diff
# -loss_function = tf.keras.losses.CategoricalCrossentropy(
# -    from_logits=True, reduction=Reduction.NONE
# -)
# +loss_function = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction="none")
# ```
#
# The rest of the training stays: one-hot labels, the model, `compile`, `fit`.

# %%
digits = load_digits()
images = (digits.images / 16).astype("float32")[..., np.newaxis]
labels = np.eye(10, dtype="float32")[digits.target]
mixed_up = [7, 130, 400, 555]
labels[mixed_up] = np.roll(labels[mixed_up], 1, axis=1)  # one class too high
train_dataset = tf.data.Dataset.from_tensor_slices((images[:800], labels[:800])).batch(100)
samples_to_explain = tf.data.Dataset.from_tensor_slices((images[1000:1004], labels[1000:1004]))
samples_to_explain = samples_to_explain.batch(4)

model = tf.keras.Sequential(
    [
        tf.keras.layers.Input((8, 8, 1)),
        tf.keras.layers.Conv2D(16, 3, activation="relu"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(32, activation="relu"),
        tf.keras.layers.Dense(10),
    ]
)
loss_function = tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction="none")
model.compile(tf.keras.optimizers.Adam(1e-3), loss=loss_function)

models = []
for _ in range(3):
    model.fit(train_dataset, epochs=5, shuffle=False, verbose=0)
    models.append(tf.keras.models.clone_model(model))
    models[-1].set_weights(model.get_weights())

# %% [markdown]
# ## Influence of single examples
#
# Not a line changes. What one may rely on has: scores have the shape `(b,)`, never `(b, 1)`; a
# smaller last batch, `prefetch`, and datasets of unknown length are all right; and the Hessian
# contains the model's regularisers.

# %%
influence_model = InfluenceModel(model, start_layer=-1, loss_function=loss_function)
ihvp_calculator = ExactIHVP(influence_model, train_dataset)
calculator = FirstOrderInfluenceCalculator(influence_model, train_dataset, ihvp_calculator)

for (batch_images, _), influence_values in calculator.compute_influence_values(train_dataset):
    print(batch_images.shape, influence_values.shape)
    break

# %% [markdown]
# New is `return_ids=True`. It says *which* examples these are, so that nobody has to compare pixels
# any more, and the plots write it above each image.

# %%
influential = calculator.compute_top_k_from_training_dataset(
    train_dataset, 5, order=ORDER.DESCENDING, return_ids=True
)
ids = influential[2].numpy()
plot_most_influential_images(influential, labels=labels[ids], img_size=1.3)

# %% [markdown]
# ## Explanations
#
# `top_k` gives what it gave, batch by batch: the queries, the values and the training examples.
# `return_ids=True` adds a fourth part here, too.

# %%
(query_images, query_labels), values, examples, ids = next(
    iter(calculator.top_k(samples_to_explain, train_dataset, k=5, return_ids=True))
)
plot_datacentric_explanations(
    query_images[0],
    (examples[0], values[0], ids[0]),
    image_label=query_labels[0],
    labels=labels[ids[0].numpy()],
    img_size=1.3,
)

# %% [markdown]
# In place of nested datasets, which are still there, one may ask for the whole matrix:
#
# ```diff
# -scores = calculator.estimate_influence_values_in_batches(samples_to_explain, train_dataset)
# -matrix = np.concatenate([
# -    np.concatenate([values for _, values in scored], axis=1) for _, scored in scores
# -])
# +matrix = calculator.influence_matrix(samples_to_explain, train_dataset)
# ```

# %%
matrix = calculator.influence_matrix(samples_to_explain, train_dataset)
print(matrix.shape)

# %% [markdown]
# ## Groups
#
# The calls are the same. The two groups may differ in size now, and first and second order have the
# same scale, without 1/n, so that one can compare them.

# %%
group = train_dataset.take(1)
second_order = SecondOrderInfluenceCalculator(influence_model, train_dataset, ihvp_calculator)
for name, of_groups in (("first", calculator), ("second", second_order)):
    value = of_groups.estimate_influence_values_group(group, samples_to_explain)
    print(f"{name} order: {float(value):.0f}")

# %% [markdown]
# ## TracIn
#
# As before: a model for each checkpoint, and its learning rate.

# %%
checkpoints = [InfluenceModel(m, start_layer=-1, loss_function=loss_function) for m in models]
tracin = TracIn(checkpoints, [1e-3, 1e-3, 1e-3])
_, _, by_tracin = tracin.compute_top_k_from_training_dataset(train_dataset, 5, return_ids=True)
print("by TracIn:", by_tracin.numpy())

# %% [markdown]
# Copies of models are not needed any more: `CheckpointRecorder` is a callback that writes weights
# and the learning rates that were really used to a folder, and
# [`TracIn.from_folder`](../methods/tracin.md) reads it.
#
# ## What results will differ
#
# The same script gives other numbers where Influenciae departs from the papers: Arnoldi kept the
# smallest eigenvalues, representer points paired the wrong axes, regularisers never reached the
# Hessian, `n_samples_for_hessian` had no effect. [Each case is
# listed](../migration.md#what-is-different-on-purpose).
#
# ## What is new
#
# The exact inverse limits one to the last layer. [Other strategies](../strategies/index.md) reach
# the whole network by a word, and `predict_loss_change` tells what would change, in units of the
# loss.

# %%
whole_network = InfluenceModel(model, start_layer=0, last_layer=-1, loss_function=loss_function)
calculator = FirstOrderInfluenceCalculator(whole_network, train_dataset, "ekfac", seed=0)
change = calculator.predict_loss_change(samples_to_explain, train_dataset)
print(f"{whole_network.nb_params} weights; without example 7, the losses change by")
print(change[:, 7])

# %% tags=["remove-cell"]
assert len(set(influential[2].numpy().tolist()) & set(mixed_up)) >= 3
