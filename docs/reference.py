"""How the reference shows docstrings: as Markdown, with prose under Returns, and nothing twice.

An extension of griffe, which mkdocstrings calls when it has read the package.

- Code, citations and references of reST are written as Markdown has them.
- What stands under Returns or Yields is the description, as it is under Parameters; the type is
  the annotation.
- A class names what it inherits, with links to where that is described. What comes from a class
  that the reference does not have is described with the first class of the reference that has it.
- A package names what has its home on the page of another package, with links.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Alias, Class, DocstringSectionText, Extension, Module, Object

PAGES = Path(__file__).parent / "api"
RESULTS = re.compile(r"^(Returns|Yields)\n(-+)\n(.+?)(?=\n\n|\Z)", re.M | re.S)
MARKDOWN = [
    (re.compile("``"), "`"),
    (re.compile(r"\[(\d+)\]_"), r"\[\1\]"),
    (re.compile(r"^\.\. \[(\d+)\]", re.M), r"\1."),
]

Places = dict[str, str]
"""Path under which the reference shows an object, by the path where it is defined."""


class Reference(Extension):
    """Rewrite docstrings, and leave out what the reference says elsewhere."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Rewrite the docstrings of a package, and settle where each object is described."""
        for described in _objects(pkg):
            if described.docstring:
                _rewrite(described)
        pages = [pkg[file.stem] for file in sorted(PAGES.glob("*.md"))]
        places = _places(pages)
        for page in pages:
            _name_what_is_elsewhere(page, places)
        shown = [pkg[path.partition(".")[2]] for path in places]
        # Bases first: what a base got to describe needs no second place.
        classes = [item for item in shown if isinstance(item, Class)]
        for cls in sorted(classes, key=lambda cls: len(cls.mro())):
            _name_what_is_inherited(cls, places)


def _objects(parent: Object) -> Iterator[Object]:
    yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _rewrite(described: Object) -> None:
    def with_type(match: re.Match[str]) -> str:
        section, line, text = match.groups()
        returned = described.annotation
        returned = returned.slice if section == "Yields" else returned
        return f"{section}\n{line}\n{returned}\n{textwrap.indent(text, '    ')}"

    text = RESULTS.sub(with_type, described.docstring.value)
    for pattern, replacement in MARKDOWN:
        text = pattern.sub(replacement, text)
    described.docstring.value = text


def _exports(page: Module) -> Iterator[tuple[str, Object]]:
    for name in map(str, page.exports or page.classes):
        member = page.members[name]
        target = member.final_target if member.is_alias else member
        # A function in a module of its name is listed from there.
        yield name, target.members[name] if target.is_module else target


def _places(pages: list[Module]) -> Places:
    places: Places = {}
    for page in pages:
        for name, target in _exports(page):
            at_home = target.path.startswith(f"{page.path}.")
            if at_home or target.path not in places:
                module = target.parent if page.members[name].is_module else page
                places[target.path] = f"{module.path}.{name}"
    return places


def _name_what_is_elsewhere(page: Module, places: Places) -> None:
    away = {
        name: places[target.path]
        for name, target in _exports(page)
        if not places[target.path].startswith(f"{page.path}.")
    }
    for name in away:
        page.del_member(name)
    if away:
        lines = [f"- [`{name}`][{place}]" for name, place in away.items()]
        _append(page, "Described with the packages that they come from:\n\n" + "\n".join(lines))


def _name_what_is_inherited(cls: Class, places: Places) -> None:
    named: dict[str, list[str]] = {}
    line = [cls, *cls.mro()]
    for name in {name: None for base in line for name in base.members if name[0] != "_"}:
        first = next((base for base in line if _describes(base, name)), cls)
        if first.path in places and first is not cls:
            named.setdefault(places[first.path], []).append(name)
        elif first is not cls and name in cls.members:
            cls.members[name].docstring = first.members[name].docstring
        elif first is not cls:
            cls.set_member(name, Alias(name, first.members[name], parent=cls))
    for place, names in named.items():
        links = ", ".join(f"[`{name}`][{place}.{name}]" for name in names)
        _append(cls, f"Inherited from [`{place.rpartition('.')[2]}`][{place}]: {links}.")


def _describes(cls: Class, name: str) -> bool:
    return name in cls.members and cls.members[name].has_docstring


def _append(described: Object, text: str) -> None:
    described.docstring.parsed.append(DocstringSectionText(text))
