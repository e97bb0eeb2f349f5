"""Docstrings as metav writes them, for Sphinx: `name: text` lines become a list, and nothing else is markup.

A docstring of metav is plain text. Lines such as `seed: of every random choice` describe parameters or attributes,
those that are indented below go on with them, and backticks mark code. All other characters stand for themselves.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from sphinx.application import Sphinx

ENTRY = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*): (\S.*)$")
NAME = re.compile(r"[\w.]+(\(\))?")
SPECIAL = re.compile(r"([\\*|]|(?<=\w)_(?!\w)|(?<!\w)_(?=\w))")


def as_list(lines: Iterable[str], names: frozenset[str]) -> Iterator[str]:
    """Yield the lines of a docstring as reStructuredText.

    names: of the parameters and attributes that lines may describe.
    """
    paragraph = listed = literal = False
    for line in lines:
        text = line.strip()
        if not text:
            paragraph = listed = literal = False
            yield ""
            continue
        entry = ENTRY.match(line)
        if entry and described(entry[1]) <= names:
            if paragraph:
                yield ""
            named = ", ".join(f"**{name.strip('* ')}**" for name in entry[1].split(","))
            yield f"- {named}: {escaped(entry[2])}"
            paragraph, listed = False, True
        elif listed and line.startswith("    "):
            yield f"  {escaped(text)}"
        elif not paragraph and not listed and line.startswith("    "):
            if not literal:
                yield from (".. code-block:: text", "")
            literal = True
            yield line
        else:
            if listed:
                yield ""
            yield escaped(text)
            paragraph, listed = True, False


def described(names: str) -> set[str]:
    """Return the names before the colon of a line."""
    return {name.strip("* ") for name in names.split(",")}


def escaped(text: str) -> str:
    """Return text in which nothing but backticks is markup, and these hold."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return SPECIAL.sub(r"\\\1", text).replace("`", r"\`")
    plain = [SPECIAL.sub(r"\\\1", part) for part in parts[::2]]
    found = plain[0]
    for code, after in zip(parts[1::2], plain[1:], strict=True):
        before = r"\ " if found and found[-1].isalnum() else ""
        behind = r"\ " if after and after[0].isalnum() else ""
        marks = "`" if NAME.fullmatch(code) else "``"
        found += f"{before}{marks}{code}{marks}{behind}{after}"
    return found


def names_of(documented: Any) -> frozenset[str]:
    """Return what the lines of an object's docstring may describe: parameters, attributes, members."""
    if inspect.ismodule(documented):  # such as metav.obfuscations: parameters of all its functions
        return frozenset().union(*(names_of(value) for value in vars(documented).values() if inspect.isfunction(value)))
    names = set(dir(documented)) if inspect.isclass(documented) else set()
    for kind in getattr(documented, "__mro__", ()):
        names |= set(getattr(kind, "__annotations__", ()))
    # not from the signature, in which Unpack[...] has taken the place of **options
    maker = inspect.unwrap(documented.__init__ if inspect.isclass(documented) else documented)
    return frozenset(names | set(getattr(getattr(maker, "__code__", None), "co_varnames", ())))


def _process(app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    if (getattr(documented, "__module__", None) or "metav").startswith("metav"):
        lines[:] = [*as_list(lines, names_of(documented)), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
