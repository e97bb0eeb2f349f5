"""Forms: what a model's whole answer looks like, and how it is brought to what the core reads.

A form is decided over all rows: a few rows or entries that do not fit are told in its notes and change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metav.errors import InputError
from metav.support.json_values import plain

Numbers: TypeAlias = NDArray[np.float64]
Truths: TypeAlias = NDArray[np.bool_]

FLOOR = 1e-5
"""Probabilities below this count as this in the core's views: what is lost below it was never read."""
TINY = 1e-6
"""How far a probability may lie outside [0, 1] by the arithmetic of single precision."""
TOLERATED = 0.05
"""Share of rows that may fit no form; one row always may, from FEW rows on."""
FEW = 5
"""Below so many rows none is tolerated: one of four would be a quarter of the evidence."""
MOST_DECIMALS = 5
"""Rounding beyond these decimals changes nothing above FLOOR and is not looked for."""
VALUE_DECIMALS = (-3, 5)
"""Decimals that are looked for in regression and generation: from whole thousands to five decimals."""
ULPS = 2.0
"""How many units in the last place of float32 a rounded number may differ from the decimal number it stands for."""
CHANCE = 1e-6
"""Numbers count as rounded where unrounded ones would all lie on the grid by chance more seldom than this."""
COMPLETE = 1e-5
"""Rows of single precision sum to one up to this."""
CLIPPED_SHARE = 0.1
"""Share of rows, and at least three, that reach a bound exactly where answers are clipped to it."""

SCALES = {1.0: "probabilities", 100.0: "percent"}
"""What rows of distributions usually sum to, and what they are called then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a model's answers look like.

    kind: "logits", "log-probabilities", "probabilities", "percent", "one-hot" or "labels" of a classifier, "values" of
        any other model.
    outputs: numbers per query.
    decimals: to which the numbers are rounded as they came, 0 for whole percent; None where they are not rounded.
    clipped: bounds (lower, upper) that probabilities do not leave, 0 or 1 where one side is free; None if there are
        none.
    top: how many classes per row are told, the others zero or all alike; None for all.
    complete: whether the told classes were made to sum to one; if not, the missing part is that of the others.
    scale: what rows of probabilities sum to, 100 for percent.
    notes: what does not fit the form, one text per finding.
    """

    kind: str
    outputs: int
    decimals: int | None = None
    clipped: tuple[float, float] | None = None
    top: int | None = None
    complete: bool = True
    scale: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def is_distribution(self) -> bool:
        """Whether rows are probabilities in some unit."""
        return self.kind in SCALES.values()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in fields(self)})
        return values

    def __str__(self) -> str:
        parts = [self.kind]
        if self.is_distribution and self.scale not in SCALES:
            parts.append(f"rows sum to {self.scale:g}")
        if self.decimals is not None:
            parts.append("whole numbers" if self.decimals == 0 else f"rounded to {self.decimals} decimals")
        if self.clipped is not None:
            parts.append(f"clipped to {self.clipped[0]:g} to {self.clipped[1]:g}")
        if self.top is not None:
            parts.append(f"the best {self.top} of {self.outputs} only")
        return "; ".join([", ".join(parts), *self.notes])


# Reading -------------------------------------------------------------------------------------------------------------


def read_form(responses: ArrayLike, *, classes: bool) -> Form:
    """Return what the answers of one model look like.

    responses: raw, (N, K); (N,) or (N, 1) for class numbers or single values.
    classes: whether they are a classifier's.

    Raises InputError where they are no finite numbers of this shape.
    """
    rows = _as_rows(responses)
    spare = tolerated(len(rows))
    if not classes:
        least, most = VALUE_DECIMALS
        return Form(kind="values", outputs=rows.shape[1], decimals=_decimals(rows, range(least, most + 1), spare))
    if rows.shape[1] == 1:
        return _read_labels(rows)
    form = _read_one_hot(rows, spare)
    if form is not None:
        return form
    for scale in _scales(rows, spare):
        form = _read_distribution(rows, scale, spare)
        if form is not None:
            return form
    return _read_logits(rows, spare)


