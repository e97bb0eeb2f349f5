"""P-values of many tests at once, so that the more suspects are looked at, the more it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the chance of any false rejection is held (Holm, 1979), in the order given.

    p_values: of m tests, however they depend on each other; the i-th smallest is multiplied by m - i + 1, and never
        falls below the adjusted value of a smaller one.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return [float(value) for value in adjusted]
