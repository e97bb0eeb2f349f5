"""Orders and units: what the natural queries' true answers show of how a suspect's answers are written.

Classes in other columns, rows from last to first, values in another unit, images in another range or layout. Each is
undone only where it turns answers that are useless as they came into good ones, by more than chance could.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metav.errors import InputError
from metav.verdicts.competence import MEASURES, class_shares, known_answers
from metav.verifiers.forms import FLOOR, Numbers, as_probabilities

ENOUGH = 0.5
"""Accuracy, or skill, from which another order counts as found; a classifier of two classes needs more, by GAIN."""
GAIN = 0.3
"""By how much it must be better than the answers as they came."""
SHUFFLES = 999
"""How often the true answers are shuffled: no shuffle may do as well in the best order found for it."""
USELESS = 0.2
"""Share of the variance that values may explain as they came and still be useless: a hundredth of the truth explains
0.02, a tenth 0.19."""
EXPLAINED = 0.5
"""Share of the variance that an affine map must explain, as it does for any model of some use."""
FEWEST = 10
"""Queries from which ranks can be significant: eight in perfect order happen by chance too often."""
SIGNIFICANT = 1e-4
"""Largest chance of such a rank correlation among unrelated numbers, divided by the number of outputs."""
AS_GOOD = 1.1
"""A power of ten stands for a fitted scale where its median error is at most this many times the fit's."""
FITTING = 6.0
"""Mean and deviation of images fit where they lie within this many spreads of the calibration models'."""
BETTER = 2.0
"""How many times nearer to them another form of images must bring the answers."""
LEAST_SPREAD = 0.05
"""Spread, as a share of the range of images, below which differences between calibration models are not believed."""
SMOOTHER = 0.8
"""Channels lie last where differences between neighbouring pixels shrink to this share when they are read so."""

RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
"""Ranges that images come in, (black, white)."""


# Classifiers ---------------------------------------------------------------------------------------------------------


def find_class_order(answers: ArrayLike, truth: ArrayLike, *, seed: int = 0) -> NDArray[np.intp] | None:
    """Return the columns that hold the classes 0, 1, ... in turn, so that answers[:, order] is in order; or None.

    answers: to the natural queries, (N, K), their form undone.
    truth: true classes (N,).
    seed: of the shuffles.

    Found where the most likely assignment of columns to classes is right ENOUGH and by GAIN more than the columns as
    they are, and no shuffle of the true classes allows as much. Two classes in each other's place among many are not
    found.
    """
    rows, known = _classes(answers, truth)
    shares = class_shares(rows)
    before = float(shares[np.arange(len(known)), known].mean())
    if before > 1 - GAIN:
        return None
    logs = np.log(np.maximum(as_probabilities(rows), FLOOR))
    order, after = _assigned(shares, logs, known)
    if after < ENOUGH or after < before + GAIN:
        return None
    random = np.random.default_rng(seed)
    for _ in range(SHUFFLES):
        if _assigned(shares, logs, random.permutation(known))[1] >= after:
            return None
    return order


def _classes(answers: ArrayLike, truth: ArrayLike) -> tuple[Numbers, NDArray[np.intp]]:
    rows, known = np.asarray(answers, dtype=np.float64), np.asarray(truth).reshape(-1).astype(np.intp)
    if (
        rows.ndim != 2
        or len(rows) != len(known)
        or not len(known)
        or not 0 <= known.min() <= known.max() < rows.shape[1]
    ):
        raise InputError(f"expected answers (N, K) and true classes (N,) in 0..K-1, got {rows.shape} and {known.shape}")
    return rows, known


def _assigned(shares: Numbers, logs: Numbers, known: NDArray[np.intp]) -> tuple[NDArray[np.intp], float]:
    """Return the most likely assignment of columns to classes, and its accuracy.

    logs: log-probabilities (N, K): with few queries of each class they tell more than which class is best.
    """
    from scipy.optimize import linear_sum_assignment

    classes = np.eye(logs.shape[1])[known]
    _, order = linear_sum_assignment(classes.T @ logs, maximize=True)
    confusion = classes.T @ shares  # (class, column)
    return order.astype(np.intp), float(confusion[np.arange(len(order)), order].sum() / len(known))


def find_row_order(
    answers: ArrayLike, truth: ArrayLike, natural: ArrayLike, kind: str, *, seed: int = 0
) -> NDArray[np.intp] | None:
    """Return the rows in the order of the queries, so that answers[order] fits them; None where they fit as they are.

    answers: to all queries, (N, K), their form undone.
    truth: true answers of the natural queries.
    natural: numbers of these queries among all.
    kind: name of the task, as in MEASURES.
    seed: of the shuffles.

    Only rows from last to first are tried: with N! orders, another one always exists that fits by chance.
    """
    rows, places = np.asarray(answers, dtype=np.float64), np.asarray(natural, dtype=np.intp)
    measure = MEASURES.get(kind)
    if measure is None or not len(places):
        return None
    known = known_answers(truth, kind)
    turned = np.arange(len(rows))[::-1]
    before, after = float(measure.skill(rows[places], known)), float(measure.skill(rows[turned][places], known))
    if after < ENOUGH or after < before + GAIN:
        return None
    random = np.random.default_rng(seed)
    shuffled = (float(measure.skill(rows[turned][places], random.permutation(known))) for _ in range(SHUFFLES))
    return None if any(skill >= after for skill in shuffled) else turned


