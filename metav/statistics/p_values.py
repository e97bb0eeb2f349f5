"""Conformal p-values, and how many calibration models a wanted rate needs. Ranks are counted in integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def conformal_p_value(logit: float, negatives: NDArray[np.float64]) -> float:
    """(1 + number of calibration negatives that score at least as high) / (n + 1) (Vovk et al., 2005)."""
    return (1 + int(np.count_nonzero(negatives >= logit))) / (negatives.size + 1)


def exact_rate(rate: float) -> Fraction:
    """Return a rate as it is written: 0.05 is 1/20."""
    # ranks are counted in integers: float products such as 0.05 * 20 round the wrong way
    return Fraction(repr(rate))
