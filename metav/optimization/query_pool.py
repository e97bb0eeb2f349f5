"""Which queries to keep of more than are wanted: those that together tell derived from independent models best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.optimization.shares import Shares
from metav.support.arrays import FloatArray
from metav.verifiers.views import paired_features, reads_distances

RIDGE = 0.3  # in units of a feature's variance; on development owners 0.1 to 1 did alike, 0.01 worse
LEAST_SPREAD = 1e-6

Array = NDArray[np.float64]


def choose_queries(shares: Shares, view: str, count: int) -> list[int]:
    """Numbers of `count` queries, chosen one after the other, best first.

    Each time the query is added with which a ridge discriminant (Friedman, 1989) on the answers to all chosen ones
    holds the classes apart best: fitted on the share `optimize` and judged on `select`, and the other way round. The
    calibration share has no say.
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
    """One share to fit on, the other to judge on; inner products of models over the queries chosen so far."""

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
        """Distance of the classes' means on the share to judge on, in deviations, if this query were added."""
        fitted, judged = self.fitted[:, query], self.judged[:, query]
        solved = np.linalg.solve(self.inner + fitted @ fitted.T, self.target)
        scores = (self.cross + judged @ fitted.T) @ solved
        high, low = scores[self.derived], scores[~self.derived]
        return float((high.mean() - low.mean()) / (np.sqrt((high.var() + low.var()) / 2) + 1e-9))

    def add(self, query: int) -> None:
        """Choose a query."""
        fitted = self.fitted[:, query]
        self.inner += fitted @ fitted.T
        self.cross += self.judged[:, query] @ fitted.T


def _standard_features(shares: Shares, view: str) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Features (models, queries, features) of mean 0 and variance 1; which models are derived, which optimised on."""
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
