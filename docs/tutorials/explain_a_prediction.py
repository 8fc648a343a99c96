# %% [markdown]
# # Explain a prediction
#
# A network takes many a 3 for an 8. Its weights will not say why. Its training set does: where did
# it learn that?

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from deel_influence.common import InfluenceModel
from deel_influence.ihvp import EKFACIHVP
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    PerturbationInfluenceCalculator,
)
from deel_influence.plots import plot_datacentric_explanations
from deel_influence.utils import ORDER

keras.utils.set_random_seed(0)

# %% [markdown]
# ## A network that has been taught wrongly
#
# More than half of the threes in the training set are labelled 8. One would not know, of course:
# what one sees is that the network gets threes wrong.

# %%
digits = load_digits()
images = (digits.images / 16).astype("float32")[..., np.newaxis]
train_images, test_images = images[:1200], images[1200:]
train_labels, test_labels = digits.target[:1200].copy(), digits.target[1200:]

threes = np.flatnonzero(train_labels == 3)
mislabelled = threes[: int(0.6 * len(threes))]
train_labels[mislabelled] = 8

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(10),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(train_images, train_labels, batch_size=64, epochs=12, verbose=0)

logits = model.predict(test_images, verbose=0)
wrong = np.flatnonzero((test_labels == 3) & (logits.argmax(axis=1) == 8))
print(f"{len(wrong)} of {(test_labels == 3).sum()} threes are taken for an 8")

# %% [markdown]
# ## Ask for the examples behind it
#
# The whole network is watched, and [EKFAC](../strategies/ekfac.md) approximates the curvature of
# its 19,000 weights. The queries carry the label that is *right*: what is explained is the loss of
# saying 3. Training examples that hurt it have negative values, and come first in ascending order.
# At the top is the three that the network is most sure is an 8, below it are the training examples
# with label, id and influence.

# %%
influence_model = InfluenceModel(model, start_layer=0, last_layer=-1)
train_set = tf.data.Dataset.from_tensor_slices((train_images, train_labels)).batch(256)
queries = tf.data.Dataset.from_tensor_slices((test_images[wrong], test_labels[wrong])).batch(64)
ihvp = EKFACIHVP(influence_model, train_set, seed=0)
calculator = FirstOrderInfluenceCalculator(influence_model, train_set, ihvp)

query = int((logits[wrong, 8] - logits[wrong, 3]).argmax())
lists = calculator.top_k(queries, train_set, k=5, order=ORDER.ASCENDING, return_ids=True)
_, scores, samples, ids = next(iter(lists))
plot_datacentric_explanations(
    test_images[wrong[query]],
    (samples[query], scores[query], ids[query]),
    image_label=3,
    labels=train_labels[ids[query]],
    img_size=1.3,
)

# %% [markdown]
# They all look like threes, and they are all labelled 8: an explanation that needs no knowledge of
# the network. What *helped* the prediction to be not even worse? The same call, in descending
# order.

# %%
lists = calculator.top_k(queries, train_set, k=5, order=ORDER.DESCENDING, return_ids=True)
_, scores, samples, ids = next(iter(lists))
plot_datacentric_explanations(
    test_images[wrong[query]],
    (samples[query], scores[query], ids[query]),
    image_label=3,
    labels=train_labels[ids[query]],
    img_size=1.3,
)

# %% [markdown]
# ## From one prediction to all of them
#
# One wrong prediction is an anecdote. The matrix of all influences, one row for each query, shows
# what they have in common.

# %%
influence = calculator.influence_matrix(queries, train_set)
most_harmful = np.argsort(influence.mean(axis=0))[:40]
share = np.isin(most_harmful, mislabelled).mean()
print(f"{share:.0%} of the 40 most harmful examples are threes labelled 8")

# %%
kinds = {
    "threes labelled 8": mislabelled,
    "threes labelled 3": threes[len(mislabelled) :],
    "eights": np.flatnonzero(digits.target[:1200] == 8),
    "all others": np.flatnonzero(~np.isin(digits.target[:1200], (3, 8))),
}
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
means = [influence[:, positions].mean() for positions in kinds.values()]
axes.barh(list(kinds), means, color=["tab:red" if mean < 0 else "tab:blue" for mean in means])
axes.axvline(0, color="black", linewidth=0.8)
axes.invert_yaxis()
axes.set(xlabel="mean influence of one example", title="Who hurts the threes, and who helps them")

# %% [markdown]
# ## Down to the pixels
#
# The last question goes one step deeper: which *pixels* of these examples do the harm?
# `PerturbationInfluenceCalculator` gives, for each pixel of each training example, how fast the
# losses of the queries would rise if that pixel were made brighter and the network trained again.
# Here is the mean over the threes labelled 8, beside what tells an eight from a three.

# %%
mislabelled_set = tf.data.Dataset.from_tensor_slices(
    (train_images[mislabelled], train_labels[mislabelled])
).batch(128)
perturbation = PerturbationInfluenceCalculator(influence_model, train_set, ihvp)
by_pixel = perturbation.influence_on_total_loss(queries, mislabelled_set).mean(axis=0)[..., 0]

clean = digits.target[:1200]
eight_minus_three = images[:1200][clean == 8].mean(axis=0) - images[:1200][clean == 3].mean(axis=0)
figure, panels = plt.subplots(1, 2, figsize=(5.5, 2.9), layout="constrained")
titles = ("an eight minus a three", "loss if made brighter")
for axes, picture, title in zip(panels, (eight_minus_three[..., 0], by_pixel), titles, strict=True):
    largest = np.abs(picture).max()
    axes.imshow(picture, cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes.set_title(title, fontsize="medium")
    axes.set_axis_off()
correlation = np.corrcoef(eight_minus_three.ravel(), by_pixel.ravel())[0, 1]
print(f"correlation of the two: {correlation:.2f}")

# %% [markdown]
# The two are opposed. Where an eight has ink and a three has none, the losses would fall if the
# mislabelled threes were brighter: an image that looks like the eight that it is called teaches
# nothing wrong about threes. The network has no such rule written down anywhere; its training set
# has.
#
# All this is a ranking, not a proof. Whether the network would really do better without these
# examples, [retraining](check_against_retraining.md) can tell.

# %% tags=["remove-cell"]
# By chance it would be 6 %.
assert share > 0.5
