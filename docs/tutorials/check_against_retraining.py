# %% [markdown]
# # Check against retraining
#
# An influence score is a prediction: without this example, the loss would change by so much.
# Anybody can make such a claim. This page checks it, in the two ways of the literature, and ends
# with one call that does the same for any calculator of yours.

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

from deel_influence.common import InfluenceModel
from deel_influence.evaluation import (
    ConvexTraining,
    GroundTruth,
    NetworkTraining,
    QueryOutputs,
    evaluate,
    leave_one_out,
    linear_datamodelling_score,
    random_subsets,
    removal_correlation,
    retrain,
)
from deel_influence.ihvp import EKFACIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.trac_in import GradientDot

keras.utils.set_random_seed(0)

# %% [markdown]
# ## A model that can be trained again
#
# A logistic regression on the breast cancer data of scikit-learn, with an L2 penalty. Its objective
# is convex, so that training without an example has exactly one answer. `ConvexTraining` finds it
# in float64: most changes of the loss are below a thousandth, and drown where training stops early
# or rounds too much.

# %%
data = load_breast_cancer()
features = StandardScaler().fit_transform(data.data)
train_x, train_y, query_x, query_y = (
    features[:400],
    data.target[:400],
    features[400:],
    data.target[400:],
)

model = keras.Sequential(
    [
        keras.Input((30,)),
        keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.05)),
    ]
)
loss = keras.losses.BinaryCrossentropy(from_logits=True)
training = ConvexTraining(model, train_x, train_y, loss=loss)
influence_model = InfluenceModel(training.full())

# %% [markdown]
# ## Predict
#
# `predict_loss_change` says by how much the loss on each query would rise without each of the
# training examples.

# %%
train_set = tf.data.Dataset.from_tensor_slices((train_x, train_y)).batch(100)
queries = tf.data.Dataset.from_tensor_slices((query_x, query_y)).batch(100)
influence = FirstOrderInfluenceCalculator(influence_model, train_set, "exact")
predicted = influence.predict_loss_change(queries, train_set)
print(predicted.shape)

# %% [markdown]
# ## One example at a time
#
# The experiment of Koh and Liang (2017), figure 2: leave out one example, train again, look at the
# losses. Those with the largest predictions are the interesting ones; the others hardly change
# anything. `retrain` trains once for each row of the mask and measures the queries each time.

# %%
largest = np.argsort(-np.abs(predicted).sum(axis=0))[:40]
measure = QueryOutputs(query_x, query_y)
single = retrain(training, measure, leave_one_out(400, largest))
found = removal_correlation(predicted[:, largest].T, single.changes)
print(f"Pearson {found.pearson:.4f}, Spearman {found.spearman:.4f}, slope {found.slope:.2f}")

# %%
figure, axes = plt.subplots(figsize=(4.6, 4), layout="constrained")
axes.scatter(predicted[:, largest].T, single.changes, s=4)
axes.axline((0, 0), slope=1, color="gray", linewidth=0.8)
axes.set(xlabel="predicted change of the loss", ylabel="after training again")
axes.set_title("40 examples left out, 169 queries")

# %% [markdown]
# The points lie on the diagonal, and bend away from it at the ends: examples with a large effect
# hold some directions nearly alone, and first order leaves their own part in the Hessian. [The
# Newton step](../methods/newton_step.md) takes it out.
#
# ## Half of the data at a time
#
# The linear datamodelling score of Park et al. (2023): train on random halves, and ask how well the
# *sum* of the influences of what was kept orders the halves by their loss, query by query. This is
# the harder test, and the usual one for networks, of which single examples move less than the seed
# does.

# %%
halves = random_subsets(400, 40, fraction=0.5, seed=0)
truth = retrain(training, measure, halves, settings={"data": "breast cancer", "penalty": 0.05})
scores = influence.influence_matrix(queries, train_set)
score = linear_datamodelling_score(scores, truth.kept, truth.mean_outputs)
print(f"linear datamodelling score {score.score:.3f}")

