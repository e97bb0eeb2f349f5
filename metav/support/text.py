"""Text that comes from elsewhere, made fit to be shown: no control characters, no tricks of direction, one line."""

from __future__ import annotations

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that a reader does not see, or that change what is seen around them."""


def harmless(text: object, *, limit: int | None = None) -> str:
    """Return a text on one line in which every character that cannot be seen is written as an escape.

    Line breaks and tabulators become blanks: a text from elsewhere must not look like several lines of a report.
    limit: most characters, the rest is cut off and marked; None for no limit.
    """
    whole = str(text)
    cut = whole if limit is None or len(whole) <= limit else whole[:limit] + "..."
    return "".join(_shown(character) for character in " ".join(cut.split()))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
