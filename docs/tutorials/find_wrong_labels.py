"""Find wrong labels in a tabular training set.

The breast cancer data of scikit-learn: 569 tumours, 30 measurements each, benign or malignant. A
tenth of the labels are turned around, and the order by self-influence is compared with the
simplest alternative, the order by loss.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from deel_influence.common import InfluenceModel
from deel_influence.datasets import flip_labels
from deel_influence.influence import FirstOrderInfluenceCalculator

keras.utils.set_random_seed(0)

data = load_breast_cancer()
features = StandardScaler().fit_transform(data.data).astype("float32")
labels, is_flipped = flip_labels(data.target, fraction=0.1, seed=0)

model = keras.Sequential(
    [
        keras.Input((30,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
model.fit(features, labels, batch_size=64, epochs=20, verbose=0)

# Both layers are watched: 30 * 16 + 16 + 16 + 1 = 513 parameters.
influence_model = InfluenceModel(model, start_layer=0, last_layer=-1)
train_set = tf.data.Dataset.from_tensor_slices((features, labels)).batch(128)
calculator = FirstOrderInfluenceCalculator(influence_model, train_set, ihvp_calculator="identity")

scores = calculator.score(train_set).values
losses = np.concatenate([influence_model.per_example_losses(batch) for batch in train_set])


def share_found(values: np.ndarray) -> float:
    """Return the share of the wrong labels among the first tenth of the list."""
    first = np.argsort(-values)[: len(values) // 10]
    return is_flipped[first].sum() / is_flipped.sum()


print(f"found in the first 10 % by self-influence: {share_found(scores):.0%}")
print(f"found in the first 10 % by loss:           {share_found(losses):.0%}")

# By chance it would be a tenth.
assert share_found(scores) > 0.5
