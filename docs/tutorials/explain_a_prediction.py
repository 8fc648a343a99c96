"""Find the training digits behind wrong predictions.

A network is trained on digits where many a 3 was labelled 8, and takes many a 3 for an 8. Which
training examples hurt these predictions most? It should be the mislabelled ones.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from deel_influence.common import InfluenceModel
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.utils import ORDER

keras.utils.set_random_seed(0)

digits = load_digits()
images = (digits.images / 16).astype("float32")[..., np.newaxis]
train_images, query_images = images[:1200], images[1200:]
train_labels, query_labels = digits.target[:1200].copy(), digits.target[1200:]

threes = np.flatnonzero(train_labels == 3)
mislabelled = threes[: int(0.6 * len(threes))]
train_labels[mislabelled] = 8

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(train_images, train_labels, batch_size=64, epochs=10, verbose=0)

predictions = model.predict(query_images, verbose=0).argmax(axis=1)
wrong = np.flatnonzero((query_labels == 3) & (predictions == 8))
print(f"{len(wrong)} of {(query_labels == 3).sum()} threes are taken for an 8")

# The queries carry their true label: the loss that is explained is that of saying 3.
queries = tf.data.Dataset.from_tensor_slices((query_images[wrong], query_labels[wrong])).batch(64)
train_set = tf.data.Dataset.from_tensor_slices((train_images, train_labels)).batch(256)
calculator = FirstOrderInfluenceCalculator(InfluenceModel(model), train_set)

# The lists of single predictions, with the id of each training example and its label.
lists = calculator.top_k(queries, train_set, k=5, order=ORDER.ASCENDING, return_ids=True)
_, values, _, ids = next(iter(lists))
print("hurt the first one most:", [(int(i), int(train_labels[i])) for i in ids[0]])

# What all of them have in common shows in the mean.
influence = calculator.influence_matrix(queries, train_set).mean(axis=0)
most_harmful = np.argsort(influence)[:20]
share = np.isin(most_harmful, mislabelled).mean()
print(f"{share:.0%} of the 20 most harmful examples are threes labelled 8")

# By chance it would be 6 %.
assert share > 0.5
