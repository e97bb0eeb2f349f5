"""The choice of the best queries of a pool: those that together tell derived from independent models best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.optimization.shares import Shares
from metav.support.arrays import FloatArray
from metav.verifiers.views import paired_features, reads_distances

RIDGE = 0.3
"""Regularisation of the discriminant, in units of a feature's variance. On the owners' models that metav was developed
with, 0.1 to 1 did alike, 0.01 worse."""
LEAST_SPREAD = 1e-6
"""Added to a feature's standard deviation, against division by 0."""

Array = NDArray[np.float64]


def choose_queries(shares: Shares, view: str, count: int) -> list[int]:
    """Return the numbers of `count` queries, chosen one after the other, best first.

    shares: the models' responses to all queries of the pool.
    view: how responses are read.

    In each round, a ridge discriminant on the responses to the chosen queries is tried with each remaining query. The
    query is added with which the classes lie farthest apart, in standard deviations. The discriminant is fitted on the
    share "optimize" and judged on "select", and the other way round. The calibration share is not used.

    Source: Friedman, "Regularized discriminant analysis", 1989.
    """
    features, derived, is_fitted = _standard_features(shares, view)
    sides = [_Side(features, derived, is_fitted), _Side(features, derived, ~is_fitted)]
    chosen: list[int] = []
    left = list(range(features.shape[1]))
    while len(chosen) < count and left:
        separations = [sum(side.separation_with(query) for side in sides) for query in left]
        best = left.pop(int(np.argmax(separations)))
        for side in sides:
            side.add(best)
        chosen.append(best)
    return chosen


class _Side:
    """One share to fit on, the other to judge on, with inner products of models over the queries chosen so far.

    features: (models, queries, features), of mean 0 and variance 1.
    derived: which models derive from the owner's.
    is_fitted: which models are fitted on; the others judge.
    """

    def __init__(self, features: Array, derived: NDArray[np.bool_], is_fitted: NDArray[np.bool_]) -> None:
        own = derived[is_fitted]
        weight = np.where(own, 0.5 / max(own.sum(), 1), 0.5 / max((~own).sum(), 1))
        centre = np.einsum("m,mqf->qf", weight, features[is_fitted])
        self.root = np.sqrt(weight)
        self.fitted = (features[is_fitted] - centre) * self.root[:, None, None]
        self.judged = features[~is_fitted] - centre
        self.derived = derived[~is_fitted]
        target = np.where(own, 1.0, -1.0)
        self.target = self.root * (target - weight @ target)
        self.inner = RIDGE * np.eye(len(own))
        self.cross = np.zeros((len(self.judged), len(own)))

    def separation_with(self, query: int) -> float:
        """Return how far the classes' means lie apart on the judging share, in deviations, if this query were added."""
        fitted, judged = self.fitted[:, query], self.judged[:, query]
        solved = np.linalg.solve(self.inner + fitted @ fitted.T, self.target)
        scores = (self.cross + judged @ fitted.T) @ solved
        high, low = scores[self.derived], scores[~self.derived]
        return float((high.mean() - low.mean()) / (np.sqrt((high.var() + low.var()) / 2) + 1e-9))

    def add(self, query: int) -> None:
        """Add a query to the chosen ones."""
        fitted = self.fitted[:, query]
        self.inner += fitted @ fitted.T
        self.cross += self.judged[:, query] @ fitted.T


def _standard_features(shares: Shares, view: str) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return features (models, queries, features) of mean 0 and variance 1, and two masks of models.

    The masks tell which models derive from the owner's, and which belong to the share "optimize".
    """
    responses: FloatArray = np.concatenate([shares.optimize, shares.select])
    if reads_distances(view):
        features = paired_features(responses, shares.owner[0], view)
    else:
        features = _core.apply_view(responses, view)
    roles = np.frombuffer(shares.optimize_roles, dtype=np.uint8)
    derived = np.concatenate([roles != _core.ROLE_NEGATIVE, shares.select_derived])
    is_fitted = np.arange(len(derived)) < len(roles)
    standard = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    return standard / (standard.std(axis=0) + LEAST_SPREAD), derived, is_fitted
