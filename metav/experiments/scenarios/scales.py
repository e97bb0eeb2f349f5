"""How large an experiment is: data, models, surrogates, suspects, queries. No PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from metav.statistics.calibration import DEFAULT_FPR

ScaleName: TypeAlias = Literal["smoke", "small", "paper"]
SCALES: tuple[ScaleName, ...] = ("smoke", "small", "paper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes of one task at one scale.

    surrogates: training runs of each class, derived and independent.
    queries: N of every regime that does not change it.
    suspects: plain test suspects of each class; None: also attacked ones, as SUSPECT_COUNTS has them at this scale.
    attack_sizes: what replaces single numbers of SUSPECT_COUNTS.
    snapshots: further copies of each surrogate that is optimised on.
    query_counts, surrogate_counts: what the sweeps try (surrogates: three at least, one for each share of the zoo).
    options: of OptimizationOptions, where not the defaults.
    target_fpr: false-positive rate that the verdicts are asked for.
    every_family: leave out each family in turn, not only the students together.
    sample: suspects of each class, at most, that answer in other forms, and models of each kind of nonsense, a third.
    forms: how many of the forms of answers are tried; None is all.
    ablations: whether the method is tried without each of its parts, and without the owner's recipe.
    base: whether there is an owner who fine-tunes a public base, with a zoo of its own.
    width, images, epochs, objective: of the scenario; None is its own.
    """

    surrogates: int
    queries: int
    suspects: int | None = None
    attack_sizes: Mapping[str, int] = field(default_factory=dict)
    snapshots: int = 2
    query_counts: tuple[int, ...] = ()
    surrogate_counts: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    target_fpr: float = DEFAULT_FPR
    every_family: bool = True
    sample: int = 30
    forms: int | None = None
    ablations: bool = True
    base: bool = False
    width: int | None = None
    images: int | None = None
    epochs: float | None = None
    objective: str | None = None

    @property
    def scenario_options(self) -> dict[str, Any]:
        """Return the options of the scenario that the scale replaces."""
        names = ("width", "images", "epochs", "objective")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


FEW_TRAININGS: Mapping[str, int] = {"homologous": 6, "kindred": 60}
"""Models of the owner's own recipe at `small` where trainings are slow: false positives are what users fear most."""

QUICK_TRAININGS: Mapping[str, int] = {"rounds": 2, "kindred": 60, "attacked": 16}
"""What takes the place of SUSPECT_COUNTS at `small` where a model trains in about a second."""


def smoke_scale(**changes: Any) -> Scale:
    """Return the smallest sizes at which every regime runs; their rates mean nothing."""
    sizes: dict[str, Any] = {
        "surrogates": 14,
        "suspects": 14,
        "queries": 10,
        "snapshots": 1,
        "every_family": False,
        "sample": 3,
        "forms": 1,
        "ablations": False,
        "query_counts": (2, 5),
        "surrogate_counts": (7,),
        "target_fpr": 0.5,  # so few models calibrate that a lower rate would find nothing
        "options": {"steps": 10, "refit_steps": 50, "patience": 2, "repeats": 2},
    }
    return Scale(**(sizes | changes))


def full_scale(surrogates: int, **changes: Any) -> Scale:
    """Return sizes that are meant for results: 100 queries, and every sweep."""
    sizes: dict[str, Any] = {
        "surrogates": surrogates,
        "queries": 100,
        "query_counts": (2, 5, 10, 20, 50, 100, 200, 300),
        "surrogate_counts": (3, 6, 12, 24, 40, 60),
    }
    return Scale(**(sizes | changes))