def tolerated(count: int) -> int:
    """Return how many of `count` rows may fit no form."""
    return 0 if count < FEW else max(1, int(TOLERATED * count))


def _as_rows(responses: ArrayLike) -> Numbers:
    try:
        rows = np.asarray(responses, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"answers must be numbers of shape (queries, outputs): {error}") from error
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"answers must have shape (queries, outputs) and at least one of each, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError("answers must be finite, got NaN or infinity; check what the suspect returns")
    return rows


def _read_labels(rows: Numbers) -> Form:
    if (rows != np.round(rows)).any() or (rows < 0).any():
        raise InputError("one number per query must be a class number from 0, got other numbers; ask for all scores")
    return Form(kind="labels", outputs=1, decimals=None)


def _read_one_hot(rows: Numbers, spare: int) -> Form | None:
    """One-hot rows, in any two numbers: 0 and 1, 0 and 100, -1 and 1, or the bounds that labels were clipped to."""
    ordered = np.sort(rows, axis=1)
    high, low = float(np.median(ordered[:, -1])), float(np.median(ordered[:, :-1]))
    if high <= low:
        return None
    # relative to each: the small numbers of very confident models differ
    slack = 2 * ULPS * np.finfo(np.float32).eps
    fits = (np.abs(ordered[:, -1] - high) <= slack * abs(high)) & (
        np.abs(ordered[:, :-1] - low) <= slack * abs(low)
    ).all(axis=1)
    # rows that are honest distributions show that there is more than labels; others are only broken
    telling = int((~fits & are_distributions(rows / (high if low == 0 else 1.0))).sum())
    off = int((~fits).sum())
    if off > spare or telling > min(spare, 1):
        return None
    if low != 0 and len(np.unique(rows[fits].argmax(axis=1))) < 2:
        return None  # the same answer to everything may be anything
    notes = () if (low, high) == (0.0, 1.0) else (f"written as {low:g} and {high:g}",)
    return Form(kind="one-hot", outputs=rows.shape[1], notes=(*notes, *_told(off, len(rows), "not one-hot")))


def _scales(rows: Numbers, spare: int) -> Iterator[float]:
    """Yield what rows of probabilities may sum to here: 1, 100, or what all rows sum to (votes, levels up to 255)."""
    yield from SCALES
    sums = rows.sum(axis=1)
    scale = float(np.median(sums))
    if scale > 0 and int((np.abs(sums - scale) > 1e-4 * scale).sum()) <= spare:
        yield float(f"{scale:.6g}")


def _read_distribution(rows: Numbers, scale: float, spare: int) -> Form | None:
    raw = rows / scale
    outside = ((raw < -TINY) | (raw > 1 + TINY)).any(axis=1)
    if int(outside.sum()) > spare:
        return None
    p = np.clip(raw, 0.0, 1.0)
    decimals = _decimals(p, range(1, MOST_DECIMALS + 1), spare)
    clipped = _clipping(p, decimals, spare)
    top, complete = (None, True) if clipped else _top(p, decimals, spare)
    bad = outside | ~_possible(p, decimals, clipped, top)
    if scale != 1.0 and decimals is None and clipped is None and top is None:
        # logits around a large number have nearly equal sums as well
        bad |= np.abs(p.sum(axis=1) - 1) > max(2 * TINY, 0.01 * float(np.median(np.ptp(p, axis=1))))
    if int(bad.sum()) > spare:
        return None
    slight = int((raw < 0)[~outside].sum())
    notes = (
        *_told(int(bad.sum()), len(rows), "no distribution"),
        *([f"{slight} of {rows.size} numbers slightly negative"] if slight else []),
    )
    written = {1.0: decimals, 100.0: None if decimals is None else decimals - 2}.get(scale)
    return Form(
        kind=SCALES.get(scale, "probabilities"),
        outputs=rows.shape[1],
        decimals=written,
        clipped=None if clipped is None else (float(f"{clipped[0]:.6g}"), float(f"{clipped[1]:.6g}")),
        top=top,
        complete=complete,
        scale=scale,
        notes=notes,
    )


