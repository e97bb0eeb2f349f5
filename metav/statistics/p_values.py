"""Conformal p-values, and how many calibration models a wanted rate needs. Ranks are counted in integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def conformal_p_value(logit: float, negatives: NDArray[np.float64]) -> float:
    """Return (1 + number of calibration negatives that score at least as high) / (n + 1) (Vovk et al., 2005).

    negatives: logits (n,) of the independent calibration models.
    """
    return (1 + int(np.count_nonzero(negatives >= logit))) / (negatives.size + 1)


def exact_rate(rate: float) -> Fraction:
    """Return a rate as the fraction that its decimal digits state: 0.05 is 1/20."""
    # ranks are counted in integers: in floating point the product of a rate and a count may fall just short of one
    return Fraction(repr(rate))
