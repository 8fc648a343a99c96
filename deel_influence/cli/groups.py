"""Options that commands share, in groups that are values: said once, checked once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

from .errors import CommandError
from .methods import Method, Takes
from .options import (
    BatchSizeOption,
    CurvatureOption,
    DampingOption,
    DataOption,
    IdOption,
    Ihvp,
    ImportOption,
    LabelOption,
    LossOption,
    ModelOption,
    NumShardsOption,
    OptionalIhvpOption,
    SamplesOption,
    ShardOption,
    TextOption,
    WeightsOption,
)
from .settings import (
    FITTED_SUFFIX,
    StrategySettings,
    check_at_least_one,
    check_file,
    check_left_out,
    check_model_file,
    check_suffix,
    choose_strategy,
)


def in_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with options in place of the parameters that are groups of them.

    A group is a dataclass whose fields are annotated as options are; the command receives it made
    and checked.
    """
    groups: dict[str, type[Any]] = {}
    options: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        group = hints[name]
        if is_dataclass(group) and isinstance(group, type):
            groups[name] = group
            options += inspect.signature(group, eval_str=True).parameters.values()
        else:
            options.append(parameter.replace(annotation=group))

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    alone = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    run.__signature__ = inspect.Signature(alone)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in alone}
    return run


@dataclass(frozen=True)
class Inputs:
    """A model and its training set, as they are named on the command line.

    Attributes
    ----------
    model, data, weights, loss, batch_size
        The options of these names.
    label, id, text
        Columns of a table.
    imports
        What to import before the model is loaded.
    """

    model: ModelOption
    data: DataOption
    weights: WeightsOption = None
    loss: LossOption = None
    label: LabelOption = None
    id: IdOption = None
    text: TextOption = None
    imports: ImportOption = None
    batch_size: BatchSizeOption = 256

    def __post_init__(self) -> None:
        """Refuse what can be seen to be wrong before TensorFlow is loaded."""
        check_at_least_one("--batch-size", self.batch_size)
        check_model_file(self.model)


@dataclass(frozen=True)
class StrategyOptions:
    """The strategy in whose metric gradients are compared.

    Attributes
    ----------
    ihvp, damping, samples
        The options of these names.
    """

    ihvp: OptionalIhvpOption = None
    damping: DampingOption = None
    samples: SamplesOption = None

    @property
    def given(self) -> dict[str, object]:
        """The options by name; None where one was not given."""
        return asdict(self)

    def metric_of(self, method: Method) -> StrategySettings | Path | None:
        """Return the strategy that the options ask for; None where the method has none.

        Raises
        ------
        CommandError
            If one of them cannot be used.
        """
        if Takes.STRATEGY in method.takes:
            return choose_strategy(self.ihvp or Ihvp.auto, self.damping, self.samples)
        check_left_out(
            self.given,
            f"sets up a strategy, and --method {method.value} takes none",
            f"--method {method.value}",
        )
        return None


@dataclass(frozen=True)
class MetricOptions(StrategyOptions):
    """The same, or the file of a fitted strategy in its place.

    Attributes
    ----------
    curvature
        The option of this name.
    """

    curvature: CurvatureOption = None

    def metric_of(self, method: Method) -> StrategySettings | Path | None:
        """Return the file where one is given, and else what the other options ask for."""
        if self.curvature is None or Takes.STRATEGY not in method.takes:
            return super().metric_of(method)
        check_left_out(
            {**self.given, "curvature": None},
            "is settled in the file of --curvature",
            f"--curvature {self.curvature}",
        )
        check_file("--curvature", self.curvature)
        check_suffix("--curvature", self.curvature, FITTED_SUFFIX)
        return self.curvature


@dataclass(frozen=True)
class ShardOptions:
    """Which shard of the data to compute.

    Attributes
    ----------
    shard, num_shards
        The options of these names.
    """

    shard: ShardOption = None
    num_shards: NumShardsOption = None

    @property
    def place(self) -> tuple[int, int]:
        """Which shard it is, from 0, and of how many; one that is all where none is asked for."""
        return self.shard or 0, self.num_shards or 1

    def __post_init__(self) -> None:
        """Refuse one of the two alone, and a shard that is not there."""
        if self.shard is None and self.num_shards is None:
            return
        if self.shard is None or self.num_shards is None:
            lone = "--shard" if self.num_shards is None else "--num-shards"
            message = (
                f"--shard and --num-shards tell together what to compute. Received: {lone} alone. "
                "Pass both, or none for all of the data."
            )
            raise CommandError(message)
        check_at_least_one("--num-shards", self.num_shards)
        if not 0 <= self.shard < self.num_shards:
            message = (
                "--shard must count from 0 and be below --num-shards. Received: "
                f"{self.shard} of {self.num_shards}."
            )
            raise CommandError(message)
