"""Choose an inverse-Hessian strategy for a trained network, check it, and keep the fit.

All 2,410 weights of a small network are watched. Which strategy is good enough, and at which
damping? The curvature is looked at first; a cheap strategy is fitted, held against conjugate
gradients on a few queries, saved, and loaded again.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from deel_influence.common import InfluenceModel
from deel_influence.ihvp import (
    EKFACIHVP,
    ConjugateGradientDescentIHVP,
    InverseHessianVectorProduct,
    diagnose,
)
from deel_influence.influence import FirstOrderInfluenceCalculator

keras.utils.set_random_seed(0)

digits = load_digits()
x, y = (digits.data / 16).astype("float32"), digits.target
model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(10)]
)
model.compile(
    keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
model.fit(x[:1000], y[:1000], batch_size=100, epochs=20, verbose=0)

train_set = tf.data.Dataset.from_tensor_slices((x[:1000], y[:1000])).batch(250)
queries = tf.data.Dataset.from_tensor_slices((x[1000:1032], y[1000:1032])).batch(32)
influence_model = InfluenceModel(model, start_layer=0, last_layer=-1)

# 1. Look: is this a minimum, how far apart are the eigenvalues, what would the strategies cost,
# and how far from conjugate gradients are the cheap ones? The network was not trained to
# convergence, and the Gauss-Newton matrix has no negative eigenvalues to trouble the solvers.
found = diagnose(
    influence_model,
    train_set,
    curvature="gauss_newton",
    strategies=["identity", "ekfac", "nystrom"],
)
few = queries.unbatch().take(8).batch(8)


def values(ihvp: InverseHessianVectorProduct) -> np.ndarray:
    """Return the influence of all training examples on the few queries."""
    calculator = FirstOrderInfluenceCalculator(influence_model, train_set, ihvp)
    return calculator.influence_matrix(few, train_set, verbose=0)


# 2. and 3. Try EKFAC, two passes over the data, and compare it with solves whose residuals are
# known. Damping decides how much is asked: the less there is, the more the small eigenvalues
# matter, which approximations get wrong first.
correlations = []
for damping in (found.recommended_damping, 0.02):
    cgd = ConjugateGradientDescentIHVP(
        influence_model, train_dataset=train_set, curvature="gauss_newton", damping=damping
    )
    ekfac = EKFACIHVP(influence_model, train_set, damping=damping, fisher="expected", verbose=0)
    expected, found_by_ekfac = values(cgd), values(ekfac)
    correlations.append(np.corrcoef(expected.ravel(), found_by_ekfac.ravel())[0, 1])
    print(
        f"damping {damping:.1e}: correlation of EKFAC with conjugate gradients "
        f"{correlations[-1]:.2f}, their largest residual {cgd.last_result.residual_norm.max():.0e}"
    )

# Where that is not enough: EKFAC as the preconditioner of conjugate gradients, or Nyström with a
# rank at which the column `error` of the diagnosis is small.

# 4. Keep: the file refuses other weights, so that an old fit is never taken for a new one.
path = ekfac.save("digits_ekfac.npz")
loaded = InverseHessianVectorProduct.load(path, influence_model)
same = np.allclose(values(loaded), found_by_ekfac, rtol=1e-4, atol=1e-5)
print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, the same scores: {same}")

assert cgd.last_result.all_converged
assert correlations[-1] > 0.7
assert same
