"""The inverse of a Fisher matrix with corrected eigenvalues in a Kronecker-factored eigenbasis."""

from __future__ import annotations

from ..curvature.kronecker import correct_eigenvalues, fit_kronecker
from ..curvature.kronecker_basis import EigenBlock
from ..curvature.kronecker_passes import FisherPass, HeldFactors
from .kronecker import KroneckerIHVP


class EKFACIHVP(KroneckerIHVP):
    """``H = (U_A ⊗ U_G) Λ (U_A ⊗ U_G)ᵀ + damping·I`` for each layer [1]_, as used in [2]_.

    U_A and U_G are the eigenvectors of the two covariances of `KFACIHVP`; Λ, in place of the
    products of their eigenvalues, holds the mean squares of the gradients in that basis, which a
    second pass gives: over the inputs and output gradients of the first where they fit in a
    quarter of the free memory, else over the data, with the same draws of targets. Of all
    diagonals Λ is the one nearest to the layer's Fisher matrix in the Frobenius norm.

    Scores never need the ``(b, p)`` matrix of gradients: self-influence costs about a training
    step, scores against m queries about the matrix product of their sizes. Layers without a
    Kronecker form, regularisers and the Fisher matrix itself are treated as in `KFACIHVP`.

    Parameters
    ----------
    model, train_dataset, damping, fisher, approximation, query_rank, n_samples_for_hessian, seed
        As for `KFACIHVP`.
    verbose
        As in Keras.

    References
    ----------
    .. [1] T. George, C. Laurent, X. Bouthillier, N. Ballas, P. Vincent. Fast Approximate Natural
       Gradient Descent in a Kronecker-factored Eigenbasis. NeurIPS 2018.
    .. [2] R. Grosse et al. Studying Large Language Model Generalization with Influence Functions.
       arXiv:2308.03296, 2023.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf
    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.randn(64, 4).astype("float32"), np.random.randint(0, 3, 64)
    >>> net = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    ... )
    >>> from deel_influence.model import BaseInfluenceModel
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    >>> ekfac = EKFACIHVP(BaseInfluenceModel(net, loss_function=loss), data, seed=0, verbose=0)
    >>> ekfac.compute_ihvp(data).shape
    TensorShape([64, 67])
    """

    name = "ekfac"
    separable = True

    def _fit(self, fisher: FisherPass, approximation: str) -> list[EigenBlock]:
        held = HeldFactors()
        return correct_eigenvalues(fisher, fit_kronecker(fisher, approximation, held), held)
