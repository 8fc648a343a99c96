"""Calculators as values: what they were made with, what they can be asked, and on which data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
import tensorflow as tf

from ..gradients.engine import GradientEngine
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.persistence import restored_strategy
from ..model.fingerprint import check_same_model, model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement, measured_model
from ..types import Data
from ..utils.arguments import arguments_of, is_plain
from ..utils.digests import settings_digest
from ..utils.files import npz_path
from ..utils.portable import Portable
from ..utils.records import RecordKind

SELF, PAIRS, GROUPS, LOSS_CHANGE, MEASUREMENT = (
    "self",
    "pairs",
    "groups",
    "loss change",
    "measurement",
)
"""What a calculator may answer; see `Described.answers`."""

_DATA = ("train_dataset", "dataset", "train_set")

Kind = TypeVar("Kind", bound="Described")

_KINDS: dict[str, type[Described]] = {}
"""All calculators, by their full names."""

CALCULATOR = RecordKind("saved calculator", "Make the calculator, and save it again.")


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class Described(Portable):
    """What knows the arguments that it was made with."""

    answers: ClassVar[frozenset[str]] = frozenset()
    """What it can be asked.

    ``"self"``: `score`, a score for each example. ``"pairs"``: `influence_matrix`, scores of
    training examples for queries. ``"groups"``: `compute_influence_vector_group` and
    `estimate_influence_values_group`. ``"loss change"``: `predict_loss_change(queries, train_set,
    groups)`, in units of the loss. ``"measurement"``: each for another number than the loss.
    """

    model: BaseInfluenceModel
    _arguments: Mapping[str, Any]

    def __init_subclass__(cls) -> None:
        """Tell whether another number than the loss can be looked at."""
        super().__init_subclass__()
        _KINDS[_name_of(cls)] = cls
        takes_one = "measurement" in inspect.signature(cls.__init__).parameters
        cls.answers = cls.answers - {MEASUREMENT} | ({MEASUREMENT} if takes_one else set())

    def __new__(cls, *args: Any, **kwargs: Any) -> Described:
        """Note the arguments."""
        new = super().__new__(cls)
        new._arguments = arguments_of(cls, args, kwargs) or {}
        return new

    def __repr__(self) -> str:
        """Tell the settings, those apart that ask for nothing, and the model."""
        settings = [
            f"{name}={value!r}"
            for name, value in self.get_config().items()
            if value is not None and value is not False
        ]
        model = getattr(self, "model", None)  # which a constructor that fails has not set
        return f"<{type(self).__name__}({', '.join(settings)}) of {model!r}>"

    def origin(self) -> str:
        """Return a digest of what results depend on besides the data: class, model and settings.

        Raises
        ------
        ValueError
            If a setting is no number, text or list.
        """
        odd = [name for name in self._arguments if not self._is_restorable(name)]
        if odd:
            message = (
                f"Argument `{odd[0]}` must be a number, text or list for results to be kept under "
                f"a digest of the settings. Received: a {type(self).__name__} with a "
                f"{type(self._arguments[odd[0]]).__name__}. Compute without a folder (`path=None`)."
            )
            raise ValueError(message)
        settings = {n: v for n, v in self.get_config().items() if n != "ihvp_calculator"}
        return settings_digest([_name_of(type(self)), model_fingerprint(self.model), settings])

    def get_config(self) -> dict[str, Any]:
        """Return the settings that it was made with, by name, without models and data.

        Returns
        -------
        Numbers, texts, lists and dicts, which JSON can hold; a function counts by its name.
        """
        data = {*_DATA, *self._needed_data}
        return {
            name: _plain(value)
            for name, value in self._arguments.items()
            if name not in data and not _is_input(value)
        }

    def with_dataset(self: Kind, dataset: Data) -> Kind:
        """Return a calculator with the same model and settings that is fitted on another dataset.

        Parameters
        ----------
        dataset
            The batched training set. Calculators that take none have no part in it.
        """
        arguments = dict(self._arguments)
        arguments.update({name: dataset for name in _DATA if name in arguments})
        strategy = arguments.get("ihvp_calculator")
        if isinstance(strategy, InverseHessianVectorProduct):
            arguments["ihvp_calculator"] = strategy.with_dataset(dataset)
        return type(self)(**arguments)

    def save(self, path: str | Path) -> Path:
        """Write the settings, and the fitted strategy if there is one, to one ``.npz`` file.

        The model and the data are not in it: `load` is given them, and refuses another model.

        Returns
        -------
        The path of the file, with its suffix.

        Raises
        ------
        ValueError
            If there is a fit of the calculator's own, or a setting that is no number, text or list.
            A pickle holds such a calculator.
        """
        strategy = getattr(self, "ihvp_calculator", None)
        config = self.get_config()
        own = [name for name in self._arguments if not self._is_restorable(name)]
        if own:
            message = (
                f"Argument `{own[0]}` must be a number, text or list for settings to be saved. "
                f"Received: a {type(self).__name__} that cannot be, because of its "
                f"{', '.join(own)}. Use pickle, which holds all of it but the data."
            )
            raise ValueError(message)
        header = {
            "class": _name_of(type(self)),
            "config": {n: value for n, value in config.items() if n != "ihvp_calculator"},
            "model": model_fingerprint(self.model),
            "strategy": None if strategy is None else strategy.saved_header(),
        }
        arrays = {} if strategy is None else strategy.state()
        return CALCULATOR.write(npz_path(path), header, arrays)

    @classmethod
    def load(
        cls: type[Kind],
        path: str | Path,
        model: BaseInfluenceModel,
        train_dataset: Data | None = None,
    ) -> Kind:
        """Read what `save` wrote; on a base class, any calculator.

        Parameters
        ----------
        path
            The file.
        model
            The wrapped model, with the weights, loss and watched layers that it had.
        train_dataset
            The training set, or the part of it at hand, for calculators that are made with one.
            The fit knows the size of the whole.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, of another calculator, or of another model; for
            strategies whose products go over the data, also of other data.
        """
        path = npz_path(path)
        header, arrays = CALCULATOR.read(path, lambda header, arrays: (header, arrays))
        with CALCULATOR.parsing(path):
            name, arguments = header["class"], dict(header["config"])
            kind: Any = _KINDS.get(name)
            if kind is None or not issubclass(kind, cls):
                raise CALCULATOR.refused(path, f"holds a {name}, which is no known {cls.__name__}")
            check_same_model(header["model"], model, path)
            saved = header["strategy"]
        if saved is not None:
            base: Any = InverseHessianVectorProduct
            arguments["ihvp_calculator"] = restored_strategy(
                base, saved, arrays, path, model, train_dataset
            )
            # Which the fit has made use of.
            arguments.pop("n_samples_for_hessian", None)
        names = inspect.signature(kind.__init__).parameters
        arguments.update({name: train_dataset for name in _DATA if name in names})
        return kind(model, **arguments)

    def _is_restorable(self, name: str) -> bool:
        """Tell whether `load` can make an argument again."""
        value = self._arguments[name]
        if name in _DATA:  # all that was made of the data is the strategy
            return self._arguments.get("ihvp_calculator") is not None
        return value is self.model or name == "ihvp_calculator" or is_plain(value)

    def _shared(self, name: str, value: Any) -> Any:
        if name != "_arguments":
            return super()._shared(name, value)
        return {key: super(Described, self)._shared(key, part) for key, part in value.items()}


class Measured(Described):
    """What looks at a number of the queries, in place of their loss."""

    _made_again = frozenset({"query_model", "query_engine"})

    measurement: Measurement
    query_model: BaseInfluenceModel
    query_engine: GradientEngine

    def _look_at_queries(self) -> None:
        """Make the model of the queries and its engine; to be called by the constructor."""
        self.query_model = measured_model(self.model, self.measurement)
        self.query_engine = GradientEngine.of(self.query_model)

    def _make_again(self) -> None:
        super()._make_again()
        self._look_at_queries()


def _is_input(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_input, value))
    return isinstance(value, (BaseInfluenceModel, tf.data.Dataset, keras.Model))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if hasattr(value, "get_config") and not isinstance(value, type):
        return {"name": getattr(value, "name", type(value).__name__), **value.get_config()}
    return getattr(value, "__qualname__", type(value).__name__)
