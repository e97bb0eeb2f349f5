"""Warnings that name the user's line, however many of metav's own functions lie between."""

from __future__ import annotations

import sys
import warnings
from itertools import count

PACKAGE = __name__.partition(".")[0]


def warn_user(message: str) -> None:
    """Warn, as UserWarning, on behalf of the nearest line outside metav."""
    frame = sys._getframe(1)
    for level in count(2):
        if str(frame.f_globals.get("__name__")).partition(".")[0] != PACKAGE or frame.f_back is None:
            warnings.warn(message, stacklevel=level)
            return
        frame = frame.f_back
