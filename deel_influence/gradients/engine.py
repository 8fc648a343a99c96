"""The per-example gradient engine: any model, exact, at about the cost of a training step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any

import keras
import tensorflow as tf

from ..errors import BatchError, DeelInfluenceError, UnsupportedModelError
from ..model.influence_model import BaseInfluenceModel
from ..model.selection import check_watched
from ..types import Batch
from ..utils.arguments import is_plain
from ..utils.datasets import batch_size_of
from ..utils.derivatives import derivatives_checked
from ..utils.kernels import Kernel
from ..utils.order import OrderGuard
from ..utils.reasons import reason_of
from ..utils.tensors import described
from .batch_gradients import BatchGradients, PlacedBlock
from .blocks import RowsBlock
from .capture import Forward
from .plan import Plan, RuledLayer
from .probe import settle

MAX_PROBES = 5
"""How many batches are probed at most where the first ones prove little."""


class GradientEngine:
    """Per-example gradients of a wrapped model, as its `Plan` finds them.

    Call `prepare` with a batch of real data before `gradients` is traced: it compares the rules
    with plain automatic differentiation on the first examples, and moves a layer that disagrees
    to automatic differentiation, with a warning that names it.

    Parameters
    ----------
    model
        The wrapped model.

    Attributes
    ----------
    plan
        How gradients are found. It stays once a batch has settled it; functions that were compiled
        for another are forgotten.
    """

    def __init__(self, model: BaseInfluenceModel) -> None:
        self.model = model
        self.plan = Plan.of(model)
        self.prepared = False
        self._probes_left = MAX_PROBES
        self.order_guard = OrderGuard()
        self._kernels: dict[Hashable, tuple[Kernel, Callable[..., Any]]] = {}
        self._traces: dict[Hashable, dict] = {}
        self._known_forms: set[str] = set()

    @classmethod
    def of(cls, model: BaseInfluenceModel) -> GradientEngine:
        """Return the engine of ``model``, which is built once."""
        return model.resource("gradient_engine", lambda: cls(model))

    def __reduce__(self) -> tuple:
        """Pickle and copy the model alone, whose engine is built again."""
        return GradientEngine.of, (self.model,)

    @property
    def ruled(self) -> tuple[RuledLayer, ...]:
        """The layers that rules serve."""
        return self.plan.ruled

    @property
    def fallback_variables(self) -> list[keras.Variable]:
        """The watched variables that automatic differentiation serves."""
        return self.plan.fallback_variables

    @property
    def is_final(self) -> bool:
        """Whether no batch will change the plan any more."""
        return self._probes_left == 0

    def prepare(self, batch: Batch) -> None:
        """Probe the plan on the first examples of ``batch``.

        Two examples with a gradient settle it. A batch of one, or one without gradients, proves
        little: the next batches are probed too, until one settles it or some have been tried.

        Raises
        ------
        BatchError
            If TensorFlow or Keras refuses the batch.
        UnsupportedModelError
            If the model does not run on single examples, or has lost a watched weight.
        """
        check_watched(self.model.model, self.model.weights)
        if self.is_final or (self.prepared and batch_size_of(batch) < 2):
            self._check_form(batch)
            return
        with derivatives_checked(), refusals_explained(self.model, batch):
            plan = settle(self.plan, batch)
        self._known_forms.add(_form(batch))
        if plan != self.plan:
            self._kernels.clear()
            self._traces.clear()
        self.plan = plan
        self.prepared = True
        self._probes_left = 0 if self.plan.is_settled else self._probes_left - 1

    def _check_form(self, batch: Batch) -> None:
        """Run the model on one example of a form that it has not met."""
        form = _form(batch)
        if form not in self._known_forms:
            with refusals_explained(self.model, batch):
                self.model.predict_batch(tf.nest.map_structure(lambda t: t[:1], batch))
            self._known_forms.add(form)

    def gradients(self, batch: Batch) -> BatchGradients:
        """Return the gradients of a batch; to be called inside the function being traced."""
        if not self.prepared:
            message = (
                "The engine must be prepared before it is used. Call "
                "`engine.prepare(batch)` with a batch of the dataset first."
            )
            raise DeelInfluenceError(message)
        return self.plan.gradients(batch)

    def graph_gradients(self, batch: Batch) -> BatchGradients:
        """Do what `gradients` does, in a graph of its own where it is called eagerly.

        Keras finds the logits behind a softmax that is no layer in a graph only, as in `fit`;
        without them it clips the probabilities, and the gradients of confident predictions vanish.
        What comes from that graph are rows, ``(b, p)``, one block for each variable.
        """
        if not tf.executing_eagerly():
            return self.gradients(batch)

        def compiled(examples: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            found = self.gradients(examples)
            return found.losses, found.materialize()

        losses, rows = self.kernel("eager_gradients", compiled)(batch)
        layout = self.model.layout
        parts = tf.split(rows, layout.sizes, axis=1)
        placed = [PlacedBlock((i,), RowsBlock(part)) for i, part in enumerate(parts)]
        return BatchGradients(losses, placed, layout)

    def forward(self, batch: Batch, tapes: Sequence[tf.GradientTape]) -> Forward:
        """Run the forward pass, as `Plan.forward` does."""
        return self.plan.forward(batch, tapes)

    def forward_to_logits(
        self,
        batch: Batch,
        tapes: Sequence[tf.GradientTape],
        logits_tapes: Sequence[tf.GradientTape],
    ) -> tuple[Forward, tf.Tensor]:
        """Run the forward pass up to the logits, as `Plan.forward_to_logits` does."""
        return self.plan.forward_to_logits(batch, tapes, logits_tapes)

    def assemble(
        self,
        batch: Batch,
        forward: Forward,
        deltas: Sequence[tf.Tensor],
        cotangent: tf.Tensor | None = None,
    ) -> BatchGradients:
        """Turn gradients in the taps into blocks, as `Plan.assemble` does."""
        return self.plan.assemble(batch, forward, deltas, cotangent)

    def kernel(
        self, key: Hashable, function: Callable[..., Any], jit_compile: bool = False
    ) -> Kernel:
        """Return the compiled form of ``function``, kept under ``key`` for later calls.

        It is kept as long as the model is, and so is all that ``function`` refers to: what a
        single strategy or calculator needs belongs into the arguments, or into a `Kernel` of its
        own. The same function around other values takes the place of the one before.

        Parameters
        ----------
        key
            A name for it.
        function
            A function of tensors.
        jit_compile
            Whether XLA compiles it.

        Raises
        ------
        ValueError
            If another function is kept under that key.
        """
        kernel, known = self._kernels.get(key, (None, function))
        if _code(known) is not _code(function):
            message = f"Argument `key` must be new for another function. Received: {key!r}."
            raise ValueError(message)
        if kernel is None or not _same_values(known, function):
            kernel = Kernel(function, jit_compile)
            self._kernels[key] = kernel, function
        return kernel

    def traces(self, key: Hashable) -> dict:
        """Return where compiled forms are kept that belong to the model and to ``key`` alone."""
        return self._traces.setdefault(key, {})


def _form(batch: Batch) -> str:
    """Return types and shapes of a batch, the number of its examples apart."""
    return str(tf.nest.map_structure(lambda t: (t.dtype, tuple(t.shape[1:])), batch))


def _code(function: Any) -> Any:
    return getattr(function, "__code__", function)


def _same_values(one: Any, other: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Tell whether two functions of the same code take the same values from around them."""
    seen |= {id(one)}
    pairs = zip(_around(one), _around(other), strict=True)
    return all(_is_same(mine, theirs, seen) for mine, theirs in pairs)


