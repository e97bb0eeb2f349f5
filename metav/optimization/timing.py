"""How long the joint optimisation and the final verifiers take at most, from a few passes measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from metav import _core
from metav.models.ensembles import run_model
from metav.optimization.informative_queries import CANDIDATES, CANDIDATES_EACH
from metav.optimization.members import CHECK_EVERY, fit_member
from metav.optimization.options import OptimizationOptions
from metav.optimization.settings import OptimizationSettings, settings_for
from metav.support.arrays import FloatArray
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.verifiers.kinds import VERIFIER_KINDS
from metav.zoo.plan import DEFAULT_SHARES, PlannedModel
from metav.zoo.zoo import Zoo

FINAL_MEMBERS = 3
"""Members of the learned kinds that are chosen, at most: one for each part of the queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """How many models, snapshots included, a zoo has.

    optimize, others: of the share "optimize", and of all others.
    select: of the share "select".
    smaller_class: training runs of derived or of independent models, whichever are fewer.
    """

    optimize: int
    select: int
    others: int
    smaller_class: int

    @classmethod
    def of_plan(cls, plan: Sequence[PlannedModel]) -> ModelCounts:
        """Return the numbers of a planned zoo."""
        shares = [planned.share for planned in plan for _ in range(1 + len(planned.snapshots))]
        positives = sum(planned.is_positive for planned in plan)
        return cls._of(shares, min(positives, len(plan) - positives))

    @classmethod
    def of_zoo(cls, zoo: Zoo) -> ModelCounts:
        """Return the numbers of a zoo."""
        return cls._of([entry.share for entry in zoo.models], zoo.smaller_class)

    @classmethod
    def of_sizes(cls, positives: int, negatives: int, snapshots: int) -> ModelCounts:
        """Return the numbers of a zoo that is still to be planned, about, at most as many snapshots as there can be."""
        sizes = {"positive": positives, "negative": negatives}
        optimize, select, _ = (
            round(sum(DEFAULT_SHARES[side][place] * size for side, size in sizes.items())) for place in range(3)
        )
        others = positives + negatives - optimize
        optimize = max(1, optimize) * (1 + snapshots)
        return cls(optimize=optimize, select=max(1, select), others=others, smaller_class=min(positives, negatives))

    @classmethod
    def _of(cls, shares: Sequence[str], smaller: int) -> ModelCounts:
        optimize = shares.count("optimize")
        others = len(shares) - optimize
        return cls(optimize=optimize, select=shares.count("select"), others=others, smaller_class=smaller)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationSeconds:
    """Seconds of the parts after the zoo, at most: they stop earlier where nothing improves.

    optimise: of the queries.
    verifiers: of all candidates on the final queries.
    calibrate: of the chosen ones, trained anew without each part of the models.
    """

    optimise: float
    verifiers: float
    calibrate: float

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return self.optimise + self.verifiers + self.calibrate


def measure_optimization(
    owner: nn.Module, task: Task, counts: ModelCounts, *, options: OptimizationOptions, seed: int = 0
) -> OptimizationSeconds:
    """Return how long the parts after the zoo take, from passes of the owner's model and updates of verifiers.

    owner: as a fingerprint asks it, in eval mode; a surrogate is taken to need as long as it does.
    counts: of the surrogates, which need not be there.
    """
    settings = settings_for(options, task, counts.smaller_class)
    query = task.natural_queries(1, seed=seed).to(torch.float32)
    outputs = run_model(owner, query).shape[1]
    each = _member_seconds(counts, options.queries, outputs, settings, seed)
    learned = [seconds for kind, seconds in each.items() if not VERIFIER_KINDS[kind].closed_form]
    return OptimizationSeconds(
        optimise=_joint_seconds(owner, task, counts, query, outputs, settings),
        verifiers=2 * sum(each.values()),  # the two parts of the queries are together as many as all of them
        calibrate=options.repeats * FINAL_MEMBERS * max(learned, default=max(each.values())),
    )


def _joint_seconds(
    owner: nn.Module,
    task: Task,
    counts: ModelCounts,
    query: torch.Tensor,
    outputs: int,
    settings: OptimizationSettings,
) -> float:
    """Return the seconds of finding the queries: what is asked to start with, all steps, all evaluations."""
    options, moved = settings.options, settings.optimized
    tensor = query.repeat(options.queries, *([1] * (query.dim() - 1)))
    with torch.no_grad():
        one_answer = _seconds(lambda: run_model(owner, tensor)) / len(tensor)
    asked = one_answer * options.queries * (counts.optimize + counts.others)
    if not moved:
        return asked
    if settings.starts_informative:
        most = CANDIDATES if task.natural_count is None else min(CANDIDATES, task.natural_count)
        asked += one_answer * 2 * min(most, CANDIDATES_EACH * moved) * (counts.optimize + counts.select)
    sampled = 2 * options.sampled + 1
    one_pass = _seconds(lambda: _pass(owner, tensor[:moved]))
    updates = (options.verifier_updates - 1) * _update_seconds(1 + counts.optimize, moved, outputs, options)
    updates += _update_seconds(sampled, moved, outputs, options)
    step = sampled * one_pass + options.repeats * updates
    evaluation = one_answer * moved * counts.select
    return asked + options.steps * (step + evaluation / options.evaluate_every)


def _pass(owner: nn.Module, queries: torch.Tensor) -> None:
    inputs = queries.clone().requires_grad_(True)
    torch.autograd.grad(run_model(owner, inputs).sum(), inputs)


def _update_seconds(models: int, queries: int, outputs: int, options: OptimizationOptions) -> float:
    """Return the seconds of one update of a verifier of the joint optimisation."""
    responses, roles = _random_answers(models, queries, outputs, 0)
    verifier = _core.Verifier("mlp", queries, outputs, hidden=options.hidden, seed=0)
    verifier.standardize(responses)
    return _seconds(lambda: verifier.step(responses, roles, **options.step_settings()))


def _member_seconds(
    counts: ModelCounts, queries: int, outputs: int, settings: OptimizationSettings, seed: int
) -> dict[str, float]:
    """Return the seconds of one verifier on all queries, by kind, on random answers."""
    responses, roles = _random_answers(1 + counts.optimize, queries, outputs, derive_seed(seed, "timing"))
    free = np.zeros(len(roles), dtype=np.bool_)
    options = settings.options
    few = replace(settings, options=replace(options, refit_steps=min(CHECK_EVERY, options.refit_steps)))
    found = {}
    for kind in VERIFIER_KINDS if options.verifier == "auto" else (options.verifier,):
        work = partial(fit_member, f"{kind}:all", (0, queries), responses, roles, free, few, seed)
        times = 1.0 if VERIFIER_KINDS[kind].closed_form else options.refit_steps / few.options.refit_steps
        found[kind] = _seconds(work) * times
    return found


def _random_answers(models: int, queries: int, outputs: int, seed: int) -> tuple[FloatArray, bytes]:
    """Return answers (models, queries, outputs) and roles: the owner first, then derived and independent in turn."""
    responses = np.random.default_rng(seed).standard_normal((models, queries, outputs)).astype(np.float32)
    turns = (_core.ROLE_NEGATIVE, _core.ROLE_POSITIVE)
    return responses, bytes([_core.ROLE_OWNER, *(turns[number % 2] for number in range(models - 1))])


def _seconds(work: Callable[[], object]) -> float:
    """Return the seconds of the second of two runs: the first one warms up."""
    work()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
