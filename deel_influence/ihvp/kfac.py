"""The inverse of a Kronecker-factored Fisher matrix."""

from __future__ import annotations

from ..curvature.kronecker import fit_kronecker
from ..curvature.kronecker_basis import EigenBlock
from ..curvature.kronecker_passes import FisherPass
from .kronecker import KroneckerIHVP


class KFACIHVP(KroneckerIHVP):
    """``H = A ⊗ G + damping·I`` for each layer, inverted in the eigenbasis of A and G [1]_.

    A is the covariance of a layer's inputs (with a one for the bias), G that of the gradients in
    its outputs: one pass over the data, and a few small eigenvalue problems. Layers are taken for
    independent. Layers applied to many positions are approximated as in [2]_; their formulas,
    and when they are exact, are in `deel_influence.curvature.kronecker`. Layers without a
    Kronecker form (normalisation, embedding, depthwise and grouped convolution, recurrent and
    custom ones) get their exact block up to 1,024 parameters, which is logged, and the diagonal
    beyond, of which a warning tells.

    The Fisher matrix is that of the model's predictive distribution, as its loss implies it; see
    `deel_influence.curvature.sampling`. Regularisers of the model have no Kronecker form and are
    left to the damping: an L2 penalty ``λ‖w‖²`` is one of 2λ on its layer.

    Parameters
    ----------
    model
        The wrapped model.
    train_dataset
        The batched training set.
    damping
        A number, one for each layer (a list, or a dict by layer name), or ``"auto"``: for each
        layer a tenth of the mean eigenvalue of its curvature [3]_, or of a millionth of the mean
        over all layers where that is more (a layer may have no curvature at all).
    fisher
        ``"true"`` (one draw of targets from the model for each example), ``"expected"`` (the
        expectation over the draws, at one backward pass for each output), or ``"empirical"``
        (the labels of the data; not the Fisher matrix, but defined for every model).
    approximation
        ``"expand"`` or ``"reduce"``, for layers that are applied to several positions.
    query_rank
        Keep the preconditioned gradients of queries at low rank, layer by layer, which takes less
        memory and time. It is the highest rank of a layer; those that need less for the same
        error get less. `query_truncation_error` tells what is lost. None keeps them whole.
    n_samples_for_hessian
        How many examples to draw for the curvature; None takes all.
    seed
        Fixes all draws.
    verbose
        As in Keras.

    Raises
    ------
    ValueError
        For an argument out of its range.
    NonFiniteError
        If a batch gives NaN or infinity; the message names it.

    Warns
    -----
    CurvatureWarning
        If only the diagonal of some layers is kept.

    References
    ----------
    .. [1] J. Martens, R. Grosse. Optimizing Neural Networks with Kronecker-factored Approximate
       Curvature. ICML 2015.
    .. [2] R. Eschenhagen, A. Immer, R. E. Turner, F. Schneider, P. Hennig. Kronecker-Factored
       Approximate Curvature for Modern Neural Network Architectures. NeurIPS 2023.
    .. [3] R. Grosse et al. Studying Large Language Model Generalization with Influence Functions.
       arXiv:2308.03296, 2023.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf
    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.randn(64, 3).astype("float32"), np.random.randn(64, 1).astype("float32")
    >>> net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    >>> from deel_influence.model import InfluenceModel
    >>> data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    >>> model = InfluenceModel(net, loss_function="mse")
    >>> kfac = KFACIHVP(model, data, damping=0.1, fisher="expected", verbose=0)
    >>> hessian = 2 * x.T @ x / 64 + 0.1 * np.eye(3)
    >>> bool(np.allclose(kfac.multiply(np.eye(3)), hessian, atol=1e-4))
    True
    """

    name = "kfac"
    separable = True

    def _fit(self, fisher: FisherPass, approximation: str) -> list[EigenBlock]:
        return fit_kronecker(fisher, approximation)
