# %% [markdown]
# # What would this run have given without them?
#
# Influence functions tell what a model would be at another minimum. A network that was trained for
# some epochs is at no minimum; it is where this run has led, with this order of the examples. What
# would *this run* have given without some of them? Unrolled influence differentiates the run
# itself. Then the run is repeated without them, which gives the truth.

# %%
import keras
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from deel_influence.evaluation import QueryOutputs
from deel_influence.unrolled import (
    UnrolledInfluenceCalculator,
    record_fit,
    retrain,
    smoothness,
)

keras.utils.set_random_seed(0)

# %% [markdown]
# ## Twelve sources
#
# 600 digits, 50 from each of twelve sources. Source 7 has shifted its labels by one.

# %%
digits = load_digits()
inputs = (digits.data / 16).astype("float32")
train_inputs, query_inputs = inputs[:600], inputs[1000:1100]
labels, query_labels = digits.target[:600].copy(), digits.target[1000:1100]

sources = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 50))
labels[sources == 7] = (labels[sources == 7] + 1) % 10

# %% [markdown]
# ## A training that is recorded
#
# `record_fit` stands in the place of `fit`. It trains the compiled model, and keeps what it takes
# to go through the same steps again.

# %%
model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(10)]
)
model.compile(
    keras.optimizers.SGD(0.05, momentum=0.9),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
run = record_fit(model, (train_inputs, labels), epochs=6, batch_size=64, verbose=0)
print(run)

# %% [markdown]
# Before a derivative is believed: does the end of the run depend smoothly on the weights of its
# examples? Two more trainings tell. Near 1 is good, and below 0.5 the calculator warns.

# %%
print(f"smoothness: {smoothness(run):.2f}")

# %% [markdown]
# ## Without each source
#
# The predicted change of the loss on each of 100 test digits. Positive: the loss would rise. One
# pass back through the run serves many queries, and all sources at once.

# %%
calculator = UnrolledInfluenceCalculator(run, queries_at_once=100)
queries = (query_inputs, query_labels)
predicted = calculator.predict_loss_change(queries, groups=sources, verbose=0)
for source in np.argsort(predicted.mean(axis=0))[:3]:
    print(f"without source {source}: {predicted[:, source].mean():+.4f} on average")

# %% [markdown]
# The truth: the same run, the same order, the source's examples at weight zero.

# %%
losses = QueryOutputs(*queries)
before = losses(model)
true = np.stack(
    [losses(retrain(run, weights=sources != source)) - before for source in range(12)], axis=1
)
correlation = np.corrcoef(predicted.ravel(), true.ravel())[0, 1]
print(f"correlation over 100 digits and 12 sources: {correlation:.2f}")

# %%
figure, axes = plt.subplots(figsize=(4.5, 4.5))
wrong = np.arange(12) == 7
axes.plot(predicted[:, ~wrong].ravel(), true[:, ~wrong].ravel(), ".", ms=3, label="sources")
axes.plot(predicted[:, wrong], true[:, wrong], ".", ms=3, label="source 7")
axes.axline((0, 0), slope=1, color="grey", lw=0.8)
axes.set(xlabel="predicted change of a loss", ylabel="change in the repeated run")
axes.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## When did it happen?
#
# The influence of an example is the sum of what its visits in each epoch did. Here are those of
# source 7 on the digit that it hurts most, and by the epochs.

# %%
hurt = int(np.argmin(predicted[:, 7]))
by_epoch = calculator.influence_by_epoch(
    (query_inputs[hurt : hurt + 1], query_labels[hurt : hurt + 1]), verbose=0
)
changes = by_epoch.values[0, sources == 7].sum(axis=0) / run.num_examples
print("change of its loss without the visits of source 7 in each epoch:", changes.round(3))

# %% [markdown]
# The first epochs are nearly forgotten by the end of the run; what is seen last weighs most.