def _read_logits(rows: Numbers, spare: int) -> Form:
    positive = rows.max(axis=1) > TINY
    with np.errstate(over="ignore"):
        off = positive | (np.abs(np.exp(np.minimum(rows, 1.0)).sum(axis=1) - 1) > 1e-2)
    notes: tuple[str, ...] = ()
    kind = "log-probabilities" if int(off.sum()) <= spare else "logits"
    if kind == "log-probabilities":
        notes = _told(int(off.sum()), len(rows), "no log-probabilities")
    elif rows.min() >= 0 and rows.max() <= 1:
        notes = ("between 0 and 1, but rows do not sum to one: read as logits",)
    decimals = _decimals(rows, range(MOST_DECIMALS + 1), spare)
    return Form(kind=kind, outputs=rows.shape[1], decimals=decimals, notes=notes)


def _told(count: int, rows: int, what: str) -> tuple[str, ...]:
    return (f"{count} of {rows} rows {what}, read like the others",) if count else ()


# Signs of a form -----------------------------------------------------------------------------------------------------


def _decimals(values: Numbers, candidates: range, spare: int) -> int | None:
    """Return the fewest decimals that hold (nearly) all rows, None where they are not rounded.

    Zeros, and ones among probabilities, tell nothing; what remains must be there by more than chance.
    """
    slack = ULPS * np.finfo(np.float32).eps * np.abs(values)
    needed = np.full(len(values), np.inf)
    for decimals in reversed(candidates):
        needed[(np.abs(values - np.round(values, decimals)) <= slack).all(axis=1)] = decimals
    rounded = np.sort(needed[np.isfinite(needed)])
    if len(values) - len(rounded) > spare or not len(rounded):
        return None
    # one row of more decimals than all others is an exception, two are not; where the others tell too little, it counts
    exceptions = (-2, -1) if spare and len(rounded) > 1 else (-1,)
    for found in dict.fromkeys(int(rounded[place]) for place in exceptions):
        informative = np.unique(np.abs(values[needed <= found]))
        informative = informative[(informative != 0) & (informative != 1)]
        chance = 2 * ULPS * np.finfo(np.float32).eps * informative * 10.0**found
        if len(informative) and float(np.log(np.minimum(chance, 1.0)).sum()) < np.log(CHANCE):
            return found
    return None


def _clipping(p: Numbers, decimals: int | None, spare: int) -> tuple[float, float] | None:
    """Return the bounds that probabilities were clipped to, None where there are none.

    The sign: many rows reach exactly the same smallest, or largest, number, and (for three classes and more) do not
    sum to one. Smoothed trees reach a smallest number as well, but sum to one.
    """
    low, low_rows = _piled(p.min(axis=1), spare)
    high, high_rows = _piled(-p.max(axis=1), spare)
    lower = low if FLOOR < low <= max(0.05, 1 / p.shape[1]) else 0.0
    upper = -high if 0.5 <= -high < 1 - FLOOR else 1.0
    low_rows, high_rows = low_rows if lower > 0 else 0, high_rows if upper < 1 else 0
    if lower > 0 and int((p.max(axis=1) > 1 - lower + TINY).sum()) <= spare:
        upper = 1 - lower  # bounds come in pairs, and too few rows may reach the upper one to show it
    if decimals is not None:
        return _rounded_clipping(p, decimals, lower, upper)
    if max(low_rows, high_rows) < max(3, CLIPPED_SHARE * len(p)):
        return None
    sums = p[(p == lower).any(axis=1) | (p == upper).any(axis=1)].sum(axis=1)
    return (lower, upper) if p.shape[1] == 2 or abs(float(sums.mean()) - 1) > 1e-4 else None


