"""One-sided normal tolerance limits: above which value few of a population lie, as far as a small sample can tell."""

from __future__ import annotations

import math

from metav.errors import InputError

CONFIDENCE = 0.95
"""Confidence with which at most the wanted share of the population lies above the limit."""


def tolerance_factor(count: int, share: float, *, confidence: float = CONFIDENCE, degrees: int | None = None) -> float:
    """Return k, so that mean + k standard deviations of `count` normal values is the limit.

    degrees: of freedom of the deviation, where further values of the same variance show it, too; None: count - 1.

    With the given confidence at most `share` of the population lies above it. Without a degree of freedom there is no
    deviation: k is infinite.

    Raises InputError unless 0 < share < 1.

    Source: Owen, 1968: the quantile of a noncentral t distribution, divided by the root of the count.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"share must lie in (0, 1), got {share}")
    degrees = count - 1 if degrees is None else degrees
    if count < 1 or degrees < 1:
        return math.inf
    from scipy.special import nctdtrit, ndtri

    shift = float(ndtri(1.0 - share)) * math.sqrt(count)
    return float(nctdtrit(degrees, shift, confidence)) / math.sqrt(count)
