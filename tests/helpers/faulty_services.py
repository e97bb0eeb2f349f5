"""A service in memory that answers with a linear model and fails in every way that services do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from linear_fingerprints import answers

from metav.errors import TransportError
from metav.suspects.transports import Reply, Transport


def _fails(reason: str, status: int | None = None, *, retriable: bool = True, wait: float | None = None):
    def fail(rows: np.ndarray) -> np.ndarray:
        raise TransportError(
            reason, f"injected {reason} {status}", status=status, retry_after=wait, retriable=retriable
        )

    return fail


def _as_text(rows: np.ndarray) -> list:
    nested = rows.tolist()
    nested[0][0] = "NaN"
    return nested


FAULTS: dict[str, Callable[[np.ndarray], object]] = {
    "drop": _fails("unreachable"),
    "reset": _fails("unreachable"),
    "429 with Retry-After": _fails("refused", 429, wait=7.0),
    "429": _fails("refused", 429),
    "500": _fails("refused", 500),
    "503": _fails("refused", 503, wait=2.0),
    "202 with an empty body": _fails("unreadable", 202, retriable=False),
    "slow bytes": _fails("timeout"),
    "truncated JSON": _fails("unreadable", 200, retriable=False),
    "NaN as text": _as_text,
    "NaN": lambda rows: np.where(np.arange(rows.size).reshape(rows.shape) == 0, np.nan, rows),
    "fewer rows": lambda rows: rows[:-1],
    "more columns": lambda rows: np.concatenate([rows, rows], axis=1),
    "ragged": lambda rows: [*rows.tolist()[:-1], [0.0]],
    "an object": lambda rows: [{"score": 1}] * len(rows),
}
"""What comes instead of the rows of a batch."""
SILENT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows reversed": lambda rows: rows[::-1],
    "rows rotated": lambda rows: np.roll(rows, 1, axis=0),
}
"""Faults that look like answers."""


@dataclass
class FaultyService(Transport):
    """Answers with `matrix`; `plan` says which fault the n-th request meets, by name; other requests are answered.

    seen counts, by the bytes of a query, how often a good answer to it was delivered. `limit`: most rows at once, above
    which it says 413. From request `changes` on it answers with another matrix, from `expires` on with 401.
    """

    matrix: np.ndarray
    plan: dict[int, str] = field(default_factory=dict)
    limit: int | None = None
    changes: tuple[int, np.ndarray] | None = None
    expires: int | None = None
    seen: Counter = field(default_factory=Counter)
    requests: int = 0
    sizes: list[int] = field(default_factory=list)

    description = "a faulty service"
    endpoint = "http://localhost/faulty"
    configuration: dict = field(default_factory=dict)

    def answer_batch(self, queries: np.ndarray) -> Reply:
        number, self.requests = self.requests, self.requests + 1
        self.sizes.append(len(queries))
        if self.expires is not None and number >= self.expires:
            raise TransportError("refused", "the token expired", status=401)
        if self.limit is not None and len(queries) > self.limit:
            raise TransportError("refused", "too many", status=413)
        matrix = self.matrix if self.changes is None or number < self.changes[0] else self.changes[1]
        rows = answers(matrix, queries)
        name = self.plan.get(number)
        if name in SILENT:
            rows = SILENT[name](rows)
        elif name is not None:
            return self._reply(FAULTS[name](rows))
        self.seen.update(row.tobytes() for row in np.asarray(queries, np.float32))
        return self._reply(rows)

    def _reply(self, values: object) -> Reply:
        return Reply(values=values, status=200, request_sha256="a" * 64, response_sha256="b" * 64)


def drawn_faults(seed: int, *, share: float = 0.35, requests: int = 200) -> dict[int, str]:
    """Faults for a share of the requests, drawn at random, never more than three in a row."""
    generator, plan = random.Random(seed), {}
    for number in range(requests):
        row = all(earlier in plan for earlier in range(number - 3, number)) and number >= 3
        if not row and generator.random() < share:
            plan[number] = generator.choice(sorted(FAULTS))
    return plan
