"""The test suspects of an experiment, trained, cached, and each with what it is still good for."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from metav.errors import InputError
from metav.experiments.scenarios.recipes.owner_recipe import OwnerRecipe
from metav.experiments.suspects.honest import all_recipes
from metav.experiments.suspects.plan import (
    AnySuspect,
    PlannedAttack,
    SuspectCounts,
    SuspectPlan,
    counts_of,
    plan_suspects,
)
from metav.experiments.suspects.training import SuspectContext, suspect_context, train_suspect
from metav.models.architectures import Architecture
from metav.support.arguments import seed_number
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import isolated_rng
from metav.tasks.base import Task
from metav.zoo.cache import TrainedModel, ZooCache
from metav.zoo.classical_suspects import classical_suspect
from metav.zoo.preparation import checked_arguments, zoo_context
from metav.zoo.trained_models import train_all

CLASSICAL_KINDS = 4
"""Consecutive models of scikit-learn that are fitted on one party's data: no fewer than its kinds."""
ALLOWED_LOSS = 0.1
"""Share of the owner's usefulness that a suspect may have lost, by default."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownSuspect:
    """One test suspect whose origin is known; iterating gives (model, is_positive, family).

    model: in eval mode and without gradients.
    attacks: what was done to it, in order; empty for independent models.
    run: the name of its training.
    architecture: index among the suspects' architectures; 0 is the owner's own.
    metric: its quality on the test task (the task where there is none).
    lost: the share of the owner's usefulness that it lacks (`usefulness_lost`).
    useful: whether that is at most the collection's `allowed_loss`.
    """

    model: nn.Module
    is_positive: bool
    family: str
    attacks: tuple[str, ...]
    strength: float | None
    seed: int
    run: str
    architecture: int
    metric: float
    lost: float
    useful: bool

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.is_positive, self.family))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SuspectCollection:
    """Test suspects with their labels, derived ones first; `metav.evaluate` takes it, or any part of it."""

    suspects: tuple[KnownSuspect, ...]
    owner_digest: str
    task_digest: str
    seed: int
    metric_name: str
    owner_metric: float
    allowed_loss: float

    def __iter__(self) -> Iterator[KnownSuspect]:
        return iter(self.suspects)

    def __len__(self) -> int:
        return len(self.suspects)

    @property
    def positives(self) -> tuple[KnownSuspect, ...]:
        """Return the suspects derived from the owner's model, useful or not."""
        return tuple(entry for entry in self.suspects if entry.is_positive)

    @property
    def negatives(self) -> tuple[KnownSuspect, ...]:
        """Return the independent suspects, attacked ones included."""
        return tuple(entry for entry in self.suspects if not entry.is_positive)

    @property
    def shipped(self) -> tuple[KnownSuspect, ...]:
        """Return what a fingerprint is judged on: what a thief would ship, and all independent suspects."""
        return tuple(entry for entry in self.suspects if entry.useful or not entry.is_positive)

    @property
    def apart(self) -> tuple[KnownSuspect, ...]:
        """Return derived suspects that lost more than `allowed_loss` of the owner's usefulness: reported apart."""
        return tuple(entry for entry in self.suspects if entry.is_positive and not entry.useful)

    def summary(self) -> dict[str, Any]:
        """Return counts per family with the range of metrics and losses; fit for JSON."""
        families: dict[str, list[KnownSuspect]] = {}
        for entry in self.suspects:
            families.setdefault(entry.family, []).append(entry)
        return {
            "positives": len(self.positives),
            "negatives": len(self.negatives),
            "apart": [entry.run for entry in self.apart],
            "metric_name": self.metric_name,
            "owner_metric": self.owner_metric,
            "allowed_loss": self.allowed_loss,
            "owner": self.owner_digest,
            "task": self.task_digest,
            "seed": self.seed,
            "families": {name: _family_summary(entries) for name, entries in families.items()},
        }

    def __repr__(self) -> str:
        return (
            f"SuspectCollection({len(self.positives)} derived, {len(self.apart)} of them not useful, + "
            f"{len(self.negatives)} independent)"
        )


