# %% [markdown]
# # Two Gaussians and their boundary
#
# Where the truth is known in closed form one can see with one's own eyes what influence is. Two
# classes are drawn from two Gaussians, some labels are mixed up, and a logistic regression is
# trained: which points pull its boundary away from where it should be? pyDVL introduces influence
# functions with such an example ([repeated here](../evidence/pydvl_gaussian.md)); this is one with
# its own numbers.

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.stats import norm

from deel_influence.common import InfluenceModel
from deel_influence.evaluation import ConvexTraining
from deel_influence.influence import FirstOrderInfluenceCalculator

keras.utils.set_random_seed(0)

# %% [markdown]
# ## The optimal boundary
#
# Both classes are equally frequent and have the same variance σ². By Bayes' rule the log-odds of
# class 1 at x are
#
# ```text
# log p(1|x) / p(0|x) = (μ₁ − μ₀)·x / σ²  −  (|μ₁|² − |μ₀|²) / 2σ²
# ```
#
# linear in x: a logistic regression is the right model, and these are its right weights. The
# boundary, where the log-odds are zero, is the line halfway between the means, at right angles to
# the line that joins them. Nobody can do better than its error, Φ(−|μ₁ − μ₀| / 2σ).

# %%
MEANS = np.array([[-1.0, -0.5], [1.0, 0.5]])
SIGMA = 0.8
optimal_weights = (MEANS[1] - MEANS[0]) / SIGMA**2
optimal_bias = (MEANS[0] @ MEANS[0] - MEANS[1] @ MEANS[1]) / (2 * SIGMA**2)
optimal_error = norm.cdf(-np.linalg.norm(MEANS[1] - MEANS[0]) / (2 * SIGMA))
print(f"log-odds: {optimal_weights.round(2)}·x + {optimal_bias:.2f}, error {optimal_error:.1%}")

# %% [markdown]
# ## Data with wrong labels
#
# 300 points to train on. The labels of a tenth are turned around, but only in class 0: errors that
# favour one side move a boundary, while those of both sides mostly blur it. The 2,000 points of the
# test have right labels.

# %%
generator = np.random.default_rng(3)


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points ``(count, 2)`` and their classes ``(count,)``."""
    classes = generator.integers(0, 2, count)
    return MEANS[classes] + SIGMA * generator.normal(size=(count, 2)), classes


points, classes = draw(300)
test_points, test_classes = draw(2000)
of_class_0 = np.flatnonzero(classes == 0)
is_flipped = np.zeros(300, bool)
is_flipped[generator.choice(of_class_0, 30, replace=False)] = True
labels = np.where(is_flipped, 1, classes)

# %% [markdown]
# ## Train to the minimum
#
# `ConvexTraining` takes a Keras model with its regulariser and finds *the* minimum of its
# objective, in float64. `full()` is the model of all points. For comparison, the same is trained
# without the wrong labels.

# %%
model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(1e-3)),
    ]
)
loss = keras.losses.BinaryCrossentropy(from_logits=True)
training = ConvexTraining(model, points, labels, loss=loss)
trained = training.full()
without = training(np.flatnonzero(~is_flipped))


def boundary(weights: np.ndarray, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two points of the line where the log-odds are zero, as x and y."""
    heights = np.array([-3.0, 3.0])
    return -(weights[1] * heights + bias) / weights[0], heights


def draw_boundaries(axes: Axes) -> None:
    """Draw the optimal boundary, that of the trained model, and that without wrong labels."""
    axes.plot(*boundary(optimal_weights, optimal_bias), "k--", label="optimal")
    for fitted, style, name in ((trained, "tab:red", "trained"), (without, "tab:green", "cleaned")):
        kernel, bias = fitted.get_weights()
        axes.plot(*boundary(kernel[:, 0], bias[0]), color=style, label=name)
    axes.set(xlim=(-3.4, 3.4), ylim=(-2.8, 2.8), aspect="equal")


figure, axes = plt.subplots(figsize=(6, 4.4), layout="constrained")
for value, colour in ((0, "tab:blue"), (1, "tab:orange")):
    axes.scatter(*points[labels == value].T, s=12, color=colour, label=f"labelled {value}")