def _rounded_clipping(p: Numbers, decimals: int, lower: float, upper: float) -> tuple[float, float] | None:
    """Return the bounds among rounded numbers, where any number occurs often.

    The sign: a small number that many rows have and none is below, far more often than its neighbour on the grid, and
    rows that sum to more than one (two classes always sum to one).
    """
    step = 10.0**-decimals
    low_rows = int((p.min(axis=1) == lower).sum())
    if not 0 < lower <= 0.05 or low_rows < max(FEW, len(p) / 3) or not _stands_out(p, lower, lower + step):
        return None
    # rounding alone moves the mean of the sums by a third of this, one standard deviation
    by_rounding = 3 * math.sqrt(p.shape[1] / 12 / len(p)) * step
    if p.shape[1] > 2 and float(p.sum(axis=1).mean()) - 1 <= by_rounding:
        return None
    return lower, upper if abs(lower + upper - 1) < TINY or _stands_out(p.max(axis=1), upper, upper - step) else 1.0


def _stands_out(numbers: Numbers, value: float, beside: float) -> bool:
    count, neighbours = (int(np.isclose(numbers, near, rtol=1e-6, atol=1e-9).sum()) for near in (value, beside))
    return count >= 3 * max(neighbours, 1)


def _piled(extremes: Numbers, spare: int) -> tuple[float, int]:
    """Return the smallest number that occurs twice, and how often, leaving out up to `spare` numbers below it."""
    ordered = np.sort(extremes)
    for value in ordered[: spare + 1]:
        count = int((ordered == value).sum())
        if count > 1:
            return float(value), count
    return float(ordered[0]), 0


def _top(p: Numbers, decimals: int | None, spare: int) -> tuple[int | None, bool]:
    """Return how many classes per row are told, None for all, and whether those sum to one."""
    outputs = p.shape[1]
    told = _usual(np.count_nonzero(p, axis=1), outputs, spare)
    if told is not None:
        kept = np.where(p > 0, p, 1.0).min(axis=1)
        if int((kept > FLOOR).sum()) <= spare:
            return None, True  # what is not told is smaller still: zeros of single precision
        if decimals is not None:
            # zeros may come from rounding; where they can, they do
            needed = int((~_possible(p, decimals, None, None)).sum()) > spare
            return (told, False) if needed else (None, True)
        missing = np.sort(np.abs(1 - p.sum(axis=1)))
        return told, bool(missing[-1 - spare] <= COMPLETE)
    if decimals is None and int((p.min(axis=1) <= 0).sum()) <= spare:
        # the rest spread evenly: at least two classes of a row are exactly alike
        least = p.min(axis=1, keepdims=True)
        alike = (p <= least * (1 + ULPS * np.finfo(np.float32).eps)).sum(axis=1)
        told = _usual(outputs - alike, outputs - 1, spare)
        if told is not None:
            return told, False
    return None, True


def _usual(counts: NDArray[Any], below: int, spare: int) -> int | None:
    """Return the largest count, up to `spare` rows of ties left out, if half of the rows have it and it is < below."""
    usual = int(np.sort(counts)[-1 - spare])
    return usual if 0 < usual < below and float((counts == usual).mean()) >= 0.5 else None


def _possible(p: Numbers, decimals: int | None, clipped: tuple[float, float] | None, top: int | None) -> Truths:
    """Return for each row whether some distribution, changed as the form says, gives it.

    Each number stands for an interval; the intervals' sums must hold 1.
    """
    half = 0.0 if decimals is None else 0.5 * 10.0**-decimals
    low, high = np.maximum(p - half, 0.0), p + half
    if clipped is not None:
        low = np.where(p <= clipped[0] * (1 + TINY), 0.0, low)
        high = np.where(p >= clipped[1] * (1 - TINY), 1.0, high)
    if top is not None:
        kept = np.where(p > 0, p, np.inf).min(axis=1, keepdims=True)
        high = np.where(p > 0, high, np.where(np.isfinite(kept), kept + half, 0.0))
    slack = sum_slack(p.shape[1])
    possible: Truths = (low.sum(axis=1) <= 1 + slack) & (high.sum(axis=1) >= 1 - slack)
    return possible


# The core's rule -----------------------------------------------------------------------------------------------------


def sum_slack(outputs: int) -> float:
    """Return how far a row of probabilities may sum from 1, as in csrc/mv_probabilities.c."""
    return min(1e-3 + 0.005 * outputs, 0.5)