@dataclass(frozen=True, slots=True)
class _Usefulness:
    """How usefulness is measured: on which task, whether training has not measured it there already, against what."""

    task: Task
    is_measured_anew: bool
    owner_metric: float
    allowed_loss: float


def usefulness_lost(task: Task, owner_metric: float, metric: float) -> float:
    """Return the share of the owner's usefulness that a model lacks: 0 for an equal one, negative for a better one.

    Accuracy (any metric of which more is better): 1 - metric / owner's. Regression (any error): by what share the error
    is larger. Generation, whose best distance is near zero: the share of the owner's advance over the best constant
    sample that is lost, 1 - (baseline - metric) / (baseline - owner's). NaN metrics count as all lost (infinity).
    """
    if metric != metric:
        return float("inf")
    if task.higher_is_better:
        lost = owner_metric - metric
        return lost / owner_metric if owner_metric > 0.0 else (float("inf") if lost > 0.0 else 0.0)
    advance = owner_metric
    if task.kind.inputs_are_latents and task.baseline is not None:
        advance = task.baseline - owner_metric
    lost = metric - owner_metric
    return lost / advance if advance > 0.0 else (float("inf") if lost > 0.0 else 0.0)


def build_test_suspects(
    owner: nn.Module,
    task: Task,
    *,
    architectures: Sequence[Architecture] | None = None,
    thief_task: Task | None = None,
    other_task: Task | None = None,
    test_task: Task | None = None,
    queries: Tensor | None = None,
    families: Collection[str] | None = None,
    scale: str | SuspectCounts = "paper",
    allowed_loss: float = ALLOWED_LOSS,
    recipes: Sequence[OwnerRecipe] = (),
    seed: int = 0,
    cache: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
) -> SuspectCollection:
    """Train the test suspects of an owner's model; the result does not depend on `jobs` or on what was cached.

    They are all obfuscations and attacks, independent models and attacked independent ones, as many as SUSPECT_COUNTS
    has at `scale`; plain ones are those of `metav.build_suspects`. The owner and the global random state are untouched.

    architectures: callables that return fresh models; None: two plain networks.
    thief_task, other_task: the data of a thief, and of another source for independent models and knockoff nets.
    queries: those of a leaked fingerprint, (n, *input), to be unlearned; None: nobody does.
    families: the only ones wanted; None: all.
    test_task, allowed_loss: where usefulness is measured (None: the validation part), and the share that may be lost.
    recipes: plain loops that honest suspects are trained by, the owner's own first; none: the task's way for all.
    cache: folder of trained models to continue from after a stop, shared with `metav.build_suspects`.

    Raises InputError, ModelError, ZooError and CacheError for unusable arguments, trainings, plans and caches.
    """
    task, seed = checked_arguments(owner, task, jobs), seed_number(seed)
    if not allowed_loss >= 0.0:
        raise InputError(f"allowed_loss must be a number from 0, got {allowed_loss!r}")
    store, measured = None if cache is None else ZooCache(cache), test_task or task
    sources, counts = (task, thief_task, other_task), counts_of(scale)
    context, plan = _planned(owner, sources, architectures, queries, counts, store, recipes, seed)
    plan = plan if families is None else plan.of_families(families)
    trained = _train(plan, context, store, jobs, progress)
    usefulness = _Usefulness(measured, test_task is not None, _metric(measured, context.zoo.owner), allowed_loss)
    suspects = tuple(_suspect(entry, trained.get(entry.run), context, usefulness) for entry in plan.runs)
    return SuspectCollection(
        suspects=suspects,
        owner_digest=context.zoo.digests["owner"],
        task_digest=task.digest(),
        seed=seed,
        metric_name=measured.metric_name,
        owner_metric=usefulness.owner_metric,
        allowed_loss=allowed_loss,
    )


