"""Novelty: whether a suspect answers like any model that calibrated, derived or independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.statistics.tolerance import tolerance_factor
from metav.support.json_values import plain

SHARE = 1e-3
"""Share of models like those that calibrated that may be called novel."""

FEWEST = 5
"""Models that tell how far from each other such models lie: of fewer, most are each other's nearest."""
FAR = 50.0
"""Logarithm of a distance that no suspect reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """How far a suspect lies from the nearest calibration model.

    distance: root mean square over queries and outputs, in standard deviations over the calibration models.
    limit: distance beyond which a suspect is like none of them.
    """

    distance: float
    limit: float

    @property
    def is_novel(self) -> bool:
        """Whether the suspect is like none of the models that calibrated."""
        return self.distance > self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({"distance": self.distance, "limit": self.limit, "is_novel": self.is_novel})
        return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownModels:
    """The trained calibration models as novelty sees them.

    features: (models, features), in units of `scale`.
    scale: standard deviation of each feature over the models, (features,), never much less than that of all.
    view: how answers are read.
    limit: distance beyond which a suspect is like none of them.
    """

    features: NDArray[np.float64]
    scale: NDArray[np.float64]
    view: str
    limit: float

    def novelty(self, suspect: NDArray[np.float32]) -> Novelty:
        """Return the distance of a suspect (queries, outputs), through the same access, from the nearest of them."""
        own = _core.apply_view(suspect[None], self.view).reshape(-1) / self.scale
        distances = np.sqrt(((self.features - own) ** 2).mean(axis=1))
        return Novelty(distance=float(distances.min()), limit=self.limit)


def known_models(models: NDArray[np.float32], view: str) -> KnownModels:
    """Return what novelty needs to know of the trained calibration models.

    models: (models, queries, outputs), through the suspect's access.
    view: how they are read.

    The limit follows from the logarithms of the models' own distances from their nearest neighbours: at most SHARE of
    models like them lies beyond it, with 95 % confidence. Fewer than FEWEST models set no limit.
    """
    known = _core.apply_view(models, view).reshape(len(models), -1).astype(np.float64)
    scale = np.maximum(known.std(axis=0), 1e-6 + 0.1 * known.std())
    features = known / scale
    squares = (features**2).mean(axis=1)
    inner = features @ features.T / features.shape[1]
    among = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * inner, 0.0))
    np.fill_diagonal(among, np.inf)
    nearest = np.log(np.maximum(among.min(axis=1), 1e-9))
    limit = FAR
    if len(nearest) >= FEWEST:
        limit = float(nearest.mean() + tolerance_factor(len(nearest), SHARE) * nearest.std(ddof=1))
        # no model that calibrated is novel itself
        limit = max(limit, float(nearest.max()))
    return KnownModels(features=features, scale=scale, view=view, limit=float(np.exp(min(limit, FAR))))
