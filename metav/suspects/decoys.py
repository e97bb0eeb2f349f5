"""Decoys: natural queries, slightly changed, in pairs about their origin.

A suspect that knows the fingerprint's queries and answers those otherwise than the rest of the world gives itself away:
its answers to the two neighbours of a query agree with each other, and not with its answer to the query between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.arrays import FloatArray

STRENGTH = 0.05
"""Change of a feature, in standard deviations of that feature over the natural queries."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoys:
    """Changed copies of natural queries.

    origins: the queries (m,) that they were made from.
    inputs: (2m, ...) float32; 2i and 2i + 1 lie on opposite sides of origin i.
    """

    origins: NDArray[np.intp]
    inputs: FloatArray


def make_decoys(fp: Fingerprint, count: int, seed: int) -> Decoys:
    """Return decoys within the bounds and levels of the inputs; the same for the same arguments.

    count: even; 0 makes none.

    Raises InputError where all features of all natural queries lie at their bounds, so that nothing can be changed.
    """
    if not count:
        return Decoys(origins=np.empty(0, np.intp), inputs=fp.queries[:0])
    random = np.random.default_rng(seed)
    first = fp.adaptive if fp.adaptive < len(fp.queries) else 0
    natural = np.arange(first, len(fp.queries))
    spreads = fp.queries[natural].std(axis=0)
    origins, pairs = [], []
    # a query whose features lie at their bounds cannot be changed on both sides
    for origin in np.tile(random.permutation(natural), 1 + count // len(natural)):
        change = _change(fp, fp.queries[origin], spreads, random)
        if change.any():
            origins.append(origin)
            pairs += [fp.queries[origin] + change, fp.queries[origin] - change]
        if len(pairs) == count:
            break
    if len(pairs) < count:
        raise InputError(
            f"only {len(pairs)} of {count} decoys can be made: the other natural queries have nothing that can be "
            "changed within their bounds; pass fewer decoys, or none"
        )
    inputs = np.clip(np.stack(pairs), fp.lower, fp.upper).astype(np.float32)
    return Decoys(origins=np.array(origins, np.intp), inputs=inputs)


def _change(fp: Fingerprint, query: FloatArray, spreads: FloatArray, random: np.random.Generator) -> FloatArray:
    noise = random.standard_normal(query.shape)
    if query.ndim >= 2 and min(query.shape[-2:]) >= 3:
        noise = _smooth(noise)
    room = np.minimum(query - fp.lower, fp.upper - query)
    change = STRENGTH * spreads * noise
    if fp.task.levels is not None:
        step = (fp.upper - fp.lower) / max(fp.task.levels - 1, 1)
        steps = np.sign(noise) * np.maximum(np.abs(np.round(change / np.where(step > 0, step, 1.0))), spreads > 0)
        change = steps * step
        return np.where(np.abs(change) <= room * (1 + 1e-4), change, 0.0).astype(np.float32)
    return np.clip(change, -room, room).astype(np.float32)


def _smooth(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return noise whose neighbouring pixels vary together, of the same spread."""
    total = sum(np.roll(noise, (dy, dx), axis=(-2, -1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    smooth: NDArray[np.float64] = np.asarray(total) / 3.0
    return smooth