def _planned(
    owner: nn.Module,
    tasks: tuple[Task, Task | None, Task | None],
    architectures: Sequence[Architecture] | None,
    queries: Tensor | None,
    counts: SuspectCounts,
    store: ZooCache | None,
    recipes: Sequence[OwnerRecipe],
    seed: int,
) -> tuple[SuspectContext, SuspectPlan]:
    """Return what the suspects are made from, after checking that it fits together, and which ones there will be."""
    task, thief_task, other_task = (None if part is None else _shortened(part, counts.epochs) for part in tasks)
    with isolated_rng(0), fixed_arithmetic():
        sources, is_cached = (thief_task, other_task), store is not None
        zoo = zoo_context(owner, task or tasks[0], sources, architectures, True, is_cached=is_cached)
        folder = None if store is None else str(store.folder.absolute())
        loops = all_recipes(recipes) if recipes else ()
        context = suspect_context(zoo, queries, folder, seed, loops)
        return context, plan_suspects(
            zoo.owner,
            zoo.task,
            counts,
            architectures=len(zoo.architectures),
            seed=seed,
            leaked=queries is not None,
            recipes=len(loops),
            has_other_data=zoo.other_task is not None,
        )


def _metric(task: Task, model: nn.Module) -> float:
    """Return the task's metric of a model, without a trace on the global random state."""
    with isolated_rng(0), fixed_arithmetic():
        return float(task.metric(model))


def _train(
    plan: SuspectPlan, context: SuspectContext, store: ZooCache | None, jobs: int | None, progress: bool | None
) -> dict[str, TrainedModel]:
    """Return the trained models by run: independents first, so that attacks on them find them in the cache."""
    trained = train_all([*plan.plain, *plan.honest], context, store, jobs, progress, train_suspect)
    return {**trained, **train_all(plan.attacks, context, store, jobs, progress, train_suspect)}


def _suspect(
    planned: AnySuspect, trained: TrainedModel | None, context: SuspectContext, usefulness: _Usefulness
) -> KnownSuspect:
    model = _fitted(planned, context) if trained is None else context.model(planned, trained)
    known = None if trained is None or usefulness.is_measured_anew else trained.metrics[-1]
    metric = _metric(usefulness.task, model) if known is None else known
    lost = usefulness_lost(usefulness.task, usefulness.owner_metric, metric)
    if isinstance(planned, PlannedAttack):
        attacks = planned.attacks
    else:
        attacks = (planned.family,) if planned.is_positive else ()
    return KnownSuspect(
        model=model,
        is_positive=planned.is_positive,
        family=planned.family,
        attacks=attacks,
        strength=None if trained is None else trained.strength,
        seed=planned.seed,
        run=planned.run,
        architecture=planned.architecture,
        metric=metric,
        lost=lost,
        useful=lost <= usefulness.allowed_loss,
    )


def _fitted(planned: AnySuspect, context: SuspectContext) -> nn.Module:
    """Return one of scikit-learn's models, on the owner's data or the thief's in turn: fitted anew in moments."""
    number = int(planned.run.rpartition("/")[2])
    task = (context.zoo.task, context.zoo.thief_task)[number // CLASSICAL_KINDS % 2]
    with isolated_rng(planned.seed), fixed_arithmetic():
        return classical_suspect(task, number, planned.seed).eval()


def _shortened(task: Task, factor: float) -> Task:
    """Return a task that trains for a share of its epochs."""
    return task if factor == 1.0 else task.with_epochs(task.epochs * factor)


def _family_summary(entries: Sequence[KnownSuspect]) -> dict[str, Any]:
    metrics, losses = [entry.metric for entry in entries], [entry.lost for entry in entries]
    return {
        "is_positive": entries[0].is_positive,
        "count": len(entries),
        "useful": sum(entry.useful for entry in entries),
        "metric": [min(metrics), max(metrics)],
        "lost": [min(losses), max(losses)],
    }
