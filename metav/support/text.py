"""Text for people: what comes from elsewhere made fit to be shown, spans of time, sizes of files."""

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


def duration(seconds: float) -> str:
    """Return a span of time for people: "0.4 s", "35 s", "2 min 10 s", "3 h 20 min", "4 d 6 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = round((whole % length) / part)
            # 59.6 minutes are an hour more
            whole, rest = (whole + length, 0) if rest * part == length else (whole, rest)
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def byte_size(size: float) -> str:
    """Return a number of bytes for people: "900 B", "1.5 KiB", "12.0 MiB"."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
