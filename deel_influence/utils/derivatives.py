"""Derivatives that TensorFlow does not have, found before a graph is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from ..errors import MissingDerivativeError
from .reasons import reason_of

_OLD_LOOP = "a loop, such as that of keras.losses.CTC, which has no second derivative"


@contextmanager
def derivatives_checked() -> Iterator[None]:
    """Say so where TensorFlow finds no derivative of an operation while it runs the body.

    Raises
    ------
    MissingDerivativeError
        Names the operation, and what works without that derivative.
    """
    try:
        yield
    except LookupError as error:
        # Its subclasses, such as KeyError, are faults of another kind.
        if type(error) is not LookupError:
            raise
        raise _missing(reason_of(error)) from error
    except tf.errors.InvalidArgumentError as error:
        # What the derivative of an old loop is made of has the same names each time.
        if "add a duplicate function" not in str(error):
            raise
        raise _missing(_OLD_LOOP) from error


def check_derivatives(graph: Any) -> None:
    """Refuse a traced graph that leaves a derivative to be found when it runs.

    TensorFlow does so for the loops of its first version, of which `keras.losses.CTC` has two. The
    derivative of their derivative does not exist, and looking for it may end the process with a
    segmentation fault: several threads do so at once, on a function that was never made.

    Parameters
    ----------
    graph
        The graph of a concrete function.

    Raises
    ------
    MissingDerivativeError
        Says what works without that derivative.
    """
    inner = graph.as_graph_def().library.function
    operations = [operation.type for operation in graph.get_operations()]
    operations += [node.op for function in inner for node in function.node_def]
    if "SymbolicGradient" in operations:
        raise _missing(_OLD_LOOP)


def _missing(reason: str) -> MissingDerivativeError:
    message = (
        "TensorFlow must have the derivatives of the model and its loss that a method takes. "
        f"Received: {reason}. Where only second derivatives are missing, take a strategy that "
        'needs first ones alone: "identity", "datainf" or "logra", EKFACIHVP or KFACIHVP with '
        'fisher="empirical", or an iterative one with curvature="empirical_fisher".'
    )
    return MissingDerivativeError(message)
