"""One-sided normal tolerance limits: above which value few of a population lie, as far as a small sample can tell."""

from __future__ import annotations

import math

from metav.errors import InputError

CONFIDENCE = 0.95
"""Confidence with which at most the wanted share of the population lies above the limit."""


def tolerance_factor(count: int, share: float, *, confidence: float = CONFIDENCE) -> float:
    """Return k, so that mean + k standard deviations of `count` normal values is the limit.

    With the given confidence at most `share` of the population lies above it. One value has no deviation: k is
    infinite.

    Raises InputError unless 0 < share < 1.

    Source: Owen, 1968: the quantile of a noncentral t distribution, divided by the root of the count.
    """
    if not 0.0 < share < 1.0:
        raise InputError(f"share must lie in (0, 1), got {share}")
    if count < 2:
        return math.inf
    from scipy.special import nctdtrit, ndtri

    shift = float(ndtri(1.0 - share)) * math.sqrt(count)
    return float(nctdtrit(count - 1, shift, confidence)) / math.sqrt(count)
