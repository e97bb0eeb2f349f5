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

    surrogates: training runs of each class. suspects: plain ones of each class; None: with attacks, as `suspect_plan`
    has them at this scale, with `attack_sizes` in place of its own. snapshots: further copies of each surrogate that
    is optimised on.
    queries: N of every regime that does not change it. query_counts, surrogate_counts: what the sweeps try (surrogates:
    runs of each class; three at least, one for each share of the zoo). options: of OptimizationOptions, where not the
    defaults. every_family: leave out each family in turn, not only the students together. width, images, epochs,
    objective: of the scenario, None is its own.
    """

    surrogates: int
    queries: int
    suspects: int | None = None
    attack_sizes: Mapping[str, int] = field(default_factory=dict)
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


_FEW_TRAININGS = {"homologous": 100}
"""As many independent models of the owner's own kind as at `paper`: false positives are what users fear most."""

_QUICK_TRAININGS = _FEW_TRAININGS | {"rounds": 2, "other_architecture": 12, "other_data": 12, "attacked": 14}


def _smoke(**changes: Any) -> Scale:
    return Scale(**(_SMOKE | changes))


def _full(surrogates: int, **changes: Any) -> Scale:
    return Scale(**({"surrogates": surrogates, "queries": 100} | _COUNTS | changes))


SIZES: Mapping[str, Mapping[ScaleName, Scale]] = {
    "digits": {
        "smoke": _smoke(epochs=4),
        "small": _full(192, attack_sizes=_QUICK_TRAININGS),
        "paper": _full(192),
    },
    "skin": {
        "smoke": _smoke(width=4, images=250, epochs=3),
        "small": _full(60, width=16, epochs=8, attack_sizes=_FEW_TRAININGS),
        "paper": _full(96, width=64, epochs=12),
    },
    "warfarin": {
        "smoke": _smoke(epochs=8),
        "small": _full(192, attack_sizes=_QUICK_TRAININGS),
        "paper": _full(192),
    },
    # a generator answers 784 numbers a query: twenty queries are plenty, and three hundred would be slow
    "fashion": {
        "smoke": _smoke(images=150, epochs=4, queries=5),
        "small": _full(60, queries=20, query_counts=(2, 5, 10, 20, 50), attack_sizes=_QUICK_TRAININGS),
        "paper": _full(
            96,
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
