"""The statistics of the verdict: threshold at a wanted false-positive rate, score, p-value, exact intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metav.errors import InputError
from metav.statistics.intervals import Interval, exact_interval
from metav.statistics.p_values import conformal_p_value, exact_rate
from metav.statistics.tolerance import tolerance_factor

DEFAULT_FPR = 0.01
"""Wanted false-positive rate, where nothing else is asked for: an honest model accused is worse than a thief missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The decision rule, made from the calibration models, each judged by verifiers that it did not train.

    Neither the optimisation of the queries nor the selection of the verifiers has seen these models.

    threshold: logit from which on a suspect is a match.
    slope: steepness of the score, sigmoid(slope * (logit - threshold)), which is 0.5 at the threshold.
    target_fpr: wanted false-positive rate, in (0, 1).
    negatives, positives: sorted logits (models,) of the independent and of the derived calibration models, float64.
    """

    threshold: float
    slope: float
    target_fpr: float
    negatives: NDArray[np.float64]
    positives: NDArray[np.float64]

    @property
    def supports_target(self) -> bool:
        """Whether there are enough calibration negatives for a p-value as low as the wanted false-positive rate."""
        return Fraction(1, self.negatives.size + 1) <= exact_rate(self.target_fpr)

    @property
    def false_positives(self) -> Interval:
        """Calibration negatives at or above the threshold, with the exact interval of the false-positive rate."""
        return exact_interval(int(np.count_nonzero(self.negatives >= self.threshold)), int(self.negatives.size))

    @property
    def true_positives(self) -> Interval:
        """Calibration positives at or above the threshold, with the exact interval of the true-positive rate."""
        return exact_interval(int(np.count_nonzero(self.positives >= self.threshold)), int(self.positives.size))

    def score(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the scores in [0, 1] of logits of any shape."""
        from scipy.special import expit

        distances = np.asarray(logits, dtype=np.float64) - self.threshold
        scores = np.asarray(expit(self.slope * distances))
        # a logit just below the threshold would round to 0.5, which stands for a match
        return np.where(distances < 0, np.minimum(scores, np.nextafter(0.5, 0)), scores)

    def p_value(self, logit: float) -> float:
        """Return the conformal p-value of the hypothesis "trained independently" for one logit."""
        return conformal_p_value(logit, self.negatives)


def calibrate(
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    others: Sequence[ArrayLike] = (),
    target_fpr: float = DEFAULT_FPR,
) -> Calibration:
    """Return the decision rule that follows from the logits of the calibration models.

    positives, negatives: logits (models,) of derived and of independent models.
    others: groups of logits (models,) of further independent models that the verifiers did not train on, although
        queries or verifiers were chosen by them. They say how far such logits spread, each group about its own mean,
        and nothing of where they lie.
    target_fpr: wanted false-positive rate, in (0, 1).

    Independent models alone set the threshold (Neyman and Pearson, 1933), so that it does not move up with derived
    families that are found easily. It lies above what a conformal p-value of at most target_fpr requires (no more than
    floor(target_fpr * (n + 1)) - 1 of n negatives at or above it, never less than none), and above the limit beyond
    which, with 95 % confidence, at most target_fpr of a normal population with the negatives' mean and the deviation of
    all independent models lies. The second holds what few models cannot show by their ranks.

    Raises InputError on empty or non-finite logits, or target_fpr outside (0, 1).
    """
    if not 0 < target_fpr < 1:
        raise InputError(f"target_fpr must lie in (0, 1), got {target_fpr}")
    high, low = _sorted_logits("positives", positives), _sorted_logits("negatives", negatives)
    spread = [_sorted_logits("others", group) for group in others if np.size(group)]
    threshold = threshold_above(low, target_fpr, spread)
    return Calibration(
        threshold=threshold,
        slope=_slope(high - threshold, low - threshold),
        target_fpr=target_fpr,
        negatives=low,
        positives=high,
    )


def _sorted_logits(name: str, values: ArrayLike) -> NDArray[np.float64]:
    logits = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if logits.size == 0:
        raise InputError(f"{name} is empty: calibration needs at least one model of each class in its share")
    if not np.isfinite(logits).all():
        raise InputError(f"{name} holds NaN or infinite logits; check the responses of the calibration models")
    return logits


def threshold_above(
    negatives: NDArray[np.float64], target_fpr: float, others: Sequence[NDArray[np.float64]] = ()
) -> float:
    """Return the threshold that sorted logits (models,) of independent models set, see `calibrate`."""
    allowed = max(0, math.floor(exact_rate(target_fpr) * (negatives.size + 1)) - 1)  # negatives that may pass
    by_rank = float(np.nextafter(negatives[negatives.size - 1 - allowed], np.inf))
    groups = (negatives, *others)
    degrees = sum(group.size - 1 for group in groups)
    if not degrees:
        return by_rank
    deviation = math.sqrt(sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / degrees)
    factor = tolerance_factor(negatives.size, target_fpr, degrees=degrees)
    return max(by_rank, float(negatives.mean()) + factor * deviation)


def _slope(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Return the slope of the log-odds between two Gaussians of one variance (Fisher, 1936), classes weighted equally.

    It stays finite where the classes are apart, unlike that of a logistic fit; the factor `unbiased` removes the bias
    of few models.
    """
    count = positives.size + negatives.size
    variance = (float(positives.var()) + float(negatives.var())) / 2
    distance = float(positives.mean() - negatives.mean())
    unbiased = max(count - 4, 1) / max(count - 2, 1)
    # a slope must rise and be finite, also for classes without spread or in the wrong order
    floor = 1e-6 * (1.0 + abs(distance))
    return max(distance, floor) / max(variance, floor * floor) * unbiased
