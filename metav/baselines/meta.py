"""Verifiers trained on surrogates: LiteGuard, a meta-verifier on fixed queries, and a matched filter."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from metav import _core
from metav.baselines.base import (
    Baseline,
    FitContext,
    answers_of,
    as_features,
    features_of,
    logistic,
    models_of,
    roles_of,
)
from metav.baselines.inputs import clamp
from metav.errors import InputError
from metav.optimization.options import OptimizationOptions
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed


class LiteGuard(Baseline):
    """One linear verifier per query, trained with it; the score is the mean of their sigmoids, in [0, 1].

    steps: number of updates.
    learning_rate: of Adam, for the verifiers.
    query_learning_rate: of Adam, for the queries, in units of a feature's range.

    Query x_m and verifier v_m(y) = sigmoid(w_m . y + b_m) are trained as a pair, all pairs independently, on 0.5
    bce(owner, 1) + 1.0 bce(derived, 1) + 1.5 bce(independent, 0), with one surrogate of each class drawn for every
    step. The model sets hold snapshots from 35 to 85 % of training, which `build_zoo` takes by default. Rates, number
    of steps and the start, here at natural inputs, are not in the paper's description: they are chosen on digits. A
    classifier's responses are its probabilities.

    Raises InputError for numbers that are not positive.

    Source: Yang, Geng, Chen, Luo: "LiteGuard: Efficient Task-Agnostic Model Fingerprinting with Enhanced
        Generalization", ICLR 2026 (arXiv 2603.24982).
    """

    name = "LiteGuard"
    least_positives = 1
    least_negatives = 1

    weight: Tensor
    bias: Tensor

    def __init__(self, *, steps: int = 1000, learning_rate: float = 3e-2, query_learning_rate: float = 3e-2) -> None:
        if steps < 1 or learning_rate <= 0 or query_learning_rate <= 0:
            raise InputError(
                "steps, learning_rate and query_learning_rate must be positive, "
                f"got {steps}, {learning_rate} and {query_learning_rate}"
            )
        self.steps, self.learning_rate, self.query_learning_rate = steps, learning_rate, query_learning_rate

    def _fit(self, context: FitContext) -> Tensor:
        entries = context.surrogates(snapshots=True)
        pools = [models_of(entries, is_positive) for is_positive in (True, False)]
        lower, scale = context.lower, context.upper - context.lower
        start = context.natural(context.queries)
        position = _relative(start, lower, scale).requires_grad_(True)
        with torch.no_grad():
            outputs = features_of(context.owner, start[:1], classes=context.task.kind.answers_classes).shape[1]
        weight = (torch.randn(len(start), outputs, generator=context.generator("weights")) / outputs**0.5).to(start)
        weight.requires_grad_(True)
        bias = torch.zeros(len(start)).to(start).requires_grad_(True)
        optimizer = torch.optim.Adam(
            [
                {"params": [weight, bias], "lr": self.learning_rate},
                {"params": [position], "lr": self.query_learning_rate},
            ]
        )
        generator = context.generator("surrogates")
        for _ in range(self.steps):
            derived, independent = (pool[int(torch.randint(len(pool), (), generator=generator))] for pool in pools)
            inputs = lower + position * scale
            loss = torch.zeros(())
            for model, share, target in ((context.owner, 0.5, 1.0), (derived, 1.0, 1.0), (independent, 1.5, 0.0)):
                logits = local_logits(
                    features_of(model, inputs, classes=context.task.kind.answers_classes), weight, bias
                )
                # summed over queries: each pair has Adam steps of its own
                own = functional.binary_cross_entropy_with_logits(
                    logits, torch.full_like(logits, target), reduction="sum"
                )
                loss = share * own + loss.to(own.device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                position.clamp_(0.0, 1.0)
        self.weight, self.bias = (tensor.detach().cpu().double() for tensor in (weight, bias))
        return clamp(lower + position.detach() * scale, lower, context.upper)

    def _score(self, responses: FloatArray) -> float:
        features = torch.from_numpy(as_features(responses, classes=self._reads_classes))
        return float(local_logits(features, self.weight, self.bias).sigmoid().mean())


def local_logits(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the logits (N,) of one linear verifier per query: features and weight (N, K), bias (N,)."""
    return (features * weight).sum(dim=1) + bias


