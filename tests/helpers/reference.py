"""Naive float64 twins of every kernel of the C core, written for reading and used as oracles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Array: TypeAlias = NDArray[Any]

PROBABILITY_FLOOR = 1e-5
RELATIVE_FLOOR = 1e-30
SPREAD_FLOOR = 1e-6
TEMPERED_SHARE, LARGEST_FACTOR = 0.65, 64.0
SCORE_MARGIN = 1e-7
LENGTH_EPSILON = 1e-6
VARIANCE_EPSILON = 1e-9
NEGATIVE, POSITIVE, OWNER = 0, 1, 2


def parse_view(view: str) -> tuple[str, int]:
    """Name and number of a view, e.g. ("topk", 3)."""
    name, _, rest = view.partition("(")
    return name, int(rest.rstrip(")")) if rest else 0


# Views ---------------------------------------------------------------------------------------------------------------


def is_probabilities(model: Array) -> bool:
    """Whether the rows (N, K) of one model are probabilities, up to rounding."""
    slack = min(1e-3 + 0.005 * model.shape[1], 0.5)
    return bool((model >= 0).all() and (np.abs(model.sum(axis=1) - 1) <= slack).all())


def probabilities(model: Array, given: bool) -> Array:
    """Probabilities (N, K) of one model's answers."""
    masses = model if given else np.exp(model - model.max(axis=1, keepdims=True))
    result: Array = masses / masses.sum(axis=1, keepdims=True)
    return result


def top_set(p: Array, count: int) -> NDArray[np.bool_]:
    """Marks the `count` largest entries of each row, the lower index first on ties."""
    order = np.argsort(-p, axis=1, kind="stable")[:, :count]
    marked = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(marked, order, True, axis=1)
    return marked


def spread_rest(p: Array, marked: NDArray[np.bool_]) -> Array:
    """The marked entries as they are, the others with equal shares of the remaining mass."""
    others = (~marked).sum(axis=1, keepdims=True)
    rest = 1 - np.where(marked, p, 0).sum(axis=1, keepdims=True)
    return np.where(marked, p, rest / np.maximum(others, 1))


def relative(model: Array, given: bool) -> Array:
    """Log-probabilities (N, K) of one model, centred in each row, in units of their root mean square."""
    logs = np.log(np.maximum(model, RELATIVE_FLOOR)) if given else model
    centred = logs - logs.mean(axis=1, keepdims=True)
    result: Array = centred / max(np.sqrt((centred**2).mean()), SPREAD_FLOOR)
    return result


def tempered_factor(u: Array) -> float:
    """The factor of relative features (N, K) at which the largest probabilities have the wanted mean."""
    least = 1 / u.shape[1]
    wanted = least + TEMPERED_SHARE * (1 - least)

    def mean(factor: float) -> float:
        return float(probabilities(factor * u, False).max(axis=1).mean())

    if mean(LARGEST_FACTOR) <= wanted:
        return LARGEST_FACTOR
    return float(brentq(lambda factor: mean(factor) - wanted, 0.0, LARGEST_FACTOR, xtol=1e-14, rtol=1e-14))


def tempered(model: Array, given: bool) -> Array:
    """The fourth roots of the probabilities (N, K) of one model, all brought to one mean confidence."""
    u = relative(model, given)
    result: Array = probabilities(tempered_factor(u) * u, False) ** 0.25
    return result


def apply_view(responses: ArrayLike, view: str) -> Array:
    """Features (M, N, K) of raw responses (M, N, K)."""
    return np.stack([_view_model(model, view) for model in np.asarray(responses, dtype=np.float64)])


def _view_model(model: Array, view: str) -> Array:
    name, number = parse_view(view)
    if name == "identity":
        return model.copy()
    if name == "identity_round":
        return np.round(model, number)
    if name == "label":
        result: Array = np.eye(model.shape[1])[model.argmax(axis=1)]
        return result
    if name == "relative":
        return relative(model, is_probabilities(model))
    if name == "tempered":
        return tempered(model, is_probabilities(model))
    p = probabilities(model, is_probabilities(model))
    if name == "round":
        return np.log(np.maximum(np.round(p, number), 0.5 * 10.0**-number))
    if name == "topk":
        p = spread_rest(p, top_set(p, number))
    return np.log(np.maximum(p, PROBABILITY_FLOOR))