# Values --------------------------------------------------------------------------------------------------------------


def find_affine(answers: ArrayLike, truth: ArrayLike) -> tuple[Numbers, Numbers] | None:
    """Return (scale, offset), each (K,), so that answers * scale + offset are in the true answers' unit; or None.

    answers: to the natural queries, (N, K).
    truth: their true answers, (N, K).

    An output is mapped where it is USELESS as it came, and an affine map explains EXPLAINED of the variance; the others
    keep scale 1 and offset 0. A robust line gives the map, or a power of ten, with or without a change of sign, where
    it is AS_GOOD: that is exact, a fitted scale is not.
    """
    rows = np.asarray(answers, dtype=np.float64)
    known = np.asarray(truth, dtype=np.float64).reshape(len(rows), -1)
    if rows.ndim != 2 or known.shape != rows.shape:
        raise InputError(f"expected answers and true answers of one shape (N, K), got {rows.shape} and {known.shape}")
    maps = [_affine(rows[:, k], known[:, k], SIGNIFICANT / rows.shape[1]) for k in range(rows.shape[1])]
    if all(found is None for found in maps):
        return None
    scale, offset = zip(*(found or (1.0, 0.0) for found in maps), strict=True)
    return np.array(scale), np.array(offset)


def _rank_chance(first: Numbers, second: Numbers) -> float:
    """Return the chance that unrelated numbers have ranks as correlated, two-sided, by Student's t (Spearman, 1904)."""
    # SciPy's own, from scipy.stats, takes a second to import, and fails where torch is blocked
    from scipy.special import stdtr

    correlation = float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])
    if abs(correlation) >= 1:
        return 0.0
    freedom = len(first) - 2
    return 2.0 * float(stdtr(freedom, -abs(correlation) * np.sqrt(freedom / (1 - correlation**2))))


