"""Errors and warnings; every message names the argument, the rule, what came, and the remedy."""

from __future__ import annotations


class DeelInfluenceError(Exception):
    """Base class of the errors that the library raises on purpose."""


class BackendError(DeelInfluenceError, ImportError):
    """Keras runs on a back end other than TensorFlow."""


class NotBatchedError(DeelInfluenceError, ValueError):
    """A dataset yields single examples where batches are needed."""


class InfiniteDatasetError(DeelInfluenceError, ValueError):
    """A dataset never ends."""


class EmptyDatasetError(DeelInfluenceError, ValueError):
    """A dataset yields no example."""


class DatasetOrderError(DeelInfluenceError, ValueError):
    """A dataset changes its order from pass to pass, so that positions identify nothing."""


class LabelError(DeelInfluenceError, ValueError):
    """Labels do not fit the loss and the outputs of the model."""


class NonFiniteError(DeelInfluenceError, ValueError):
    """A computation gave NaN or infinity; the message names the first batch that did."""


class BatchError(DeelInfluenceError, ValueError):
    """A batch cannot be read or computed; the message gives the reason."""


class UnsupportedModelError(DeelInfluenceError, ValueError):
    """The model cannot be used as it is, for the reason given in the message."""


class UnknownLayerError(DeelInfluenceError, ValueError):
    """A layer that was asked for is not in the model."""


class LossShapeError(DeelInfluenceError, ValueError):
    """A loss, or a measurement, does not give one number per example."""


class CoupledExamplesError(DeelInfluenceError, ValueError):
    """The examples of a batch influence each other, so that none has a loss of its own."""


class NoGradientError(DeelInfluenceError, ValueError):
    """No gradient of the loss reaches the watched weights."""


class NoCurvatureError(DeelInfluenceError, ValueError):
    """The curvature is zero, as that of an absolute error, so that it has no inverse."""


class MissingLossError(DeelInfluenceError, ValueError):
    """There is no loss: the model is not compiled and none was given."""


class CurvatureSizeError(DeelInfluenceError, MemoryError):
    """A dense curvature matrix does not fit in memory."""


class MissingDerivativeError(DeelInfluenceError, ValueError):
    """TensorFlow does not have a derivative that a method takes; the message says what works."""


class ConvergenceError(DeelInfluenceError, ArithmeticError):
    """A solver did not reach its tolerance; the message says what to change."""


class DataSourceError(DeelInfluenceError, ValueError):
    """A data source on disk is missing, corrupt or of the wrong form."""


class DecisionsError(DataSourceError):
    """Decisions about labels cannot be read, or are not about the data; the message names lines."""


class SavedCurvatureError(DataSourceError):
    """A fitted strategy on disk is missing, corrupt, or was fitted on another model."""


class ShardError(DeelInfluenceError, RuntimeError):
    """A shard of a long run was not computed; the message says why, and what is kept."""


class MissingExtraError(DeelInfluenceError, ImportError):
    """An optional package is missing or cannot be used; the message says how to install it."""


class CurvatureWarning(UserWarning):
    """The curvature is not what a strategy needs: indefinite, or known by its diagonal only."""


class NoGradientWarning(UserWarning):
    """Examples or queries have no gradient, so that their scores are zero and say nothing."""


class ConvergenceWarning(UserWarning):
    """A solver did not reach its tolerance; the message says how far it got and what to change."""


class LayerRuleWarning(UserWarning):
    """A layer's fast rule was set aside; automatic differentiation, slower, serves it."""


class DefaultLayerWarning(UserWarning):
    """Which layer of a model runs last could not be found out; the message names the one taken."""


class IgnoredTermWarning(UserWarning):
    """A term of the training objective cannot be attributed to examples and is left out."""


class IgnoredArgumentWarning(UserWarning):
    """An argument has no effect where it was given; the message says where it would have."""