def are_distributions(rows: Numbers) -> Truths:
    """Return for each row (..., K) whether the core takes it for probabilities."""
    found: Truths = (rows >= 0).all(axis=-1) & (np.abs(rows.sum(axis=-1) - 1) <= sum_slack(rows.shape[-1]))
    return found


def log_softmax(rows: Numbers) -> Numbers:
    """Return log-probabilities of logits (..., K)."""
    shifted = rows - rows.max(axis=-1, keepdims=True)
    result: Numbers = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def log_probabilities(responses: ArrayLike) -> Numbers:
    """Return answers (..., N, K), logits or probabilities as the core reads them, as log-probabilities above FLOOR."""
    return np.log(np.maximum(as_probabilities(responses), FLOOR))


def as_probabilities(responses: ArrayLike) -> Numbers:
    """Return answers (..., N, K), each model's logits or probabilities as the core reads them, as probabilities."""
    rows = np.asarray(responses, dtype=np.float64)
    distributions: Truths = np.asarray(are_distributions(rows).all(axis=-1))[..., None, None]
    return np.where(distributions, normalised(rows), np.exp(log_softmax(rows)))


def normalised(p: Numbers) -> Numbers:
    """Return rows (..., K), none negative, that sum to one; a row of zeros tells nothing and becomes uniform."""
    lifted = np.maximum(p, 0.0)
    sums = lifted.sum(axis=-1, keepdims=True)
    return np.where(sums > 0, lifted / np.where(sums > 0, sums, 1.0), 1.0 / p.shape[-1])


def one_hot(labels: NDArray[np.intp], outputs: int) -> Numbers:
    """Return class numbers (...) as one-hot rows (..., outputs)."""
    rows: Numbers = np.eye(outputs)[labels]
    return rows


# Undoing -------------------------------------------------------------------------------------------------------------


def undo_form(responses: ArrayLike, form: Form, *, outputs: int | None = None) -> Numbers:
    """Return answers (N, K) in one form: probabilities or logits that the core reads as what they are, or values.

    responses: as they came, (N, K), or class numbers.
    form: of these answers, from `read_form`.
    outputs: classes, needed for class numbers alone.

    What cannot be undone (rounding, clipping, labels, a rest that is not told) stays.

    Raises InputError for other answers than the form was read from.
    """
    rows = _as_rows(responses)
    if rows.shape[1] != form.outputs:
        raise InputError(f"these answers have {rows.shape[1]} numbers per query, the form was read from {form.outputs}")
    if form.kind == "labels":
        return _one_hot_of(rows[:, 0], outputs)
    if form.kind == "one-hot":
        return one_hot(rows.argmax(axis=1), form.outputs)
    if not form.is_distribution:
        return rows
    negative = rows < 0
    p = np.clip(rows / form.scale, 0.0, 1.0)
    if form.decimals is not None:
        # the decimal number itself, without what float32 made of it
        p = np.round(p, form.decimals + (2 if form.kind == "percent" else 0))
    # what is missing belongs to those that are not told, and to numbers that cannot be what they were
    free = p <= 0 if form.top is not None and not form.complete else negative
    rest = np.maximum(1 - p.sum(axis=1, keepdims=True), 0.0)
    p = np.where(free, rest / np.maximum(free.sum(axis=1, keepdims=True), 1), p)
    # what fell below zero was about as small as it is wrong; as nothing at all its logarithm would outweigh all others
    p = np.where(negative, np.maximum(p, -rows / form.scale), p)
    return normalised(p)


def _one_hot_of(labels: Numbers, outputs: int | None) -> Numbers:
    if outputs is None:
        raise InputError("class numbers need outputs=, the number of classes")
    numbers = labels.astype(np.intp)
    if (numbers != labels).any() or numbers.min() < 0 or numbers.max() >= outputs:
        raise InputError(f"class numbers must be whole numbers in 0..{outputs - 1}, got {np.unique(labels)[:5]}")
    return one_hot(numbers, outputs)
