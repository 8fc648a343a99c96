"""Objects apart from their tensors, so that what is compiled for one serves the others as well."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, NamedTuple, TypeVar

Kind = TypeVar("Kind", bound="Separable")


class Separated(NamedTuple):
    """An object apart from its tensors.

    Attributes
    ----------
    form
        All else that compiled functions depend on; those of objects of one form are the same.
    tensors
        A nest of tensors.
    over
        Makes the like of the object from other tensors of the same shapes.
    """

    form: Hashable
    tensors: Any
    over: Callable[[Any], Any]


class Separable:
    """What may hand its tensors to compiled functions as arguments.

    Subclasses that have tensors override `_separated`.
    """

    separable: ClassVar[bool] = False
    """Whether compiled functions read nothing but what `_separated` returns.

    A subclass has to say it anew, since it may have them read more.
    """

    def separated(self) -> Separated | None:
        """Return the object apart from its tensors; None where the two belong together."""
        return self._separated() if vars(type(self)).get("separable", False) else None

    def _separated(self) -> Separated | None:
        """Do what `separated` tells; here for an object without tensors. May be overridden."""
        return Separated((), (), lambda _: self)

    def _altered(self: Kind, **attributes: Any) -> Kind:
        """Return an object with some other attributes, for the time of a trace."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), **attributes)
        return twin
