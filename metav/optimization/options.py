"""The settings of the joint optimisation and of the selection that follows it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from metav.errors import InputError
from metav.verifiers import VERIFIER_KINDS, reads_classes, reads_labels

ADAPTIVE = 0.75
"""Share of the queries that is optimised, by default."""
POOL = 40
LABEL_POOL = 100
"""Queries to choose from, by default, and where labels are all that is read."""
BORDER_SURROGATES = 128
"""Of each class, from which on queries for scores start on the owner's decision boundary. Answers differ most there,
among independent models, too: with 24 to 60 it gained nothing on development owners, or lost."""
BORDER_RADIUS = 0.5
"""How far a query moves from the owner's decision boundary: farther away, the owner's answers are chance that no copy
learns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationOptions:
    """Everything that steers the joint optimisation; the defaults serve all three tasks.

    queries: number N of queries. adaptive: share of them that is optimised, the rest stays natural; None is 0.75, and
    what tells most where queries are fewer than the pool; for labels it is 1. pool: where fewer queries are to be
    optimised, so many are, and those kept that together tell most, natural ones only if they do; without a radius, what
    was optimised is optimised on; None is 40, for labels 100; no pool with fewer than 192 surrogates of a class.
    verifier: "auto" or one kind. view: how answers are read, None = the task's own. hidden: width of `mlp`. steps:
    passes through the sampled surrogates. sampled: surrogates of each class per pass. verifier_updates: updates of the
    verifier per pass. learning_rate, query_learning_rate: Adam, of the verifier and of the queries (in units of the
    bounds' range). weights: a_F, a_P, a_N of the three terms. radius: largest change of a query, in units of the range;
    None
    = 0.5 each time for classifiers, whose optimised queries start on the owner's decision boundary, else free. levels:
    number of levels an input feature can take (256 survives a PNG), None = continuous. mix, noise, dropout:
    response-space augmentation. transform: chance that a pass sees transformed queries. patience: evaluations without
    progress before the optimisation stops. refit_steps: most updates of each candidate verifier on the final queries.
    repeats: final verifiers of each chosen kind, whose logits are averaged; each leaves out, and calibrates on, another
    part of the calibration share.
    """

    queries: int = 100
    adaptive: float | None = None
    pool: int | None = None
    verifier: str = "auto"
    view: str | None = None
    hidden: int = 64
    steps: int = 150
    sampled: int = 8
    verifier_updates: int = 6
    learning_rate: float = 3e-3
    query_learning_rate: float = 3e-2
    weights: tuple[float, float, float] = (0.5, 1.0, 1.0)
    weight_decay: float = 1e-2
    radius: float | None = None
    levels: int | None = None
    mix: float = 0.5
    noise: float = 0.3
    dropout: float = 0.3
    transform: float = 0.5
    evaluate_every: int = 10
    patience: int = 6
    refit_steps: int = 400
    repeats: int = 3

    def __post_init__(self) -> None:
        counts = (
            "queries",
            "pool",
            "hidden",
            "steps",
            "sampled",
            "verifier_updates",
            "evaluate_every",
            "refit_steps",
            "repeats",
        )
        for name in counts:
            value = getattr(self, name)
            if name == "pool" and value is None:
                continue
            if not isinstance(value, Integral):
                raise InputError(f"{name} must be a whole number, got {value!r}")
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for name in ("adaptive", "mix", "dropout", "transform"):
            value = getattr(self, name)
            if name == "adaptive" and value is None:
                continue
            if not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {value!r}")
        if self.verifier != "auto" and self.verifier not in VERIFIER_KINDS:
            raise InputError(f'verifier must be "auto" or one of {", ".join(VERIFIER_KINDS)}, got {self.verifier!r}')

    def for_zoo(self, view: str, surrogates: int) -> OptimizationOptions:
        """These options with what None stands for under a view, with so many surrogates of each class."""
        labels = reads_labels(view)
        defaults: dict[str, Any] = {
            "pool": LABEL_POOL if labels else POOL,
            "adaptive": 1.0 if labels else None,  # natural queries tell nothing where labels are read
            "radius": BORDER_RADIUS if starts_on_border(view, surrogates) else None,
        }
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def adaptive_count(self, pool: int) -> int:
        """Number of queries that are optimised, at most, where so many make a pool."""
        if self.adaptive is None:
            return self.queries if self.queries < pool else round(ADAPTIVE * self.queries)
        return round(self.adaptive * self.queries)

    def step_settings(self) -> dict[str, Any]:
        """The arguments of one verifier update."""
        names = ("learning_rate", "weights", "weight_decay", "mix", "noise", "dropout")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"weights": list(self.weights)}


def starts_on_border(view: str, surrogates: int) -> bool:
    """Whether optimised queries start on the owner's decision boundary, with so many surrogates of each class."""
    return reads_labels(view) or (reads_classes(view) and surrogates >= BORDER_SURROGATES)
