"""Shares with their exact intervals (Clopper and Pearson, 1934)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from metav.errors import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A share k/n with its exact two-sided 95 % interval (Clopper and Pearson, 1934).

    count: k.
    total: n.
    low, high: the ends of the interval, in [0, 1].
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; NaN where nothing was counted."""
        return self.count / self.total if self.total else math.nan

    def __str__(self) -> str:
        if not self.total:
            return "none of 0"
        return f"{self.value:.1%} ({self.count}/{self.total}, 95 % interval {self.low:.1%} to {self.high:.1%})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the share as a plain dictionary, ready for JSON."""
        return {"value": self.value, "count": self.count, "total": self.total, "low": self.low, "high": self.high}


def exact_interval(count: int, total: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the share count/total with its Clopper-Pearson interval, which is [0, 1] where nothing was counted.

    confidence: chance that the interval covers the true share, at least; in (0, 1).

    Raises InputError unless 0 <= count <= total.
    """
    if not 0 <= count <= total:
        raise InputError(f"count must lie between 0 and total, got count={count} and total={total}")
    if total == 0:
        return Interval(count=0, total=0, low=0.0, high=1.0)
    # quantiles of beta distributions; scipy.stats has them too, and takes a second to import
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Interval(count=count, total=total, low=low, high=high)
