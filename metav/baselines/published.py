"""MetaV as published (Pan et al., KDD 2022), in plain PyTorch.

Every step runs the owner's model and all surrogates one after the other on all queries, and takes one Adam step on
the verifier and one on the queries, which are then clamped to the task's bounds. The verifier is one MLP on the
concatenated responses. Its width, the rates and the form of the responses, which the paper's description leaves open,
are those that did best on digits, over rates from 1e-3 to 2e-1.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.baselines.base import Baseline, FitContext, as_features, features_of, logistic
from metav.baselines.inputs import clamp
from metav.errors import InputError
from metav.models.running import device_of, frozen_copy
from metav.statistics.roc_aruc import aruc
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task
from metav.zoo.zoo import Zoo, ZooModel

HIDDEN = 128
VERIFIER_RATE = 1e-2
QUERY_RATE = 1e-1
EVALUATE_EVERY = 2
WEIGHTS = (0.5, 0.5, 1.0)
"""Weights in the loss: the owner and all positives together weigh as much as all negatives."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedFit:
    """The best state that the optimisation of MetaV as published has seen.

    queries: (N, *input shape).
    verifier: from flattened responses to a logit.
    classes: whether responses are a classifier's.
    history: (seconds, ARUC on held-out models) at each evaluation. The seconds count the optimisation alone, without
        the evaluations. Without held-out models the ARUC is NaN, and the state is the last one.
    """

    queries: Tensor
    verifier: nn.Module
    classes: bool
    history: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        """Seconds of optimisation until the last evaluation."""
        return self.history[-1][0]

    @property
    def aruc(self) -> float:
        """The best ARUC on the held-out surrogates."""
        return max(value for _, value in self.history)

    def score(self, model: nn.Module) -> float:
        """Return the verifier's score of a model, in [0, 1]."""
        with torch.no_grad():
            return logistic(float(self.verifier(features_of(model, self.queries, classes=self.classes).flatten())))


@dataclass(slots=True, kw_only=True)
class _Progress:
    """The seconds of optimisation, evaluations not counted, and the best state so far."""

    queries: Tensor
    verifier: nn.Module
    seconds: float = 0.0
    best: float = -1.0
    history: list[tuple[float, float]] = field(default_factory=list)

    def record(self, value: float, queries: Tensor, verifier: nn.Module) -> None:
        """Note an ARUC, and keep the state where it is the best so far."""
        self.history.append((self.seconds, value))
        # without held-out models the value is NaN: then the last state is kept
        if not value <= self.best:
            self.best, self.queries, self.verifier = value, queries.detach().clone(), copy.deepcopy(verifier)


def fit_published(
    owner: nn.Module,
    task: Task,
    zoo: Zoo,
    *,
    queries: int = 100,
    seed: int = 0,
    target_aruc: float = 1.0,
    max_seconds: float = 60.0,
    max_steps: float = math.inf,
    evaluate_every: int = EVALUATE_EVERY,
    held_out: Sequence[ZooModel] | None = None,
) -> PublishedFit:
    """Optimise queries and verifier until the ARUC on held-out models reaches the target, or time or steps are up.

    owner, task, zoo: the owner's model, what it has learned, and its surrogates. Those of the share "optimize" that are
        fully trained are optimised on, as published: without snapshots.
    queries: their number N.
    seed: of every random choice.
    target_aruc: in [0, 1].
    max_seconds: of optimisation, evaluations not counted.
    max_steps: of optimisation.
    evaluate_every: steps between two evaluations.
    held_out: models of both classes that are never optimised on; None: the fully trained ones of the share "select".
    """
    trained = _trained(zoo, "optimize")
    return optimise_published(
        owner,
        task,
        trained,
        _trained(zoo, "select") if held_out is None else held_out,
        queries=queries,
        seed=seed,
        target_aruc=target_aruc,
        max_seconds=max_seconds,
        max_steps=max_steps,
        evaluate_every=evaluate_every,
    )