def surrogate_view(responses: ArrayLike, view: str) -> Callable[[Array], Array]:
    """The differentiable function near `responses` whose gradient the view uses (straight-through, fixed top set)."""
    start = np.asarray(responses, dtype=np.float64)
    name, number = parse_view(view)
    given = [is_probabilities(model) for model in start]
    marked = [top_set(probabilities(model, flag), number) for model, flag in zip(start, given, strict=True)]

    def one(model: Array, index: int) -> Array:
        if name.startswith("identity"):
            return model
        if name == "relative":
            return relative(model, given[index])
        if name == "tempered":
            return tempered(model, given[index])
        p = probabilities(model, given[index])
        if name == "round":
            return np.log(np.maximum(p, 0.5 * 10.0**-number))
        if name == "topk":
            return np.log(np.maximum(spread_rest(p, marked[index]), PROBABILITY_FLOOR))
        if name == "label":
            logits = np.log(np.maximum(p, PROBABILITY_FLOOR)) if given[index] else model
            return probabilities(3 * logits, False)
        return np.log(np.maximum(p, PROBABILITY_FLOOR))

    return lambda r: np.stack([one(model, index) for index, model in enumerate(r)])


def numeric_gradient(function: Callable[[Array], float], at: ArrayLike, step: float = 1e-6) -> Array:
    """Central differences of a scalar function."""
    x = np.array(at, dtype=np.float64)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = function(x)
        x[index] = kept - step
        below = function(x)
        x[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient


# Verifiers -----------------------------------------------------------------------------------------------------------


def standardization(features: Array) -> tuple[Array, Array]:
    """shift (N, K) and scale (K) of features (M, N, K)."""
    shift = features.mean(axis=0)
    centred = features - shift
    floor = 1e-3 * np.sqrt((centred**2).mean()) + 1e-6
    return shift, np.maximum(np.sqrt((centred**2).mean(axis=(0, 1))), floor)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def unit_logits(kind: str, parameters: Mapping[str, ArrayLike], z: Array) -> Array:
    """Logits (M, units) of standardised responses z (M, N, K)."""
    own = {name: np.asarray(value, dtype=np.float64) for name, value in parameters.items()}
    flat = z.reshape(len(z), -1)
    result: Array
    if kind == "mlp":
        hidden = np.maximum(flat @ own["weight1"] + own["bias1"], 0)
        result = (hidden @ own["weight2"] + own["bias2"])[:, None]
    elif kind == "local":
        result = (z * own["weight"]).sum(axis=2) + own["bias"]
    else:
        x = flat - own["mean"].ravel()
        length = (own["precision"].ravel() * x**2).sum(axis=1) - ((x @ own["factor"]) ** 2).sum(axis=1)
        cosine = x @ own["filter"].ravel() / (np.sqrt(np.maximum(length, 0)) + LENGTH_EPSILON)
        result = (own["gain"] * cosine + own["bias"])[:, None]
    return result


def scores(kind: str, parameters: Mapping[str, ArrayLike], features: Array) -> Array:
    """Scores (M) of features (M, N, K)."""
    z = (features - np.asarray(parameters["shift"])) / np.asarray(parameters["scale"])
    result: Array = sigmoid(unit_logits(kind, parameters, z)).mean(axis=1)
    return result


def logits(kind: str, parameters: Mapping[str, ArrayLike], features: Array) -> Array:
    """Logits (M) of features (M, N, K)."""
    z = (features - np.asarray(parameters["shift"])) / np.asarray(parameters["scale"])
    units = unit_logits(kind, parameters, z)
    if kind != "local":
        return units[:, 0]
    mean = np.clip(sigmoid(units).mean(axis=1), SCORE_MARGIN, 1 - SCORE_MARGIN)
    result: Array = np.log(mean / (1 - mean))
    return result


def three_term_loss(units: Array, roles: bytes, weights: tuple[float, float, float]) -> float:
    """The weighted, class-balanced loss of unit logits (M, units); weights are (owner, positive, negative)."""
    role = np.frombuffer(roles, dtype=np.uint8)
    target = (role != NEGATIVE).astype(np.float64)[:, None]
    losses = (np.maximum(units, 0) + np.log1p(np.exp(-np.abs(units))) - target * units).mean(axis=1)
    by_role = {OWNER: weights[0], POSITIVE: weights[1], NEGATIVE: weights[2]}
    return float(sum(w * losses[role == r].mean() for r, w in by_role.items() if (role == r).any()))


def fit_matched(owner: Array, negatives: Array, shrinkage: float, floor: float) -> dict[str, Array]:
    """The closed form with the covariance written out; owner (D), negatives (M, D), both standardised."""
    mean = negatives.mean(axis=0)
    variance = negatives.var(axis=0)
    centred = negatives - mean
    diagonal = shrinkage * variance + floor * variance.mean() + VARIANCE_EPSILON
    covariance = np.diag(diagonal) + (1 - shrinkage) / len(negatives) * centred.T @ centred
    direction = owner - mean
    weight = np.linalg.solve(covariance, direction)
    return {"mean": mean, "inverse": np.linalg.inv(covariance), "filter": weight / np.sqrt(weight @ direction)}


# Augmentation --------------------------------------------------------------------------------------------------------


def random_bits(key: int, index: int) -> int:
    """Number `index` of splitmix64 started at the key."""
    mask = 2**64 - 1
    x = (key + (index + 1) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def stream(seed: int, purpose: int, step: int) -> Callable[[int], int]:
    """The random stream of one purpose (0 initialisation, 1 mix, 2 noise, 3 dropout) and step."""
    key = random_bits(random_bits(seed, purpose), step)
    return lambda index: random_bits(key, index)


def uniform(bits: int) -> float:
    """In [0, 1), 53 bits."""
    return (bits >> 11) * 2.0**-53


def bell_shaped(source: Callable[[int], int], count: int) -> Array:
    """Sums of four uniform numbers (count), scaled to mean 0 and variance 1."""
    uniforms = [[(source(i) >> 16 * part & 0xFFFF) / 65536 for part in range(4)] for i in range(count)]
    centered = np.array(uniforms).sum(axis=1) - 4 * 32767.5 / 65536
    return np.sqrt(3.0) * centered


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The random changes of one step."""

    seed: int
    step: int
    mix: float = 0.0
    noise: float = 0.0
    dropout: float = 0.0

    def __call__(self, z: Array, roles: bytes) -> Array:
        """Changed copy of standardised responses z (M, N, K)."""
        result = z.copy()
        negatives = [index for index, role in enumerate(roles) if role == NEGATIVE]
        source = stream(self.seed, 1, self.step)
        for model, role in enumerate(roles):
            if self.mix and negatives and role != NEGATIVE and uniform(source(3 * model)) >= 0.5:
                partner = negatives[int(uniform(source(3 * model + 1)) * len(negatives))]
                share = self.mix * uniform(source(3 * model + 2))
                result[model] = (1 - share) * z[model] + share * z[partner]
        if self.noise:
            result += self.noise * bell_shaped(stream(self.seed, 2, self.step), z.size).reshape(z.shape)
        if self.dropout:
            source = stream(self.seed, 3, self.step)
            kept = [uniform(source(index)) >= self.dropout for index in range(z.shape[0] * z.shape[1])]
            result *= np.array(kept).reshape(z.shape[:2])[:, :, None] / (1 - self.dropout)
        return result


# Adam and the fingerprint --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Adam:
    """Bias-corrected Adam with decoupled weight decay."""

    first: Array | float = 0.0
    second: Array | float = 0.0
    steps: int = 0

    def direction(self, gradient: Array) -> Array:
        """What a step subtracts at learning rate 1."""
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        corrected = np.sqrt(self.second / (1 - 0.999**self.steps))
        result: Array = self.first / (1 - 0.9**self.steps) / (corrected + 1e-8)
        return result


class QueryOptimizer:
    """Adam on queries (N, ...), then the projection onto bounds, radius and levels."""

    def __init__(
        self, natural: ArrayLike, lower: ArrayLike, upper: ArrayLike, radius: float | None, levels: int | None
    ) -> None:
        self.lower = np.asarray(lower, dtype=np.float64)
        self.range = np.asarray(upper, dtype=np.float64) - self.lower
        self.master = np.array(natural, dtype=np.float64)
        reach = np.inf if radius is None else radius
        with np.errstate(invalid="ignore"):
            allowance = np.where(self.range > 0, reach * self.range, 0.0)
        self.least = np.maximum(self.lower, self.master - allowance)
        self.most = np.minimum(self.lower + self.range, self.master + allowance)
        self.levels = levels
        self.adam = Adam()

    def update(self, gradient: ArrayLike, learning_rate: float) -> Array:
        """The projected queries after one step."""
        move = self.adam.direction(np.asarray(gradient, dtype=np.float64))
        self.master = np.clip(self.master - learning_rate * self.range * move, self.least, self.most)
        return self.master if self.levels is None else self._to_levels(self.levels)

    def _to_levels(self, levels: int) -> Array:
        unit = np.where(self.range > 0, self.range / (levels - 1), 1.0)
        index = np.round((self.master - self.lower) / unit)
        tolerance = 1e-9 * self.range
        index = index - (self.lower + index * unit > self.most + tolerance)
        index = index + (self.lower + index * unit < self.least - tolerance)
        value = self.lower + index * unit
        inside = (value <= self.most + tolerance) & (value >= self.least - tolerance)
        return np.where(inside & (self.range > 0), value, self.master)
