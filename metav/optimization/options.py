"""The options of the joint optimisation and of the selection that follows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from metav.errors import InputError
from metav.support.arguments import MOST_QUERIES, count, number, query_count, share
from metav.verifiers.kinds import VERIFIER_KINDS
from metav.verifiers.views import view_of

LARGEST = 1e6
"""Largest strength, rate or weight of any option: beyond it, verifiers no longer learn anything."""
_COUNTS = {
    "pool": (1, MOST_QUERIES),
    "hidden": (1, 2**14),
    "levels": (2, 2**24),
    "repeats": (1, 1000),
    **dict.fromkeys(("steps", "sampled", "verifier_updates", "evaluate_every", "patience", "refit_steps"), (1, 10**6)),
}
"""Options that are whole numbers, with their ranges."""
_NUMBERS = ("learning_rate", "query_learning_rate", "weight_decay", "radius", "noise")
_ABOVE_ZERO = ("learning_rate", "query_learning_rate")
_MAY_BE_NONE = ("pool", "levels", "adaptive", "radius")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationOptions:
    """Everything that steers the joint optimisation; the defaults serve classification, regression and generation.

    queries: number N of queries.
    adaptive: share of the queries that is optimised, in [0, 1]; the rest stays natural. None is 1 where only labels are
        read. Otherwise it is 0.75, or, where there is a pool larger than `queries`, whatever share of the best queries
        turns out to be optimised.
    pool: number of queries that are optimised first, where fewer optimised ones are wanted in the end. Those are kept
        that together tell derived from independent models best; natural inputs compete with them where `adaptive` is
        None. Without a radius, the kept ones are then optimised further. None is 40, or 100 where only labels are read.
        There is no pool if the zoo has fewer than 192 surrogates of a class.
    verifier: the kind of the final verifiers, "mlp", "local" or "matched"; "auto" tries all and keeps the best.
    view: how answers are read (`metav.verifiers.views`); None is the task's own.
    hidden: width of the hidden layer of the kind `mlp`.
    steps: most steps of the joint optimisation; each runs the owner and the sampled surrogates once.
    sampled: surrogates of each class per step.
    verifier_updates: updates of the verifier per step.
    learning_rate: of Adam, for the verifier.
    query_learning_rate: of Adam, for the queries, in units of the bounds' range.
    weights: (a_F, a_P, a_N), of the three terms of the loss: owner, positives and negatives.
    weight_decay: of the verifier.
    radius: largest change of a query, in units of the range. None is 0.5 in each optimisation for classifiers whose
        queries start on the owner's decision boundary, 0.1 for those whose queries start as informative mixtures of
        natural inputs, no limit for numbers.
    levels: number of values that an input feature can take (256 survives a PNG); None is the task's own.
    mix, noise, dropout: strengths of the augmentation of responses while verifiers train; mix and dropout in [0, 1].
    transform: chance that a step sees transformed queries, in [0, 1].
    evaluate_every: steps between two evaluations on the selection share.
    patience: evaluations without progress after which the optimisation stops.
    refit_steps: most updates of each verifier that is trained on the final queries.
    repeats: how often each chosen verifier is trained in the end; the logits are averaged. Each time another part of
        the calibration share is left out, and used to calibrate.

    Raises InputError for numbers outside these ranges or an unknown kind of verifier.
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
    repeats: int = 5

    def __post_init__(self) -> None:
        query_count(self.queries)
        for name, (least, most) in _COUNTS.items():
            if not self._is_left_out(name):
                count(name, getattr(self, name), least=least, most=most)
        for name in ("adaptive", "mix", "dropout", "transform"):
            if not self._is_left_out(name):
                share(name, getattr(self, name))
        for name in _NUMBERS:
            if not self._is_left_out(name):
                number(name, getattr(self, name), least=0, most=LARGEST, open_below=name in _ABOVE_ZERO)
        if not isinstance(self.weights, tuple | list) or len(self.weights) != 3:
            raise InputError(f"weights must be three numbers, of owner, positives and negatives, got {self.weights!r}")
        for weight in self.weights:
            number("each of the weights", weight, least=0, most=LARGEST)
        if not isinstance(self.verifier, str) or self.verifier not in ("auto", *VERIFIER_KINDS):
            raise InputError(f'verifier must be "auto" or one of {", ".join(VERIFIER_KINDS)}, got {self.verifier!r}')
        if self.view is not None:
            view_of(self.view)

    def _is_left_out(self, name: str) -> bool:
        return getattr(self, name) is None and name in _MAY_BE_NONE

    def step_settings(self) -> dict[str, Any]:
        """Return the arguments of one verifier update."""
        names = ("learning_rate", "weights", "weight_decay", "mix", "noise", "dropout")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OptimizationOptions:
        """Return the options that `to_dict` gave; what is missing gets its default, unknown names are left out.

        Raises InputError for values that the options refuse.
        """
        given = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if isinstance(given.get("weights"), list):
            given["weights"] = tuple(given["weights"])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a plain dictionary, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"weights": list(self.weights)}
