"""How near independent models may come that were trained as the owner's was, where no surrogate shows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEAR_KIN, BEYOND_KIN = 0.2, 0.5
"""Least and largest place between the threshold and the owner's own logit up to which such models may come where no
recipe was told (`kin_place`; `tests/benchmarks/kin_places.py` prints how far they came beside development owners)."""
NEARLY_THE_OWNER = 0.6
"""The same where the owner stands apart from all independent models: they show nothing of its kin."""
USUAL_OUTLYINGNESS = 0.9
"""Outlyingness of the owner's answers from which on the place grows, by as much as they lie farther out."""
COMPONENTS = 3
"""Directions in which independent models differ most, which `outlyingness` leaves out."""
FEWEST = 2 * COMPONENTS + 2
"""Independent models below which it is not measured."""


def outlyingness(owner: NDArray[np.floating], independent: NDArray[np.floating]) -> float | None:
    """Return how far the owner's answers lie outside of what independent models' answers vary in.

    owner: features (features,). independent: the same of other models, (models, features).

    It is the distance from the span of their COMPONENTS main directions about their mean, in the median distance of one
    of them from the span of the others. None of fewer than FEWEST models. What recipes do to answers are the directions
    in which models by drawn recipes differ most: an owner near their span was trained in a way that they show, so that
    its kin differ from them as they do from each other.

    Source: the orthogonal distance of robust principal components (Hubert et al., 2005).
    """
    count = len(independent)
    if count < FEWEST:
        return None
    features = np.concatenate([np.reshape(independent, (count, -1)), np.reshape(owner, (1, -1))]).astype(np.float64)
    features -= features.mean(axis=0)
    products = features @ features.T  # distances from spans of models need nothing but these
    others = np.arange(count)
    among = [_distance(products, number, others[others != number]) for number in range(count)]
    usual = float(np.median(among))
    return None if usual <= 0.0 else _distance(products, count, others) / usual


def _distance(products: NDArray[np.float64], number: int, others: NDArray[np.intp]) -> float:
    """Return the distance of one model from the span of the main directions of others, by their scalar products."""
    block, cross = products[np.ix_(others, others)], products[others, number]
    rows, mean = block.mean(axis=1), block.mean()
    values, vectors = np.linalg.eigh(block - rows[:, None] - rows + mean)
    along = vectors[:, -COMPONENTS:].T @ (cross - rows - cross.mean() + mean)
    square = products[number, number] - 2.0 * cross.mean() + mean
    square -= float((along**2 / np.maximum(values[-COMPONENTS:], 1e-12 * max(values[-1], 1e-300))).sum())
    return float(np.sqrt(max(square, 0.0)))


def kin_place(outlyingness: float | None, *, apart: bool) -> float:
    """Return the place between the threshold and the owner's own logit up to which honest kin may come, in (0, 1).

    outlyingness: of the owner's answers; None where it is not known.
    apart: whether the owner stands apart from the independent models (`OwnerStanding.apart`).
    """
    if apart:
        return NEARLY_THE_OWNER
    if outlyingness is None:
        return BEYOND_KIN
    return min(max(outlyingness - USUAL_OUTLYINGNESS, NEAR_KIN), BEYOND_KIN)


def kin_limit(threshold: float, owner: float, place: float) -> float:
    """Return the logit from which on a suspect matches where no recipe was told.

    threshold: of the decision rule. owner: logit of the owner's own answers. place: see `kin_place`.
    """
    return threshold + place * max(owner - threshold, 0.0)
