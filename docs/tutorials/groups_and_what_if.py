# %% [markdown]
# # Groups and what-if
#
# A training set has come together from ten annotators, and one of them was careless. What would the
# model be without each of them? One could train ten models to find out. Influence functions predict
# it from the one that is there; then we do train the ten, to see how far the prediction can be
# trusted.

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from deel_influence.common import InfluenceModel
from deel_influence.evaluation import (
    ConvexTraining,
    QueryOutputs,
    leave_groups_out,
    leave_one_out,
    removal_correlation,
    retrain,
)
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
    SecondOrderInfluenceCalculator,
)

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Ten annotators
#
# 800 digits, 80 from each annotator. Number 6 got a third of them wrong.

# %%
digits = load_digits()
inputs = digits.data / 16
train_inputs, query_inputs, query_labels = inputs[:800], inputs[1000:1300], digits.target[1000:1300]
labels = digits.target[:800].copy()

generator = np.random.default_rng(0)
annotators = generator.permutation(np.repeat(np.arange(10), 80))
careless = generator.choice(np.flatnonzero(annotators == 6), 27, replace=False)
labels[careless] = (labels[careless] + generator.integers(1, 10, 27)) % 10

# %% [markdown]
# The model is a softmax regression with a regulariser. It is convex, so that "trained again" has
# one answer: `ConvexTraining` finds the minimum for any part of the training set, in float64.

# %%
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(5e-3)),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
training = ConvexTraining(model, train_inputs, labels, loss=loss)
influence_model = InfluenceModel(training.full())

train_set = tf.data.Dataset.from_tensor_slices((train_inputs, labels)).batch(200)
queries = tf.data.Dataset.from_tensor_slices((query_inputs, query_labels)).batch(100)

# %% [markdown]
# ## What if one of them had not been there?
#
# `predict_loss_change` takes the number of each example's group, and gives the change of the loss
# on each query without each group: positive where the loss would rise. First order adds up what the
# members do one by one; second order also knows that they share work, and that the data without
# them have another curvature.

# %%
calculators = {
    "first order": FirstOrderInfluenceCalculator(influence_model, train_set, "exact"),
    "second order": SecondOrderInfluenceCalculator(influence_model, train_set, "exact"),
}
predicted = {
    name: calculator.predict_loss_change(queries, train_set, groups=annotators).T
    for name, calculator in calculators.items()
}

# %% [markdown]
# And the truth: ten trainings without one of them, and the loss on the queries after each.

# %%
measure = QueryOutputs(query_inputs, query_labels)
truth = retrain(training, measure, leave_groups_out(800, annotators))

figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
bars = {**predicted, "trained again": truth.changes}
for offset, (name, changes) in zip((-0.25, 0, 0.25), bars.items(), strict=True):
    axes.bar(np.arange(10) + offset, changes.mean(axis=1), width=0.25, label=name)
axes.axhline(0, color="black", linewidth=0.8)
axes.set(xticks=range(10), xlabel="annotator left out", ylabel="change of the mean loss")
axes.set_title("What if one annotator had not been there")
axes.legend()

# %% [markdown]
# Without annotator 6 the model would be better, by far more than without anybody else. Both
# predictions say so, and they are right.
#
# ## How far can one trust it?
#
# The mean hides much. Here is every query under every removal, 3,000 predictions beside their
# truth. A slope above one says that the actual changes are larger than predicted.

# %%
figure, panels = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained", sharey=True)
for axes, (name, changes) in zip(panels, predicted.items(), strict=True):
    axes.scatter(changes, truth.changes, s=4)
    axes.axline((0, 0), slope=1, color="gray", linewidth=0.8)
    axes.set(title=name, xlabel="predicted change of a loss")
    found = removal_correlation(changes, truth.changes)
    print(f"{name}: Pearson {found.pearson:.3f}, slope {found.slope:.2f}")
panels[0].set_ylabel("trained again")

# %% [markdown]
# First order puts the changes into the right order, but makes them too small: a tenth of the data
# is gone, and with it a tenth of the curvature that keeps the weights in place. Second order knows
# that.
#
# ## Single examples
#
# For one example there is a closed form that takes its own curvature into account: the Newton step.
# It matters for examples with leverage, those that decide on some direction nearly alone. Here are
# the fifteen examples with the largest predicted effect and fifteen more.

# %%
first = calculators["first order"].predict_loss_change(queries, train_set)
newton = NewtonStepInfluenceCalculator(influence_model, train_set)
single = {"first order": first, "Newton step": newton.predict_loss_change(queries, train_set)}

by_size = np.argsort(-np.abs(first).sum(axis=0))
positions = np.sort(np.concatenate([by_size[:15], by_size[15::55]]))
truth_of_single = retrain(training, measure, leave_one_out(800, positions))
for name, changes in single.items():
    found = removal_correlation(changes[:, positions].T, truth_of_single.changes)
    print(f"{name}: Pearson {found.pearson:.4f}, slope {found.slope:.3f}")

# %% [markdown]
# Newton steps have the right size. For an order of the examples it makes no difference.
#
# ## How large may a group be?
#
# Random groups of growing size, and the relative error of the predicted changes:

# %%
sizes = [8, 24, 80, 240, 400]
groups = [generator.choice(800, size, replace=False) for size in sizes]
errors: dict[str, list[float]] = {name: [] for name in calculators}
for group in groups:
    number = np.where(np.isin(np.arange(800), group), 0, -1)
    actual = retrain(training, measure, leave_groups_out(800, number)).changes
    for name, calculator in calculators.items():
        change = calculator.predict_loss_change(queries, train_set, groups=number).T
        errors[name].append(np.linalg.norm(change - actual) / np.linalg.norm(actual))

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, values in errors.items():
    axes.plot(np.array(sizes) / 800, values, "o-", label=name)
axes.set(xscale="log", xlabel="share of the training set", ylabel="relative error", ylim=(0, None))
axes.set_title("Error of the predicted changes")
axes.legend()

# %% [markdown]
# First order is good for a per cent of the data, second order for much more, at the price of a
# second solve for each group. Whoever asks about half of the data should train again.
#
# For a network none of this is exact: its training stops at no minimum, and takes another course
# from another seed. [Check against retraining](check_against_retraining.md) measures what is left.

# %% tags=["remove-cell"]
means = predicted["second order"].mean(axis=1)
assert means.argmin() == 6 == truth.changes.mean(axis=1).argmin()
