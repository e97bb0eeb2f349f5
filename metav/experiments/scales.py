"""How large each experiment is at each scale: data, models, surrogates, suspects, queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

ScaleName: TypeAlias = Literal["smoke", "small", "paper"]
SCALES: tuple[ScaleName, ...] = ("smoke", "small", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes of one task at one scale.

    surrogates, suspects: training runs of each class. snapshots: further copies of each surrogate that is optimised on.
    queries: N of every regime that does not change it. query_counts, surrogate_counts: what the sweeps try (surrogates:
    runs of each class; three at least, one for each share of the zoo). options: of OptimizationOptions, where not the
    defaults. every_family: leave out each family in turn, not only the students together. width, images, epochs,
    objective: of the scenario, None is its own.
    """

    surrogates: int
    suspects: int
    queries: int
    snapshots: int = 2
    query_counts: tuple[int, ...] = ()
    surrogate_counts: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    every_family: bool = True
    width: int | None = None
    images: int | None = None
    epochs: float | None = None
    objective: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, ready for JSON."""
        return asdict(self)


_COUNTS: dict[str, tuple[int, ...]] = {
    "query_counts": (2, 5, 10, 20, 50, 100, 200, 300),
    "surrogate_counts": (3, 6, 12, 24, 40, 60),
}
_SMOKE: dict[str, Any] = {
    "surrogates": 14,
    "suspects": 14,
    "queries": 10,
    "snapshots": 1,
    "every_family": False,
    "query_counts": (2, 5),
    "surrogate_counts": (4,),
    "options": {"steps": 20, "refit_steps": 100, "patience": 2, "repeats": 2},
}


def _smoke(**changes: Any) -> Scale:
    return Scale(**(_SMOKE | changes))


def _full(surrogates: int, suspects: int, **changes: Any) -> Scale:
    return Scale(**({"surrogates": surrogates, "suspects": suspects, "queries": 100} | _COUNTS | changes))


SIZES: Mapping[str, Mapping[ScaleName, Scale]] = {
    "digits": {
        "smoke": _smoke(epochs=4),
        "small": _full(96, 42),
        "paper": _full(192, 112),
    },
    "skin": {
        "smoke": _smoke(width=4, images=250, epochs=3),
        "small": _full(60, 42, width=16, epochs=8),
        "paper": _full(96, 112, width=64, epochs=20),
    },
    "warfarin": {
        "smoke": _smoke(epochs=8),
        "small": _full(96, 42),
        "paper": _full(144, 112),
    },
    # a generator answers 784 numbers a query: twenty queries are plenty, and three hundred would be slow
    "fashion": {
        "smoke": _smoke(images=150, epochs=4, queries=5),
        "small": _full(60, 36, queries=20, query_counts=(2, 5, 10, 20, 50)),
        "paper": _full(
            96,
            112,
            queries=20,
            query_counts=(2, 5, 10, 20, 50, 100),
            width=64,
            images=8000,
            epochs=25,
            objective="adversarial",
        ),
    },
}
"""By task and scale."""
