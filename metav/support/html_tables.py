"""HTML tables of results in notebooks, every cell escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(caption: Sequence[str], rows: Iterable[Sequence[object]], *, head: Sequence[str] = ()) -> str:
    """Return a table of text as HTML.

    caption: its lines.
    rows: their cells; without a head the first cell of each row is its heading.
    head: names of the columns.
    """
    top = f"<tr>{''.join(_cell(name, 'th') for name in head)}</tr>" if head else ""
    first = "td" if head else "th"
    body = "".join(
        "<tr>" + "".join(_cell(cell, "td" if place else first) for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><caption>{'<br>'.join(html.escape(line) for line in caption)}</caption>{top}{body}</table>"


def _cell(content: object, tag: str) -> str:
    return f"<{tag}>{html.escape(str(content))}</{tag}>"
