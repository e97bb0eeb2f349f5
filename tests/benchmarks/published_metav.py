"""MetaV as published (Pan et al., KDD 2022), in plain PyTorch: what the package's own optimisation is timed against.

Every step runs the owner's model and all surrogates one after the other on all queries, and takes one Adam step on
the verifier and one on the queries, which are then clamped to the task's bounds. The verifier is one MLP on the
concatenated responses. Its width, the rates and the form of the responses, which the paper's description leaves open,
are those that did best on digits, over rates from 1e-3 to 2e-1.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.curves import aruc
from metav.randomness import derive_seed, isolated_rng
from metav.tasks import Task
from metav.zoo import Zoo, ZooModel

HIDDEN = 128
VERIFIER_RATE = 1e-2
QUERY_RATE = 1e-1
EVALUATE_EVERY = 2
WEIGHTS = (0.5, 0.5, 1.0)
"""Of the owner, the positives and the negatives: both classes weigh the same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedFit:
    """The best state seen: queries (N, ...) and verifier; `history` holds (seconds, ARUC) at each evaluation.

    The seconds count the optimisation alone, without the evaluations.
    """

    queries: Tensor
    verifier: nn.Module
    is_classification: bool
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
            return float(self.verifier(respond(model, self.queries, self.is_classification)).sigmoid())


@dataclass(slots=True, kw_only=True)
class _Progress:
    """The clock, which evaluations stop, and the best state so far."""

    queries: Tensor
    verifier: nn.Module
    seconds: float = 0.0
    best: float = -1.0
    history: list[tuple[float, float]] = field(default_factory=list)

    def record(self, value: float, queries: Tensor, verifier: nn.Module) -> None:
        self.history.append((self.seconds, value))
        if value > self.best:
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
    held_out: Sequence[ZooModel] | None = None,
) -> PublishedFit:
    """Optimise queries and verifier until the ARUC on held-out models reaches the target, or time is up.

    held_out: models of both classes that are never optimised on (None: the fully trained ones of the share "select").
    Trains on the fully trained models of the share "optimize", as published: without snapshots.
    """
    is_classification = task.name == "classification"
    models = [copy.deepcopy(owner).eval().requires_grad_(False), *(entry.model for entry in _trained(zoo, "optimize"))]
    labels = torch.tensor([1.0, *(float(entry.is_positive) for entry in _trained(zoo, "optimize"))])
    weights = _weights(labels)
    held_out = _trained(zoo, "select") if held_out is None else held_out
    fingerprint = task.natural_queries(queries, seed=seed).requires_grad_(True)
    with isolated_rng(derive_seed(seed, "published")):
        verifier = _verifier(respond(models[0], fingerprint, is_classification).numel())
    optimizers = [
        torch.optim.Adam(verifier.parameters(), lr=VERIFIER_RATE, fused=True),
        torch.optim.Adam([fingerprint], lr=QUERY_RATE, fused=True),
    ]
    progress, step = _Progress(queries=fingerprint, verifier=verifier), 0
    while not progress.history or (progress.best < target_aruc and progress.seconds < max_seconds):
        started = time.perf_counter()
        responses = torch.stack([respond(model, fingerprint, is_classification) for model in models])
        losses = functional.binary_cross_entropy_with_logits(verifier(responses), labels, reduction="none")
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (weights * losses).sum().backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            fingerprint.copy_(fingerprint.clamp(task.lower, task.upper))
        progress.seconds += time.perf_counter() - started
        step += 1
        if step % EVALUATE_EVERY == 0:
            progress.record(_held_out_aruc(held_out, fingerprint, verifier, is_classification), fingerprint, verifier)
    return PublishedFit(
        queries=progress.queries,
        verifier=progress.verifier,
        is_classification=is_classification,
        history=tuple(progress.history),
    )


def respond(model: nn.Module, queries: Tensor, is_classification: bool) -> Tensor:
    """Return the concatenated responses (N * K,) of a model: probabilities for a classifier, else its raw outputs."""
    outputs = model(queries).flatten(1)
    # On digits logits and log-probabilities end at an ARUC 0.05 to 0.1 lower: their scale drowns the verifier.
    return (functional.softmax(outputs, dim=1) if is_classification else outputs).flatten()


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


def _held_out_aruc(models: Sequence[ZooModel], queries: Tensor, verifier: nn.Module, is_classification: bool) -> float:
    with torch.no_grad():
        responses = torch.stack([respond(entry.model, queries, is_classification) for entry in models])
        scores = verifier(responses).sigmoid().double().numpy()
    derived = torch.tensor([entry.is_positive for entry in models]).numpy()
    return float(aruc(scores[derived], scores[~derived]))