def _around(function: Any) -> tuple:
    cells = [_content(cell) for cell in getattr(function, "__closure__", None) or ()]
    defaults = getattr(function, "__defaults__", None) or ()
    return (getattr(function, "__self__", None), *cells, *defaults)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_same(one: Any, other: Any, seen: frozenset[int]) -> bool:
    """Compare values by identity and, where that is a matter of their content, by equality."""
    if one is other or id(one) in seen:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, FunctionType):
        return _code(one) is _code(other) and _same_values(one, other, seen)
    return (is_plain(one) or dataclasses.is_dataclass(one)) and bool(one == other)


_STEPS: tuple[tuple[Callable[[BaseInfluenceModel, Batch], Any], str], ...] = (
    (BaseInfluenceModel.predict_batch, "Check that its inputs are what the model takes."),
    (
        BaseInfluenceModel.per_example_losses,
        "The model takes its inputs; check its labels and sample weights, and the loss.",
    ),
)


@contextmanager
def refusals_explained(model: BaseInfluenceModel, batch: Batch) -> Iterator[None]:
    """Say what it is where TensorFlow or Keras refuses to run the model on some examples.

    Parameters
    ----------
    model
        The wrapped model.
    batch
        The batch of which the body computes some examples.

    Raises
    ------
    BatchError
        If the model, or its loss, does not take the batch.
    UnsupportedModelError
        If it takes the batch, but not some of its examples.
    """
    try:
        yield
    except DeelInfluenceError:
        raise
    except (ValueError, TypeError, tf.errors.OpError) as error:
        for compute, remedy in _STEPS:
            try:
                compute(model, batch)
            except DeelInfluenceError:
                raise
            except (ValueError, TypeError, tf.errors.OpError) as refusal:
                message = (
                    f"The model and its loss must take every batch. Received: {described(batch)}, "
                    f"which fails with: {reason_of(refusal)}. {remedy}"
                )
                raise BatchError(message) from error
        message = (
            "The model must run on batches of any size, single examples included. Received: a "
            f"{type(model.model).__name__} that takes a batch of {batch_size_of(batch)}, but not "
            f"its first examples alone: {reason_of(error)}. Read the number of examples off the "
            "inputs instead of fixing it, as Input(batch_size=...) does."
        )
        raise UnsupportedModelError(message) from error
