"""Curves over all thresholds: ROC and its area, robustness and uniqueness, ARUC. Pure functions of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metav.errors import InputError


def roc_auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that a positive outranks a negative, ties counted half.

    It is computed from ranks (Mann-Whitney).
    """
    high, low = _scores(positives), np.sort(_scores(negatives))
    below = np.searchsorted(low, high, side="left")
    not_above = np.searchsorted(low, high, side="right")
    return float((below + not_above).sum() / (2 * high.size * low.size))


def roc_curve(positives: ArrayLike, negatives: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the false-positive and true-positive rates over all thresholds, from (0, 0) to (1, 1)."""
    high, low = np.sort(_scores(positives)), np.sort(_scores(negatives))
    thresholds = np.unique(np.concatenate([high, low]))[::-1]
    fpr = 1 - np.searchsorted(low, thresholds, side="left") / low.size
    tpr = 1 - np.searchsorted(high, thresholds, side="left") / high.size
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def robustness_uniqueness(
    positives: ArrayLike, negatives: ArrayLike, thresholds: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return R(t), the share of positives at t or above, and U(t), that of negatives below t (Cao et al., 2021).

    thresholds: the values of t, (thresholds,).
    """
    high, low = np.sort(_scores(positives)), np.sort(_scores(negatives))
    grid = np.asarray(thresholds, dtype=np.float64)
    robustness = 1 - np.searchsorted(high, grid, side="left") / high.size
    uniqueness = np.searchsorted(low, grid, side="left") / low.size
    return robustness, uniqueness


def aruc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return ARUC, the exact integral over t in [0, 1] of min(R(t), U(t)) (MetaV, KDD 2022).

    positives, negatives: scores in [0, 1] of derived and of independent models.

    Raises InputError for scores outside [0, 1].
    """
    high, low = _scores(positives), _scores(negatives)
    for name, values in (("positives", high), ("negatives", low)):
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"{name} must be scores in [0, 1], got values from {values.min():g} to {values.max():g}")
    # min(R, U) is constant between neighbouring scores: (a, b] has the value at b
    edges = np.unique(np.concatenate([[0.0], high, low, [1.0]]))
    robustness, uniqueness = robustness_uniqueness(high, low, edges[1:])
    return float(np.sum(np.diff(edges) * np.minimum(robustness, uniqueness)))


def _scores(values: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64).ravel()
    if scores.size == 0:
        raise InputError("a curve needs at least one positive and one negative score, got none")
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite, got NaN or infinity")
    return scores
