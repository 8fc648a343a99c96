"""Compare predicted with true leave-one-out retraining.

Logistic regression with an L2 penalty is convex, so that training again without an example has
one answer, and the prediction of influence functions can be held against it.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from deel_influence.common import InfluenceModel
from deel_influence.influence import FirstOrderInfluenceCalculator

PENALTY = 0.1  # of PENALTY / 2 * |w|^2, beside the mean loss
NUM_REMOVALS = 15

data = load_breast_cancer()
features = StandardScaler().fit_transform(data.data)
labels = data.target
train, query = np.arange(400), np.arange(400, 569)


def fit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel ``(30, 1)`` and bias ``(1,)``, trained to convergence on these rows."""
    # scikit-learn sums the losses where the objective here takes their mean.
    regression = LogisticRegression(C=1 / (PENALTY * len(rows)), tol=1e-10, max_iter=1000)
    regression.fit(features[rows], labels[rows])
    return regression.coef_.T, regression.intercept_


def query_loss(kernel: np.ndarray, bias: np.ndarray) -> float:
    """Return the mean loss on the query rows."""
    margins = (2 * labels[query] - 1) * (features[query] @ kernel + bias)[:, 0]
    return float(np.logaddexp(0, -margins).mean())


keras.utils.set_random_seed(0)
kernel, bias = fit(train)
layer = keras.layers.Dense(
    1, kernel_regularizer=keras.regularizers.L2(PENALTY / 2), dtype="float64"
)
model = keras.Sequential([keras.Input((30,), dtype="float64"), layer])
layer.set_weights([kernel, bias])

train_set = tf.data.Dataset.from_tensor_slices((features[train], labels[train])).batch(100)
query_set = tf.data.Dataset.from_tensor_slices((features[query], labels[query])).batch(100)
loss = keras.losses.BinaryCrossentropy(from_logits=True)
calculator = FirstOrderInfluenceCalculator(InfluenceModel(model, loss_function=loss), train_set)
predicted = calculator.predict_loss_change(query_set, train_set).mean(axis=0)

# Examples from one end of the predictions to the other.
removed = np.argsort(predicted)[np.linspace(0, len(train) - 1, NUM_REMOVALS).astype(int)]
before = query_loss(kernel, bias)
true = np.array([query_loss(*fit(np.delete(train, i))) - before for i in removed])

for i, change in zip(removed, true, strict=True):
    print(f"without example {i:3d}: predicted {predicted[i]:+.6f}, true {change:+.6f}")
correlation = np.corrcoef(predicted[removed], true)[0, 1]
print(f"correlation: {correlation:.4f}")
assert correlation > 0.98