def _relative(inputs: Tensor, lower: Tensor, scale: Tensor) -> Tensor:
    """Return inputs in units of each feature's range; 0 where it has none."""
    return torch.where(scale > 0, (inputs - lower) / torch.where(scale > 0, scale, torch.ones_like(scale)), 0.0)


class FixedQueryVerifier(Baseline):
    """MetaV's verifier on natural queries that are never optimised; the score is its sigmoid, in [0, 1].

    steps: full-batch updates.
    options: of the updates; `hidden`, `view` and `step_settings` are used. None: the defaults.

    The difference between MetaV and this scheme is what the joint optimisation adds. The verifier is an `mlp` of the
    core on responses under the task's view, trained on the owner's and all surrogates' with the settings of
    `OptimizationOptions`.

    Raises InputError for fewer than 1 step.

    Source: without the optimisation of queries, Pan et al., KDD 2022.
    """

    name = "fixed-query meta-verifier"
    differs_in_queries_alone: ClassVar[bool] = True
    least_positives = 1
    least_negatives = 1

    verifier: _core.Verifier

    def __init__(self, *, steps: int = 400, options: OptimizationOptions | None = None) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        self.steps, self.options = steps, options or OptimizationOptions()

    def _fit(self, context: FitContext) -> Tensor:
        queries = context.natural(context.queries)
        entries = context.surrogates(snapshots=True)
        responses = answers_of([context.owner, *(entry.model for entry in entries)], queries)
        self.verifier = _core.Verifier(
            "mlp",
            *responses.shape[1:],
            view=self.options.view or context.task.view,
            hidden=self.options.hidden,
            seed=derive_seed(context.seed, "verifier"),
        )
        self.verifier.standardize(responses)
        roles = roles_of(entries)
        for _ in range(self.steps):
            self.verifier.step(responses, roles, **self.options.step_settings())
        return queries

    def _score(self, responses: FloatArray) -> float:
        return logistic(float(self.verifier.logits(responses[None])[0]))


class MatchedFilter(Baseline):
    """A matched filter on natural queries, from independent models alone; a monotone map of its cosine, in [0, 1].

    shrinkage: of the covariance's diagonal (csrc/metav.h), in (0, 1].
    floor: of the covariance's diagonal, >= 0.
    view: how answers are read; None for the task's own.

    The owner's deviation from the mean independent model, whitened by their covariance (shrunk diagonal plus low rank),
    is compared with the suspect's, as in adaptive detection of a known signal. It is the kind `matched` of the core in
    closed form, on responses under the task's view, and needs no derived models. The owner itself has the highest score
    that there is.

    Raises InputError for numbers outside these ranges.

    Source: Scharf and McWhorter, "Adaptive matched subspace detectors", 1996.
    """

    name = "matched filter"
    least_negatives = 2

    verifier: _core.Verifier

    def __init__(self, *, shrinkage: float = 0.2, floor: float = 1e-2, view: str | None = None) -> None:
        if not 0 < shrinkage <= 1 or floor < 0:
            raise InputError(f"shrinkage must lie in (0, 1] and floor be at least 0, got {shrinkage} and {floor}")
        self.shrinkage, self.floor, self.view = shrinkage, floor, view

    def _fit(self, context: FitContext) -> Tensor:
        queries = context.natural(context.queries)
        independent = models_of(context.surrogates(snapshots=True), False)
        responses = answers_of([context.owner, *independent], queries)
        self.verifier = _core.Verifier("matched", *responses.shape[1:], view=self.view or context.task.view)
        self.verifier.standardize(responses)
        self.verifier.fit_closed_form(responses[0], responses[1:], shrinkage=self.shrinkage, floor=self.floor)
        return queries

    def _score(self, responses: FloatArray) -> float:
        return logistic(float(self.verifier.logits(responses[None])[0]))