# %% [markdown]
# ## Keep the truth
#
# Trainings are what costs. A ground truth is kept in one file with its settings, and a file of
# other settings is refused. `retrain(folder=...)` even keeps each training as soon as it is
# finished, so that a run that was killed goes on where it stopped.

# %%
truth.save("halves.npz")
truth = GroundTruth.load("halves.npz", settings={"data": "breast cancer", "penalty": 0.05})
print(truth.kept.shape, truth.mean_outputs.shape)

# %% [markdown]
# ## All at once
#
# `evaluate` takes calculators by name and whatever truth there is, and gives a table. Two others
# have their say beside the exact inverse: EKFAC, with the curvature of the penalty, 0.1, as its
# damping, since it leaves regularisers out; and the plain product of gradients, which knows no
# Hessian. Random scores come for free, to see what nothing would look like.

# %%
ekfac = EKFACIHVP(influence_model, train_set, damping=0.1, fisher="expected")
evaluation = evaluate(
    {
        "influence": influence,
        "EKFAC": FirstOrderInfluenceCalculator(influence_model, train_set, ekfac),
        "gradient product": GradientDot(influence_model),
    },
    train_set,
    queries,
    truth={"halves": truth, "single": single},
)
columns = ["halves: LDS", "single: Pearson", "single: Spearman", "single: slope"]
print(evaluation.table[columns].round(3))

# %%
evaluation.plot()

# %% [markdown]
# Influence functions are what they claim to be, here where their theory holds. EKFAC is an
# approximation made for whole networks, and the plain product of gradients gets most of the order,
# but has no scale, and so no slope. `evaluation.table` has more columns: the interval of the score,
# and what each calculator cost.
#
# ## Networks
#
# A network stops at no minimum, and ends somewhere else from another seed. The same calls judge it,
# with `NetworkTraining` in the place of `ConvexTraining`, and each subset is trained on from
# several seeds, of which the mean counts. Here are 500 digits, 20 halves and two seeds, few enough
# for a tutorial.

# %%
digits = load_digits()
images, labels = (digits.data / 16).astype("float32"), digits.target


def make_network() -> keras.Model:
    """Return a new, compiled network."""
    network = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.01), loss)
    return network


training = NetworkTraining(make_network, images[:500], labels[:500], epochs=10, batch_size=50)
measure = QueryOutputs(images[500:600], labels[500:600])
truth = retrain(training, measure, random_subsets(500, 20, seed=0), seeds=[0, 1])

network = training(np.arange(500), seed=0)
influence_model = InfluenceModel(network, start_layer=0, last_layer=-1)
train_set = tf.data.Dataset.from_tensor_slices((images[:500], labels[:500])).batch(100)
queries = tf.data.Dataset.from_tensor_slices((images[500:600], labels[500:600])).batch(100)
calculators = {
    "EKFAC": FirstOrderInfluenceCalculator(
        influence_model, train_set, EKFACIHVP(influence_model, train_set, fisher="expected")
    ),
    "gradient product": GradientDot(influence_model),
}
evaluation = evaluate(calculators, train_set, queries, truth=truth)
print(evaluation.table[["LDS", "LDS low", "LDS high"]].round(2))

# %% [markdown]
# Below what a convex model gives, and far above chance. The curvature is worth its price here:
# EKFAC, for all that it approximates, orders the halves twice as well as the plain product of
# gradients. With so few halves the intervals are wide; take a hundred, and more seeds, before you
# choose a method by such a table.
#
# [Evaluation](../evaluation/index.md) is the guide to these functions, and [the
# evidence](../evidence/index.md) repeats published experiments with them.

# %% tags=["remove-cell"]
assert np.median(np.abs(predicted)) < 1e-3
assert found.pearson > 0.99
assert score.score > 0.9
assert evaluation.table.loc["EKFAC", "LDS"] > 0.4
