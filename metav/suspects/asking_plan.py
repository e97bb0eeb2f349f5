"""What is sent in which order: queries, decoys among them, and queries that come again."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.fingerprints.fingerprint import Fingerprint
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed
from metav.suspects.asking_options import AskingOptions
from metav.suspects.base import REPEATED
from metav.suspects.decoys import make_decoys

MOST_REPEATED = 4
"""One query in this many is asked twice at most, unless more are asked for."""
LATE = 0.75
"""Half of the queries that come again do so in the last quarter of a shuffled run: most of it lies between."""
SOON = (0.125, 0.25)
"""The others come again after this share of the run, so that a change in between parts few of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskingPlan:
    """The items of a run in the order in which they are sent; each is one input, sent once if all goes well.

    queries: how many of the inputs are the fingerprint's.
    inputs: (n, ...) float32, the queries, then the decoys.
    sources: of each item, the number of its input, (items,).
    pairs: (r, 2) items that send the same query, first the earlier one.
    parts: numbers of items that are batched together; they add up to all.
    origins: (m,) queries whose neighbours are the decoys 2i and 2i + 1.
    shuffled: whether the order was drawn at random.
    digests: of each input, keyed.
    """

    queries: int
    inputs: FloatArray
    sources: NDArray[np.intp]
    pairs: NDArray[np.intp]
    parts: tuple[int, ...]
    origins: NDArray[np.intp]
    shuffled: bool
    digests: tuple[str, ...]

    @property
    def firsts(self) -> NDArray[np.intp]:
        """The first item of each input, (n,)."""
        _, found = np.unique(self.sources, return_index=True)
        return found

    def header(self, options: AskingOptions) -> dict[str, Any]:
        """Return what a log says of the plan; the digest is that of what is sent, in order."""
        order = "|".join(self.digests[source] for source in self.sources)
        return {
            "queries": self.queries,
            "decoys": len(self.inputs) - self.queries,
            "repeats": len(self.pairs),
            "shuffle": self.shuffled,
            "seed": options.seed,
            "digest": hashlib.sha256(f"{self.parts}|{order}".encode()).hexdigest(),
        }


def plan_asking(fp: Fingerprint, options: AskingOptions) -> AskingPlan:
    """Return the plan of a run; the same for the same fingerprint, seed, decoys, repeats and shuffle.

    Raises InputError where no decoys can be made.
    """
    seed = derive_seed(options.seed, fp.salt, "asking")
    decoys = make_decoys(fp, options.decoys, derive_seed(seed, "decoys"))
    count, shuffled = len(fp.queries), bool(options.shuffle or options.decoys)
    inputs = np.concatenate([fp.queries, decoys.inputs]) if len(decoys.inputs) else fp.queries
    if shuffled:
        order, repeats = np.random.default_rng(seed).permutation(len(inputs)), _repeats(count, len(inputs), options)
        sources, pairs = _with_repeats(order, count, repeats, np.random.default_rng(derive_seed(seed, "repeats")))
        parts: tuple[int, ...] = (len(sources),)
    else:
        wanted = REPEATED if options.repeats is None else options.repeats
        again = np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.intp))
        sources = np.concatenate([np.arange(count), again])
        pairs = np.stack([again, count + np.arange(len(again))], axis=1)
        parts = (count, len(again)) if len(again) else (count,)
    return AskingPlan(
        queries=count,
        inputs=inputs,
        sources=sources,
        pairs=pairs,
        parts=parts,
        origins=decoys.origins,
        shuffled=shuffled,
        digests=tuple(_digest(bytes.fromhex(fp.salt), row) for row in inputs),
    )


def _repeats(count: int, inputs: int, options: AskingOptions) -> int:
    if options.repeats is not None:
        return min(options.repeats, count)
    # two of each batch, so that rows of a batch that come in another order show
    batches = -(-inputs // options.batch_size) if options.batch_size > 1 else 0
    return min(count, max(REPEATED, min(2 * batches, count // MOST_REPEATED)))


def _with_repeats(
    order: NDArray[np.intp], count: int, repeats: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return an order with queries that come again late, and the places (r, 2) of each such pair."""
    places = np.flatnonzero(order < count)
    chosen = places[np.unique(np.linspace(0, len(places) - 1, repeats).astype(np.intp))] if repeats else places[:0]
    length = len(order)
    late = random.integers(np.maximum(chosen, int(LATE * length)), length)
    soon = np.minimum(
        chosen + random.integers(round(SOON[0] * length), round(SOON[1] * length) + 1, len(chosen)), length
    )
    after = np.where(np.arange(len(chosen)) % 2 == 0, late, soon)
    after[:1] = length + 1  # the very first comes again at the very end
    keys = np.concatenate([np.arange(len(order)), after + 0.5])
    ranks = np.argsort(keys, kind="stable")
    sources = np.concatenate([order, order[chosen]])[ranks]
    position = np.empty(len(ranks), np.intp)
    position[ranks] = np.arange(len(ranks))
    pairs = np.stack([position[chosen], position[len(order) + np.arange(len(chosen))]], axis=1)
    return sources, pairs


def _digest(key: bytes, row: FloatArray) -> str:
    digest = hmac.new(key, f"{row.shape}|".encode(), hashlib.sha256)
    digest.update(np.ascontiguousarray(row, "<f4").data)
    return digest.hexdigest()
