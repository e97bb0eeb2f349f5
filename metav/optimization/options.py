"""The settings of the joint optimisation and of the selection that follows it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from metav.errors import InputError
from metav.support.arguments import share, whole_number
from metav.verifiers.kinds import VERIFIER_KINDS


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
        counts = ("queries", "pool", "hidden", "steps", "sampled", "verifier_updates")
        for name in (*counts, "evaluate_every", "refit_steps", "repeats"):
            value = getattr(self, name)
            if value is not None or name != "pool":
                whole_number(name, value, least=1)
        for name in ("adaptive", "mix", "dropout", "transform"):
            value = getattr(self, name)
            if value is not None or name != "adaptive":
                share(name, value)
        if self.verifier != "auto" and self.verifier not in VERIFIER_KINDS:
            raise InputError(f'verifier must be "auto" or one of {", ".join(VERIFIER_KINDS)}, got {self.verifier!r}')

    def step_settings(self) -> dict[str, Any]:
        """The arguments of one verifier update."""
        names = ("learning_rate", "weights", "weight_decay", "mix", "noise", "dropout")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"weights": list(self.weights)}
