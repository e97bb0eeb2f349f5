"""Help texts of the command line as plain text: what click keeps as it is keeps its lines, and nothing is markup."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
from docstring_lists import SPECIAL
from sphinx.application import Sphinx


def as_markup(text: str) -> Iterator[str]:
    """Yield a help text as reStructuredText."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.split("\n")
        if lines[0].strip() != "\b":
            yield from (plain(" ".join(lines)), "")
            continue
        heading, *rest = lines[1:]
        if not rest:
            yield from (plain(heading), "")
            continue
        yield from (plain(heading), "", ".. code-block:: text", "", *(f"    {line}" for line in rest), "")


def plain(text: str) -> str:
    """Return text of one line in which nothing is markup."""
    return SPECIAL.sub(r"\\\1", text).replace("`", r"\`")


def _describe(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    lines[:] = as_markup(context.command.help or "")


def _close(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    lines[:] = as_markup(context.command.epilog or "")


def _explain_options(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    lines[:] = [line if re.match(r"\s*(\.\.|:)", line) else plain(line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("sphinx-click-process-description", _describe)
    app.connect("sphinx-click-process-epilog", _close)
    app.connect("sphinx-click-process-options", _explain_options)
    return {"parallel_read_safe": True}
