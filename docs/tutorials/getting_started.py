# %% [markdown]
# # Three questions about a training set
#
# A network is trained on handwritten digits, and some of the labels are wrong. Which ones? Why does
# the network get a certain digit wrong? And what would it do without the wrong labels? Three
# questions about a training set, and a few lines for each.

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from deel_influence.common import ExactIHVP, InfluenceModel
from deel_influence.datasets import flip_labels
from deel_influence.evaluation import detection_curve
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.plots import plot_datacentric_explanations, plot_most_influential_images

keras.utils.set_random_seed(0)

# %% [markdown]
# ## A model to ask about
#
# The digits of scikit-learn are images of 8 × 8 pixels. A tenth of the training labels are replaced
# by other classes, as a tired annotator would. `is_flipped` remembers which; it is for the pictures
# below, and no method gets to see it.

# %%
digits = load_digits()
images = (digits.images / 16).astype("float32")[..., np.newaxis]
train_images, test_images = images[:1200], images[1200:]
true_labels, test_labels = digits.target[:1200], digits.target[1200:]
train_labels, is_flipped = flip_labels(true_labels, fraction=0.1, seed=0)


def trained_on(labels: np.ndarray) -> keras.Model:
    """Return a network trained on the training images under these labels."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    model.fit(train_images, labels, batch_size=64, epochs=15, verbose=0)
    return model


model = trained_on(train_labels)
accuracy = model.evaluate(test_images, test_labels, verbose=0)[1]
print(f"{is_flipped.sum()} wrong labels, test accuracy {accuracy:.1%}")

# %% [markdown]
# ## Wrap it
#
# Four things are needed: the model with its loss, which is taken from `compile`; the training set
# as a batched dataset in a [fixed order](../data.md#order); a way to multiply with the inverse of
# the Hessian; and a calculator, here that of influence functions. The model is only read. By
# default its last layer is watched, and for 650 weights the exact inverse costs next to nothing. A
# little damping keeps directions that the data hardly determine from dominating.

# %%
influence_model = InfluenceModel(model)
train_set = tf.data.Dataset.from_tensor_slices((train_images, train_labels)).batch(256)
ihvp = ExactIHVP(influence_model, train_set, damping=1e-3)
calculator = FirstOrderInfluenceCalculator(influence_model, train_set, ihvp)

# %% [markdown]
# ## Which labels are wrong?
#
# The self-influence of a training example says how much the model's loss on it depends on having
# been trained on it. A label that contradicts all similar images can only be learnt from its own
# example, so that wrong labels come first. Above each digit stand its label and its id:

# %%
top = calculator.compute_top_k_from_training_dataset(train_set, k=10, return_ids=True)
ids = top[2].numpy()
plot_most_influential_images(top, labels=train_labels[ids], img_size=1.3)

# %%
print(f"{is_flipped[ids].sum()} of the first 10 labels are wrong")

# %% [markdown]
# In practice nobody knows how many there are, and one reads on as long as it pays. How long did it
# pay here?

# %%
scores = calculator.score(train_set)
num_read, num_found = detection_curve(scores.values, is_flipped)

figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
axes.plot(num_read, num_found, label="by self-influence")
axes.plot([0, 1200], [0, is_flipped.sum()], ":", color="gray", label="by chance")
axes.set(xlabel="labels read", ylabel="wrong labels found", title="Reading from the top")
axes.legend()

# %% [markdown]
# Nearly every label that one reads at the top is wrong, until there are none left. Let us put right
# what the first fifth of the list holds, and train again:

# %%
read = scores.top_k(240).ids
corrected = train_labels.copy()
corrected[read] = true_labels[read]
accuracy_after = trained_on(corrected).evaluate(test_images, test_labels, verbose=0)[1]
print(f"{is_flipped[read].sum()} of {is_flipped.sum()} wrong labels corrected")
print(f"test accuracy {accuracy:.1%} before, {accuracy_after:.1%} after")

# %% [markdown]
# ## Why this prediction?
#
# The first test digit that the network gets wrong, and below it the five training digits that hurt
# it most: without them, its loss would be lower.

# %%
predictions = model.predict(test_images, verbose=0).argmax(axis=1)
query = int(np.flatnonzero(predictions != test_labels)[0])
queries = tf.data.Dataset.from_tensors((test_images[[query]], test_labels[[query]]))
influence = calculator.influence_matrix(queries, train_set)[0]

hurt = np.argsort(influence)[:5]
print(f"a {test_labels[query]}, taken for a {predictions[query]}")
print(f"{is_flipped[hurt].sum()} of the 5 have wrong labels")
plot_datacentric_explanations(
    test_images[query],
    (train_images[hurt], influence[hurt], hurt),
    image_label=test_labels[query],
    labels=train_labels[hurt],
    img_size=1.3,
)

# %% [markdown]
# ## What if they were gone?
#
# Influence values have no scale that one could read off. `predict_loss_change` gives them one: the
# change of the loss on the query when an example is left out and the network is trained again. A
# negative number says that the loss would fall.

# %%
change = calculator.predict_loss_change(queries, train_set)[0]
loss = influence_model.per_example_losses(next(iter(queries)))[0]
print(f"the loss is {loss:.3f}")
for example in hurt:
    print(f"without example {example}, the loss changes by {change[example]:+.4f}")

# %% [markdown]
# For a network such a number is an indication, no measurement: the theory is that of a convex model
# at its minimum. [Check against retraining](check_against_retraining.md) measures how good it is.
#
# ## Where to go from here
#
# - [Find wrong labels](find_wrong_labels.md) in a table, and compare methods.
# - [Explain a prediction](explain_a_prediction.md), down to the pixels.
# - [Groups and what-if](groups_and_what_if.md): what a whole source of data does to the model.

# %% tags=["remove-cell"]
assert is_flipped[ids].sum() >= 8
assert is_flipped[read].sum() > 0.7 * is_flipped.sum()
