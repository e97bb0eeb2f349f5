"""The zoos of one owner: with the recipe told, without it, or all trained in the task's own way.

The last is how zoos were made before recipes: every derived model carries the owner's recipe, no independent one does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from metav.experiments.scenarios.scenario import Scenario
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import isolated_rng
from metav.zoo.building import build_zoo
from metav.zoo.cache import ZooCache
from metav.zoo.free_negatives import free_negatives
from metav.zoo.plan import plan_zoo
from metav.zoo.preparation import zoo_context
from metav.zoo.trained_models import train_all, zoo_models
from metav.zoo.zoo import Zoo

TOLD, UNTOLD, TASKS_OWN = "told", "untold", "task's own"
RECIPES = (TOLD, UNTOLD, TASKS_OWN)
"""What metav is told of how the owner trained: its recipe; nothing; or nothing, and no recipes are drawn either."""


def build_variant(
    recipe: str, scenario: Scenario, owner: nn.Module, *, device: str, sizes: tuple[int, int], options: dict[str, Any]
) -> Zoo:
    """Return the zoo of an owner.

    recipe: one of RECIPES.
    sizes: training runs of each class, and snapshots.
    options: seed, cache, jobs and progress, as `build_zoo` takes them.
    """
    count, snapshots = sizes
    if recipe == TASKS_OWN:
        return _without_recipes(scenario, owner, count, snapshots, **options)
    told: dict[str, Any] = {"recipe": replace(scenario.recipe, device=device)} if recipe == TOLD else {}
    return build_zoo(
        owner,
        scenario.task,
        positives=count,
        negatives=count,
        snapshots=snapshots,
        architectures=scenario.zoo_architectures,
        **told,
        **options,
    )


def _without_recipes(
    scenario: Scenario,
    owner: nn.Module,
    count: int,
    snapshots: int,
    *,
    seed: int,
    cache: Any,
    jobs: int,
    progress: bool | None,
) -> Zoo:
    """Return a zoo whose models all train by `task.train` as it stands."""
    task = scenario.task
    with isolated_rng(0), fixed_arithmetic():
        context = zoo_context(owner, task, (None, None), scenario.zoo_architectures, False, is_cached=True)
        metric = float(task.metric(context.owner))
    plan = plan_zoo(
        task,
        positives=count,
        negatives=count,
        architectures=len(context.architectures),
        seed=seed,
        snapshots=snapshots,
        families=None,
        shares=None,
        suspects=False,
    )
    trained = train_all(plan, context, ZooCache(cache), jobs, progress)
    models = [entry for planned in plan for entry in zoo_models(planned, trained[planned.run], context)]
    return Zoo(
        models=tuple(models),
        owner_digest=context.digests["owner"],
        task_digest=task.digest(),
        seed=seed,
        metric_name=task.metric_name,
        owner_metric=metric,
        free=free_negatives(task, models, context.architectures, seed=seed),
    )
