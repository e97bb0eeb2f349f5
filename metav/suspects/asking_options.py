"""How carefully a suspect is asked: budget, pace, retries, order, decoys and the log, as one value."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from metav.errors import InputError
from metav.support.arguments import whole_number
from metav.support.files import PathLike

SERVICE_ATTEMPTS = 6
"""How often a batch is sent to a service at most, where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingOptions:
    """Everything that steers how a suspect is asked; by default one in this process is asked once, in order, unlogged.

    log: SQLite file of the run; made if absent, continued if it holds a part of the same run. None keeps no log.
    budget: most queries that are sent in all, over all sessions of a log; every attempt counts that was not refused.
    price: money per query that is sent; 0 where it costs nothing.
    money: most money that is spent in all.
    rate: most queries per second.
    batch_size: most queries that are sent at once; less, once a service refuses so many.
    timeout: seconds after which a batch that is not answered counts as failed; for everything but PyTorch modules.
    attempts: how often a batch is sent before the run stops. None: 6 for services, else 1.
    longest_wait: most seconds to wait before an attempt; a service that asks for more stops the run.
    shuffle: whether the order of queries is drawn at random. None: for services, and wherever there are decoys.
    decoys: number of inputs mixed in that are natural ones, slightly changed; even. They tell whether the queries are
        treated apart.
    repeats: number of queries that are asked twice. None: 8, more where batches of a shuffled run are many.
    seed: of order, repeats and decoys, together with the fingerprint's secret salt.
    keep_queries: whether the log stores the queries themselves, which are secret, beside their digests.
    progress: None shows a bar on a terminal, False never, True always.

    Raises InputError for values that cannot be used.
    """

    log: PathLike | None = None
    budget: int | None = None
    price: float = 0.0
    money: float | None = None
    rate: float | None = None
    batch_size: int = 256
    timeout: float | None = None
    attempts: int | None = None
    longest_wait: float = 300.0
    shuffle: bool | None = None
    decoys: int = 0
    repeats: int | None = None
    seed: int = 0
    keep_queries: bool = False
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.log is not None and not isinstance(self.log, str | os.PathLike):
            raise InputError(f"log must be the path of a file, got {self.log!r}")
        whole_number("batch_size", self.batch_size, least=1)
        whole_number("decoys", self.decoys, least=0)
        whole_number("seed", self.seed)
        for name in ("budget", "attempts", "repeats"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), least=0 if name == "repeats" else 1)
        for name, least in (("price", 0), ("money", 0), ("rate", None), ("timeout", None), ("longest_wait", 0)):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), least)
        if self.decoys % 2:
            raise InputError(f"decoys come in pairs about one natural input, got {self.decoys}; pass an even number")
        if self.decoys and self.shuffle is False:
            raise InputError("decoys stand out in a fixed order; leave shuffle out, or pass no decoys")
        if self.money is not None and not self.price:
            raise InputError("money limits nothing without the price of a query; pass price as well")

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked for that a suspect in this process would not get anyway."""
        plain = AskingOptions(batch_size=self.batch_size, progress=self.progress)
        return self == plain

    def affordable(self) -> int | None:
        """Return how many queries budget and money allow in all; None for no limit."""
        limits = [] if self.budget is None else [self.budget]
        if self.money is not None:
            # a cent that is missing by rounding alone does not count
            limits.append(math.floor(self.money / self.price * (1 + 1e-12)))
        return min(limits, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a plain dictionary, ready for JSON; the log's name without its folder."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"log": None if self.log is None else os.path.basename(os.fspath(self.log))}


def _number(name: str, value: Any, least: int | None) -> None:
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or (float(value) <= 0 if least is None else float(value) < least):
        span = "above 0" if least is None else f"from {least}"
        raise InputError(f"{name} must be a number {span}, got {value!r}")