def optimise_published(
    owner: nn.Module,
    task: Task,
    surrogates: Sequence[ZooModel],
    held_out: Sequence[ZooModel],
    *,
    queries: int,
    seed: int,
    target_aruc: float,
    max_seconds: float,
    max_steps: float,
    evaluate_every: int,
) -> PublishedFit:
    """Run the optimisation of `fit_published` on given surrogates.

    surrogates: the models that are optimised on.
    held_out: those that are not; without any, the optimisation runs until time or steps are up.

    The other arguments are those of `fit_published`.
    """
    device = device_of(owner)
    models = [frozen_copy(owner), *(entry.model for entry in surrogates)]
    labels = torch.tensor([1.0, *(float(entry.is_positive) for entry in surrogates)], device=device)
    weights, lower, upper = _weights(labels), task.lower.to(device), task.upper.to(device)
    fingerprint = task.natural_queries(queries, seed=seed).to(device).requires_grad_(True)
    with isolated_rng(derive_seed(seed, "published")):
        verifier = _verifier(features_of(models[0], fingerprint, classes=task.kind.answers_classes).numel()).to(device)
    optimizers = [
        torch.optim.Adam(verifier.parameters(), lr=VERIFIER_RATE, fused=True),
        torch.optim.Adam([fingerprint], lr=QUERY_RATE, fused=True),
    ]
    progress, step = _Progress(queries=fingerprint, verifier=verifier), 0
    while not progress.history or not _is_done(progress, step, target_aruc, max_seconds, max_steps):
        started = time.perf_counter()
        responses = torch.stack(
            [features_of(model, fingerprint, classes=task.kind.answers_classes).flatten() for model in models]
        )
        losses = functional.binary_cross_entropy_with_logits(verifier(responses), labels, reduction="none")
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (weights * losses).sum().backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            fingerprint.copy_(clamp(fingerprint, lower, upper))
        progress.seconds += time.perf_counter() - started
        step += 1
        if step % evaluate_every == 0 or step >= max_steps:
            progress.record(
                _held_out_aruc(held_out, fingerprint, verifier, classes=task.kind.answers_classes),
                fingerprint,
                verifier,
            )
    return PublishedFit(
        queries=progress.queries,
        verifier=progress.verifier,
        classes=task.kind.answers_classes,
        history=tuple(progress.history),
    )


def _is_done(progress: _Progress, step: int, target: float, max_seconds: float, max_steps: float) -> bool:
    return progress.best >= target or progress.seconds >= max_seconds or step >= max_steps


def _verifier(features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1), nn.Flatten(0))


def _weights(labels: Tensor) -> Tensor:
    """Return the weight of each model's loss, the owner's first."""
    owner, positive, negative = WEIGHTS
    weights = torch.where(labels > 0, positive / (labels.sum() - 1), negative / (1 - labels).sum())
    weights[0] = owner
    return weights


def _trained(zoo: Zoo, share: str) -> Sequence[ZooModel]:
    return [entry for entry in zoo.share(share) if entry.fraction == 1.0]


def _held_out_aruc(models: Sequence[ZooModel], queries: Tensor, verifier: nn.Module, *, classes: bool) -> float:
    if not models:
        return math.nan
    with torch.no_grad():
        responses = torch.stack([features_of(entry.model, queries, classes=classes).flatten() for entry in models])
        scores = verifier(responses).sigmoid().double().cpu().numpy()
    derived = torch.tensor([entry.is_positive for entry in models]).numpy()
    return float(aruc(scores[derived], scores[~derived]))


class PublishedMetaV(Baseline):
    """MetaV as published: queries and one MLP, jointly optimised over all surrogates; the score is its sigmoid.

    steps: at most; it stops where the held-out ARUC is 1.
    evaluate_every: steps between two evaluations.

    Maximise log V(owner) + mean log V(derived) + mean log (1 - V(independent)), by Adam on verifier and queries in full
    batch; see `fit_published`. All fully trained surrogates are optimised on, but for those of the share "select",
    which choose the best state; where that share lacks a class, they are optimised on too, and the last state counts.

    Raises InputError for numbers below 1.

    Source: Pan, Yan, Zhang, Yang: "MetaV: A Meta-Verifier Approach to Task-Agnostic Model Fingerprinting", KDD 2022
        (arXiv 2201.07391v3).
    """

    name = "MetaV as published"
    fit_takes_minutes: ClassVar[bool] = True
    least_positives = 1
    least_negatives = 1

    verifier: nn.Module

    def __init__(self, *, steps: int = 300, evaluate_every: int = 10) -> None:
        if steps < 1 or evaluate_every < 1:
            raise InputError(f"steps and evaluate_every must be at least 1, got {steps} and {evaluate_every}")
        self.steps, self.evaluate_every = steps, evaluate_every

    def _fit(self, context: FitContext) -> Tensor:
        entries = context.surrogates(snapshots=False)
        if len({entry.is_positive for entry in entries}) < 2:
            entries = context.surrogates(snapshots=True)
        held_out = [entry for entry in entries if entry.share == "select"]
        rest = [entry for entry in entries if entry.share != "select"]
        if any(len({entry.is_positive for entry in part}) < 2 for part in (held_out, rest)):
            held_out, rest = [], entries
        found = optimise_published(
            context.owner,
            context.task,
            rest,
            held_out,
            queries=context.queries,
            seed=context.seed,
            target_aruc=1.0,
            max_seconds=math.inf,
            max_steps=self.steps,
            evaluate_every=self.evaluate_every,
        )
        self.verifier = found.verifier.cpu().double()
        return found.queries

    def _score(self, responses: FloatArray) -> float:
        features = torch.from_numpy(as_features(responses, classes=self._reads_classes)).flatten()
        with torch.no_grad():
            return logistic(float(self.verifier(features)))