def _ranks(values: Numbers) -> Numbers:
    """Return ranks from 0, (n,), the mean of their places for values that tie."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Numbers = np.cumsum(counts) - (counts + 1) / 2
    return means[places]


def _affine(answers: Numbers, truth: Numbers, significant: float) -> tuple[float, float] | None:
    if len(truth) < FEWEST or np.ptp(answers) <= 0 or np.ptp(truth) <= 0:
        return None
    scale, offset, weights = _robust_line(answers, truth)
    counted = weights > 0.5
    if counted.sum() < len(truth) / 2 or min(np.ptp(answers[counted]), np.ptp(truth[counted])) <= 0:
        return None  # a line through equal points tells nothing
    residuals = truth - (scale * answers + offset)
    variance = np.average((truth - np.average(truth, weights=weights)) ** 2, weights=weights)
    explained, raw = (1 - np.average(errors**2, weights=weights) / variance for errors in (residuals, truth - answers))
    if raw > USELESS or explained < EXPLAINED or scale == 0:
        return None
    # of all points: those that the line left aside would have told against it
    if not _rank_chance(answers, truth) <= significant:
        return None
    simple = float(np.sign(scale) * 10.0 ** np.round(np.log10(abs(scale))))
    as_good = np.median(np.abs(truth - simple * answers)) <= AS_GOOD * np.median(np.abs(residuals))
    return (simple, 0.0) if as_good else (scale, offset)


def _robust_line(answers: Numbers, truth: Numbers) -> tuple[float, float, Numbers]:
    """Return slope, intercept and weights of an M-estimate (Tukey's bisquare) that starts at Theil and Sen's line.

    Up to a quarter of the points may lie anywhere, in the answers as well.
    """
    center = float(np.median(answers))
    unit = float(np.median(np.abs(answers - center))) or float(answers.std())
    design = np.stack([(answers - center) / unit, np.ones_like(answers)], axis=1)
    line = _median_line(design[:, 0], truth)
    weights = np.ones_like(truth)
    for _ in range(20):
        residuals = np.abs(truth - design @ line)
        limit = 4.685 * max(1.4826 * float(np.median(residuals)), 1e-12 * float(np.abs(truth).max()))
        weights = np.maximum(1 - (residuals / limit) ** 2, 0.0) ** 2
        root = np.sqrt(weights)
        line = np.asarray(np.linalg.lstsq(design * root[:, None], truth * root, rcond=None)[0], dtype=np.float64)
    slope, intercept = (float(entry) for entry in line)
    return slope / unit, intercept - slope * center / unit, weights


def _median_line(x: Numbers, y: Numbers) -> Numbers:
    """Return the median slope of all pairs of points, and the median intercept (Theil, 1950; Sen, 1968)."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[first] != x[second]
    first, second = first[apart], second[apart]
    slope = np.median((y[second] - y[first]) / (x[second] - x[first]))
    return np.array([slope, np.median(y - slope * x)])


# Images --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm:
    """How a generator's images are written, beside those of the calibration models.

    range: of RANGES, the suspect's.
    expected: of RANGES, the calibration models'.
    channels_last: whether the suspect puts channels behind rows and columns.
    """

    range: str
    expected: str
    channels_last: bool

    def __str__(self) -> str:
        parts = [f"images in {self.range} instead of {self.expected}"] if self.range != self.expected else []
        return ", ".join([*parts, *(["channels last"] if self.channels_last else [])]) or "images as expected"

    def undo(self, answers: ArrayLike, shape: tuple[int, ...]) -> Numbers:
        """Return answers (N, D) as the calibration models write theirs; shape: (channels, rows, columns)."""
        rows = _moved(np.asarray(answers, dtype=np.float64), self.range, self.expected)
        return _channels_first(rows, shape) if self.channels_last else rows


def find_image_form(answers: ArrayLike, calibration: ArrayLike, shape: tuple[int, ...]) -> ImageForm | None:
    """Return in what other range or layout a generator's images come; None where they are as expected or unlike any.

    answers: flattened, (N, D).
    calibration: answers of the models that calibrated, (M, N, D).
    shape: of one image, (channels, rows, columns), or (D,) for what is no image.

    Mean and deviation of the answers decide between ranges, differences between neighbouring pixels between layouts.
    """
    rows, models = np.asarray(answers, dtype=np.float64), np.asarray(calibration, dtype=np.float64)
    if rows.ndim != 2 or models.ndim != 3 or models.shape[2] != rows.shape[1] or int(np.prod(shape)) != rows.shape[1]:
        raise InputError(f"expected answers (N, D) and (M, N, D), D of {shape}, got {rows.shape} and {models.shape}")
    expected = _range_of(models)
    found = expected
    if expected is not None:
        distances = {name: _distance(_moved(rows, name, expected), models, expected) for name in _holding(rows)}
        nearest = min(distances, key=lambda name: distances[name], default=expected)
        as_it_is = _distance(rows, models, expected)
        if nearest != expected and distances[nearest] <= FITTING and as_it_is >= BETTER * distances[nearest]:
            found = nearest
    last = _has_channels_last(rows, models, shape)
    if found == expected and not last:
        return None
    name = expected or "0..1"
    return ImageForm(range=found or name, expected=name, channels_last=last)


def _range_of(models: Numbers) -> str | None:
    """Return the narrowest range that holds nearly all numbers of most models, None where none does."""
    low, high = (float(np.median(np.quantile(models, share, axis=(1, 2)))) for share in (0.001, 0.999))
    return next((name for name, (black, white) in RANGES.items() if _holds(low, high, black, white)), None)


def _holding(rows: Numbers) -> list[str]:
    low, high = (float(np.quantile(rows, share)) for share in (0.001, 0.999))
    return [name for name, (black, white) in RANGES.items() if _holds(low, high, black, white)]


def _holds(low: float, high: float, black: float, white: float) -> bool:
    slack = 0.01 * (white - black)
    return low >= black - slack and high <= white + slack


def _moved(rows: Numbers, source: str, target: str) -> Numbers:
    (black, white), (new_black, new_white) = RANGES[source], RANGES[target]
    return rows if source == target else (rows - black) / (white - black) * (new_white - new_black) + new_black


def _distance(rows: Numbers, models: Numbers, expected: str) -> float:
    """Return how far mean and deviation lie from the models' medians, in their robust spreads."""
    black, white = RANGES[expected]
    least = LEAST_SPREAD * (white - black)
    total = 0.0
    for own, others in ((rows.mean(), models.mean(axis=(1, 2))), (rows.std(), models.std(axis=(1, 2)))):
        middle = float(np.median(others))
        spread = max(1.4826 * float(np.median(np.abs(others - middle))), least)
        total += ((float(own) - middle) / spread) ** 2
    return float(np.sqrt(total))


def _channels_first(rows: Numbers, shape: tuple[int, ...]) -> Numbers:
    channels, height, width = shape
    return rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(len(rows), -1)


def _roughness(rows: Numbers, shape: tuple[int, ...]) -> float:
    images = rows.reshape(-1, *shape)
    return float(np.abs(np.diff(images, axis=2)).mean() + np.abs(np.diff(images, axis=3)).mean())


def _has_channels_last(rows: Numbers, models: Numbers, shape: tuple[int, ...]) -> bool:
    if len(shape) != 3 or shape[0] == 1 or min(shape[1:]) < 2:
        return False
    before, after = _roughness(rows, shape), _roughness(_channels_first(rows, shape), shape)
    # images that are themselves no smoother in their own layout tell nothing
    own = _roughness(models.reshape(-1, models.shape[2]), shape)
    other = _roughness(_channels_first(models.reshape(-1, models.shape[2]), shape), shape)
    return own < SMOOTHER * other and after < SMOOTHER * before