axes.scatter(*points[is_flipped].T, s=50, facecolors="none", edgecolors="black", label="wrong")
draw_boundaries(axes)
axes.set_title("Wrong labels pull the boundary to their side")
axes.legend(loc="upper left", fontsize="small", ncols=2)

# %%
for name, fitted in (("trained", trained), ("cleaned", without)):
    kernel, bias = fitted.get_weights()
    error = np.mean((test_points @ kernel[:, 0] + bias[0] > 0) != test_classes)
    print(f"{name}: {kernel[:, 0].round(2)}·x + {bias[0]:.2f}, test error {error:.1%}")

# %% [markdown]
# ## Who pulls?
#
# The influence of every training point on the mean loss of the test: three weights, so the exact
# inverse. Each point is drawn in the colour of its value, red if it does harm.

# %%
train_set = tf.data.Dataset.from_tensor_slices((points, labels)).batch(100)
test_set = tf.data.Dataset.from_tensor_slices((test_points, test_classes)).batch(500)
calculator = FirstOrderInfluenceCalculator(InfluenceModel(trained), train_set, "exact")
influence = calculator.influence_matrix(test_set, train_set).mean(axis=0)

figure, axes = plt.subplots(figsize=(6.6, 4.4), layout="constrained")
largest = np.abs(influence).max()
order = np.argsort(np.abs(influence))
drawn = axes.scatter(
    *points[order].T, c=influence[order], s=18, cmap="RdBu", vmin=-largest, vmax=largest
)
axes.scatter(*points[is_flipped].T, s=50, facecolors="none", edgecolors="black")
draw_boundaries(axes)
axes.set_title("Influence on the test loss; circles: wrong labels")
figure.colorbar(drawn)

# %%
print(f"mean influence of wrong labels {influence[is_flipped].mean():+.3f}")
print(f"mean influence of right labels {influence[~is_flipped].mean():+.3f}")
harmful = np.argsort(influence)[:30]
print(f"{is_flipped[harmful].mean():.0%} of the 30 most harmful points have wrong labels")

# %% [markdown]
# The deep red points are wrong labels far inside the other class: they pull hardest. Wrong labels
# close to the optimal boundary are nearly white. There both classes are likely anyway, and a label
# that is turned around does little harm. Nothing of this was told to the calculator.
#
# ## Take them out
#
# The most harmful points are removed, ten more at a time, and the model is trained again.
# Prediction and truth are the change of the mean test loss.

# %%
changes = calculator.predict_loss_change(test_set, train_set).mean(axis=0)


def test_loss(fitted: keras.Model) -> float:
    """Return the mean loss on the test points."""
    return float(loss(test_classes[:, None], fitted(test_points)))


ranked = np.argsort(influence)
counts = np.arange(0, 61, 10)
kept = [np.sort(ranked[count:]) for count in counts]
actual = [test_loss(training(rows)) - test_loss(trained) for rows in kept]
predicted = [changes[ranked[:count]].sum() for count in counts]

figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(counts, predicted, "o--", label="predicted")
axes.plot(counts, actual, "o-", label="trained again")
axes.set(
    xlabel="points removed", ylabel="change of the test loss", title="Without the most harmful"
)
axes.legend()

# %%
for count in counts[1:]:
    print(f"of the first {count}, {is_flipped[ranked[:count]].sum()} are wrong")

# %% [markdown]
# For twenty points, 7 % of the data, the sum of single influences is what training again gives.
# Further on the two part. Wrong labels are fewer and fewer among what goes next; the rest is right,
# and merely inconvenient: points on the far side of the boundary, which tell the model how much the
# classes overlap. Without them it grows too sure of itself, and the test loss rises again though
# there are wrong labels left to remove, which a sum in first order cannot know. So let a person
# read the list, rather than cut it off; and see [groups and what-if](groups_and_what_if.md) for a
# better prediction of what many removals do.

# %% tags=["remove-cell"]
assert influence[is_flipped].mean() < 0 < influence[~is_flipped].mean()
assert is_flipped[harmful].mean() > 0.6
assert np.isclose(actual[1], predicted[1], rtol=0.4)
assert is_flipped[ranked[:20]].mean() > 0.9
assert min(actual) < actual[3] < actual[4]
assert not is_flipped[ranked[:30]].all()
assert is_flipped[ranked[30:]].any()
