# %% [markdown]
# # Choose a strategy
#
# All 2,410 weights of a small network are to be watched. The quality of an influence score is that
# of `H⁻¹g`, and [there are many ways](../strategies/index.md) to compute it. Which is good enough,
# and at which damping? Look first, try a cheap one, hold it against one whose error is known, and
# keep the fit.

# %%
import keras
import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

from deel_influence.common import InfluenceModel
from deel_influence.ihvp import (
    EKFACIHVP,
    ConjugateGradientDescentIHVP,
    IdentityIHVP,
    InverseHessianVectorProduct,
    diagnose,
)
from deel_influence.influence import FirstOrderInfluenceCalculator

keras.utils.set_random_seed(0)

# %%
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
queries = tf.data.Dataset.from_tensor_slices((x[1000:1008], y[1000:1008])).batch(8)
influence_model = InfluenceModel(model, start_layer=0, last_layer=-1)

# %% [markdown]
# ## Look
#
# Is this a minimum? How far apart are the eigenvalues, what would the strategies cost, and how far
# from conjugate gradients are the cheap ones? The network was not trained to convergence, and the
# Gauss-Newton matrix has no negative eigenvalues that could trouble a solver.

# %%
diagnosis = diagnose(
    influence_model,
    train_set,
    curvature="gauss_newton",
    strategies=["identity", "ekfac", "nystrom"],
    verbose=0,
)
print(f"largest eigenvalue      {diagnosis.largest_eigenvalue:.3f}")
print(f"recommended damping     {diagnosis.recommended_damping:.1e}")
print(f"condition number there  {diagnosis.condition_number:.0f}")
for name, trial in diagnosis.trials.items():
    print(f"{name:8} relative error {trial.relative_error:.2f}, cosine {trial.cosine:.2f}")

# %% [markdown]
# With `verbose=1` it prints all of this and more by itself.
#
# ## Try, and compare
#
# EKFAC needs two passes over the data and then costs next to nothing. It is compared with solves
# whose residuals are known, on all influence values of eight queries, at two dampings. Damping
# decides how much is asked: the less there is, the more the small eigenvalues matter, which
# approximations get wrong first.


# %%
def values(ihvp: InverseHessianVectorProduct) -> np.ndarray:
    """Return the influence of all training examples on the queries, shape ``(8, 1000)``."""
    calculator = FirstOrderInfluenceCalculator(influence_model, train_set, ihvp)
    return calculator.influence_matrix(queries, train_set)


dampings = (diagnosis.recommended_damping, 0.02)
figure, panels = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
correlations = []
for axes, damping in zip(panels, dampings, strict=True):
    cgd = ConjugateGradientDescentIHVP(
        influence_model, train_dataset=train_set, curvature="gauss_newton", damping=damping
    )
    ekfac = EKFACIHVP(influence_model, train_set, damping=damping, fisher="expected")
    expected, by_ekfac = values(cgd), values(ekfac)
    correlations.append(np.corrcoef(expected.ravel(), by_ekfac.ravel())[0, 1])
    axes.scatter(expected, by_ekfac, s=3)
    axes.axline((0, 0), slope=1, color="gray", linewidth=0.8)
    axes.set(title=f"damping {damping:.1e}", xlabel="conjugate gradients", ylabel="EKFAC")
    residual = cgd.last_result.residual_norm.max()
    print(f"damping {damping:.1e}: Pearson {correlations[-1]:.2f}, largest residual {residual:.0e}")

# %% [markdown]
# At the small damping the two hardly agree. At the larger one the large values, of which lists are
# made, are in their place; EKFAC makes them too large, so that orders carry over and amounts do
# not. How much of that is merit? The identity, which knows no curvature at all, is the measure:

# %%
by_identity = values(IdentityIHVP(influence_model, train_set))
without = np.corrcoef(expected.ravel(), by_identity.ravel())[0, 1]
print(f"damping {damping:.1e}: Pearson of the identity {without:.2f}")

# %% [markdown]
# Where EKFAC is not enough, it is the preconditioner of conjugate gradients
# (`preconditioner="ekfac"`), or one takes Nyström at a rank where its error is small. [The measured
# table](../strategies/index.md#measured) has them side by side.
#
# ## Keep
#
# A fit is one file. It knows which weights it belongs to, so that an old fit is never taken for a
# new one.

# %%
path = ekfac.save("digits_ekfac.npz")
loaded = InverseHessianVectorProduct.load(path, influence_model)
same = np.allclose(values(loaded), by_ekfac, rtol=1e-4, atol=1e-5)
print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, the same scores: {same}")

# %% tags=["remove-cell"]
assert cgd.last_result.all_converged
assert correlations[-1] > 0.7
assert same
