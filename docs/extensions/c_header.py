"""The directive `c-header`: the declarations of a C header with the comments above them, section by section.

In metav's headers a line `/* Name ---- ... */` begins a section, a comment of several lines stands above what it
describes, and nothing is declared twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"^/\* (.+?) -{20,} \*/$", flags=re.MULTILINE)
SYMBOL = re.compile(r"\b(?:mv|MV)_\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One declaration of a header.

    section: heading under which it stands.
    comment: the text above it, without the marks of a comment; empty where there is none.
    code: the declaration itself, comments within it included; empty for a comment that stands alone.
    """

    section: str
    comment: str
    code: str


def read_header(text: str) -> Iterator[Declaration]:
    """Yield the declarations of a header in order.

    text: of the header: its opening comment and its sections are read.
    """
    parts = SECTION.split(text)
    opening = comment_text(parts[0][: parts[0].index("*/") + 2])
    yield Declaration(section="What holds for all of it", comment=opening, code="")
    for section, body in zip(parts[1::2], parts[2::2], strict=True):
        yield from _declarations(section, body.split("#ifdef __cplusplus")[0])


def _declarations(section: str, body: str) -> Iterator[Declaration]:
    comment, rest = "", body.strip()
    while rest:
        if rest.startswith("/*"):
            end = rest.index("*/") + 2
            comment, rest = comment_text(rest[:end]), rest[end:]
            if rest.startswith("\n\n") or not rest.strip():
                yield Declaration(section=section, comment=comment, code="")
                comment = ""
        else:
            end = _end(rest)
            yield Declaration(section=section, comment=comment, code=rest[:end].rstrip())
            comment, rest = "", rest[end:]
        rest = rest.lstrip()


def _end(text: str) -> int:
    """Return where the first declaration of a text ends: after its semicolon and a comment on the same line."""
    depth = place = 0
    while place < len(text):
        if text.startswith("/*", place):
            place = text.index("*/", place) + 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        place += 1
        if text[place - 1] == ";" and depth == 0:
            line = text[place:].split("\n", 1)[0]
            return place + len(line) if line.strip().startswith("/*") and line.rstrip().endswith("*/") else place
    raise ValueError(f"a declaration does not end: {text[:80]!r}")


def comment_text(comment: str) -> str:
    """Return what a comment says, without its marks."""
    lines = comment.removeprefix("/*").removesuffix("*/").rstrip().split("\n")
    return "\n".join([lines[0].strip(), *(re.sub(r"^\s*\*\s?", "", line).rstrip() for line in lines[1:])]).strip()


class CHeader(SphinxDirective):
    """Writes a header's declarations: `c-header` with the path of the header from the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return one section of nodes for each section of the header."""
        path = Path(self.env.doc2path(self.env.docname)).parent / self.arguments[0]
        self.env.note_dependency(str(path.resolve()))
        sections: dict[str, nodes.section] = {}
        for entry in read_header(path.read_text(encoding="utf-8")):
            if entry.section not in sections:
                found = nodes.section(ids=[nodes.make_id(f"c {entry.section}")], names=[entry.section.lower()])
                found += nodes.title(text=entry.section)
                sections[entry.section] = found
            sections[entry.section] += self._shown(entry)
        return list(sections.values())

    def _shown(self, entry: Declaration) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        if entry.code:
            shown += self._anchors(entry.code)
            code = nodes.literal_block(entry.code, entry.code)
            code["language"] = "c"
            shown.append(code)
        if entry.comment:
            shown += self._text(entry.comment)
        return shown

    def _anchors(self, code: str) -> list[nodes.Node]:
        names = dict.fromkeys(SYMBOL.findall(re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)))
        new = [name for name in names if f"c-{name}" not in self._seen()]
        self._seen().update(f"c-{name}" for name in new)
        return [nodes.target("", "", ids=[f"c-{name}"]) for name in new]

    def _seen(self) -> set[str]:
        seen: set[str] = self.env.temp_data.setdefault("c_header_symbols", set())
        return seen

    def _text(self, comment: str) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        for block in comment.split("\n\n"):
            if "\n " in f"\n{block}":  # formulas and tables, whose places matter
                block_node = nodes.literal_block(block, block)
                block_node["language"] = "text"
                shown.append(block_node)
            else:
                holder = nodes.container()
                self.state.nested_parse(StringList([_plain(block)], "c-header"), self.content_offset, holder)
                shown += holder.children
        return shown


def _plain(text: str) -> str:
    """Return a paragraph in Markdown in which only backticks are markup."""
    joined = " ".join(text.split())
    parts = joined.split("`")
    parts[::2] = [re.sub(r"([\\*_<>\[\]|#~$])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True}
