# %% [markdown]
# # Find wrong labels
#
# A table of tumours: 569 rows, 30 measurements each, benign or malignant. Somebody has mixed up a
# tenth of the diagnoses. A person can check a row in some minutes, but not all of them: in which
# order should they be read?

# %%
import keras
import tensorflow as tf
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from deel_influence.baselines import KNNShapley, LossScore
from deel_influence.calculators import Scores
from deel_influence.common import InfluenceModel
from deel_influence.datasets import flip_labels
from deel_influence.evaluation import detection_curve, recall_at_budget, roc_auc
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.plots import plot_most_influential_rows
from deel_influence.training_dynamics import AreaUnderMargin, TrainingDynamics

# %% [markdown]
# ## Train as always, with one callback more
#
# The network is trained twice: once it is stopped early, as one should, and once it is left alone
# until it knows nearly all of its training set by heart, wrong labels included. `TrainingDynamics`
# looks over the shoulder of `fit` and writes down the margin of every example in every epoch. It
# changes nothing; one of the four methods below needs it.

# %%
data = load_breast_cancer()
features = StandardScaler().fit_transform(data.data).astype("float32")
labels, is_flipped = flip_labels(data.target, fraction=0.1, seed=0)
train_set = tf.data.Dataset.from_tensor_slices((features, labels)).batch(128)


def trained_for(epochs: int) -> tuple[keras.Model, TrainingDynamics]:
    """Return a network, and what happened while it was trained."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    accuracy = keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=[accuracy])
    dynamics = TrainingDynamics(record=["margin"])
    model.fit(features, labels, batch_size=64, epochs=epochs, verbose=0, callbacks=[dynamics])
    return model, dynamics


trained = {"stopped early": trained_for(epochs=10), "learnt by heart": trained_for(epochs=80)}
for name, (model, _) in trained.items():
    accuracy = model.evaluate(train_set, verbose=0, return_dict=True)["accuracy"]
    print(f"{name}: {accuracy:.1%} of the training labels predicted")

# %% [markdown]
# ## Four orders
#
# Every calculator has the method `score`, and a high score is suspicious:
#
# - the **loss**, the simplest: what does the model get wrong?
# - **self-influence**: how much does the loss on an example depend on having been trained on it?
#   All 2,049 weights are watched, and EKFAC approximates their curvature;
# - the **area under the margin**: how far was the label ahead, or behind, in the course of
#   training?
# - **KNN-Shapley**: do the neighbours in the hidden layer agree with the label?


# %%
def four_orders(model: keras.Model, dynamics: TrainingDynamics) -> dict[str, Scores]:
    """Return the scores of all training examples by four methods."""
    influence_model = InfluenceModel(model, start_layer=0, last_layer=-1)
    calculators = {
        "loss": LossScore(influence_model),
        "self-influence": FirstOrderInfluenceCalculator(
            influence_model, train_set, "ekfac", seed=0
        ),
        "area under the margin": AreaUnderMargin(influence_model, dynamics),
        "KNN-Shapley": KNNShapley(influence_model),
    }
    return {name: calculator.score(train_set) for name, calculator in calculators.items()}


orders = {name: four_orders(*model_and_dynamics) for name, model_and_dynamics in trained.items()}

# %% [markdown]
# ## How many rows have to be read?
#
# Here the truth is known. *ROC AUC* is the chance that a wrong label stands above a right one,
# *found* the share of the wrong labels in the first tenth of the list.

# %%
for name, scores in orders.items():
    print(f"{name:24} ROC AUC  found")
    for method, found in scores.items():
        auc = roc_auc(found.values, is_flipped)
        print(f"  {method:22} {auc:7.3f} {recall_at_budget(found.values, is_flipped, 0.1):6.0%}")

# %%
figure, panels = plt.subplots(1, 2, figsize=(7.5, 3.4), layout="constrained", sharey=True)
for axes, (name, scores) in zip(panels, orders.items(), strict=True):
    for method, found in scores.items():
        axes.plot(*detection_curve(found.values, is_flipped), label=method)
    axes.plot([0, len(labels)], [0, is_flipped.sum()], ":", color="gray", label="by chance")
    axes.set(title=name, xlabel="rows read", xlim=(0, 300))
panels[0].set_ylabel("wrong labels found")
panels[1].legend(loc="lower right", fontsize="small")

# %% [markdown]
# Of the network that was stopped early, any of the four will do, and the loss is free. Once a
# network knows its wrong labels by heart, its loss is small on them as well and has little to say;
# self-influence, which asks what the label is learnt from, holds out somewhat longer. What was
# written down *during* training still knows, and so do the neighbours. So record the margins when
# you train, and if all that you have is a trained network, look at how well it fits its training
# set before you trust an order. [The table of methods](../methods/index.md#flipped-labels-found)
# has more of them.
#
# ## Read the list
#
# What a person needs is the row itself. These are the first six by self-influence, with the label
# that they have.

# %%
columns = [0, 1, 6, 20, 27]
top = orders["stopped early"]["self-influence"].top_k(6)
plot_most_influential_rows(
    (data.data[top.ids][:, columns], top.values, top.ids),
    feature_names=["radius", "texture", "concavity", "worst radius", "worst points"],
    labels=labels[top.ids],
    class_names=data.target_names,
)

# %%
print(f"{is_flipped[top.ids].sum()} of these 6 labels are wrong")

# %% tags=["remove-cell"]
for found in orders["stopped early"].values():
    assert recall_at_budget(found.values, is_flipped, 0.1) > 0.6
by_heart = orders["learnt by heart"]
assert roc_auc(by_heart["area under the margin"].values, is_flipped) > 0.85
assert roc_auc(by_heart["loss"].values, is_flipped) < 0.92
