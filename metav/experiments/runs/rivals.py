"""The other schemes beside metav: fitted on the same zoo, with a threshold of their own from the same negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from metav.baselines.base import Baseline
from metav.errors import MetavError
from metav.experiments.runs.prepared_models import PreparedModels, Suspects
from metav.experiments.runs.records import settings_key
from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.experiments.runs.regimes import Regime
from metav.statistics.calibration import threshold_above
from metav.statistics.roc_aruc import aruc, roc_auc
from metav.support.clock import PhaseClock
from metav.zoo.zoo import Zoo

Baselines = Mapping[str, type[Baseline]]
"""Schemes to compare with, by name: `cls().fit(owner, task, zoo, queries=, seed=)`, then `score(suspect) -> float`."""

SMALLEST = 1e-9
"""Distance from 0 and 1 at which scores count as if they were no nearer: log-odds are finite."""
FEWEST_CALIBRATING = 5
"""Independent calibration models below which a scheme gets no threshold, and learns from all surrogates."""


class Rivals:
    """The schemes that are fitted so far, so that regimes which differ only in suspects share a fit.

    prepared: the models that they are fitted on.
    """

    def __init__(self, prepared: PreparedModels) -> None:
        self.prepared = prepared
        self._fitted: dict[str, tuple[Any, float | None, dict[str, float]]] = {}

    def results(self, cls: type[Any], regime: Regime, seed: int, suspects: Suspects) -> dict[str, Any]:
        """Return one scheme's scores of suspects, its threshold and seconds; of a scheme that fails, why it did."""
        clock = PhaseClock()
        try:
            scheme, threshold, seconds = self._fit(cls, regime, seed)
        except MetavError as error:
            return {"failed": f"{type(error).__name__}: {error}"}
        with clock.phase("score"):
            scores = [_score(scheme, model) for model, _, _ in suspects]
        return {
            **ranking([entry[1] for entry in suspects], scores),
            "threshold": threshold,
            "suspects": [
                {"family": family, "is_positive": is_positive, "score": score}
                for (_, is_positive, family), score in zip(suspects, scores, strict=True)
            ],
            "seconds": seconds | clock.seconds,
        }

    def _fit(self, cls: type[Any], regime: Regime, seed: int) -> tuple[Any, float | None, dict[str, float]]:
        prepared, queries = self.prepared, regime.choose_options(self.prepared.plan.options).queries
        same = {name: value for name, value in regime.fingerprint_settings().items() if name not in READ_BY_METAV_ALONE}
        key = settings_key({"scheme": cls.__qualname__, "zoo": same, "queries": queries, "seed": seed})
        if key not in self._fitted:
            clock = PhaseClock()
            with clock.phase("fit"):
                zoo = regime.choose_zoo(prepared.zoo(regime.recipe), seed)
                learned, calibrating = divided(zoo)
                scheme = cls().fit(prepared.owner, prepared.scenario.task, learned, queries=queries, seed=seed)
            with clock.phase("calibrate"):
                threshold = self._threshold(scheme, calibrating)
            self._fitted[key] = scheme, threshold, clock.seconds
        return self._fitted[key]

    def _threshold(self, scheme: Any, calibrating: Sequence[Any]) -> float | None:
        """Return the threshold by metav's own rule: at the rate that is asked for, from independent models alone."""
        if not calibrating:
            return None
        scores = [float(scheme.score(entry.model)) for entry in calibrating]
        return rival_threshold(scores, self.prepared.plan.scale.target_fpr)


READ_BY_METAV_ALONE = ("copies", "queries", "view", "levels", "free_negatives")
"""Settings of a fingerprint that no other scheme's fit depends on; their number of queries stands beside them."""


def schemes_beside(regime: Regime, schemes: Baselines) -> Baselines:
    """Return the schemes that a regime is compared with, those that its group chooses."""
    chosen = REGIME_GROUPS[regime.group].beside
    return {name: cls for name, cls in schemes.items() if chosen(cls)}


def divided(zoo: Zoo) -> tuple[Zoo, list[Any]]:
    """Return what a scheme may learn from, and the independent models that set its threshold: the share "calibrate".

    Where too few would be left to calibrate, there is no threshold, and all may be learned from.
    """
    calibrating = [entry for entry in zoo.share("calibrate") if not entry.is_positive and entry.fraction == 1.0]
    if len(calibrating) < FEWEST_CALIBRATING:
        return zoo, []
    return replace(zoo, models=tuple(entry for entry in zoo.models if entry.share != "calibrate")), calibrating


def rival_threshold(scores: Sequence[float], target_fpr: float) -> float:
    """Return a scheme's threshold by metav's own rule, from the scores of independent models alone.

    The rule looks at mean and deviation, which depend on the scale. So it is applied to scores in [0, 1] and to their
    log-odds, and the lower threshold holds: on one of the scales no score may reach as high.
    """
    plain = threshold_above(np.sort(scores), target_fpr)
    if min(scores) < 0.0 or max(scores) > 1.0:
        return plain
    inside = np.clip(scores, SMALLEST, 1.0 - SMALLEST)
    odds = threshold_above(np.sort(np.log(inside / (1.0 - inside))), target_fpr)
    return min(plain, float(1.0 / (1.0 + np.exp(-odds))))


def ranking(is_positive: Sequence[bool], scores: Sequence[float | None]) -> dict[str, float | None]:
    """Return the AUC of scores of any scale, and the ARUC where they lie in [0, 1] (None elsewhere).

    A suspect without a score ranks below all others.
    """
    found = [score for score in scores if score is not None]
    lowest = min(found, default=0.0)
    values = [lowest - 1.0 if score is None else score for score in scores]
    high = [score for score, positive in zip(values, is_positive, strict=True) if positive]
    low = [score for score, positive in zip(values, is_positive, strict=True) if not positive]
    within = min(values) >= 0 and max(values) <= 1
    return {"auc": roc_auc(high, low), "aruc": aruc(high, low) if within else None}


def _score(scheme: Any, model: Any) -> float | None:
    """Return a suspect's score; None where it gives no answer that the scheme can read."""
    try:
        score = float(scheme.score(model))
    except MetavError:
        return None
    return score if np.isfinite(score) else None
