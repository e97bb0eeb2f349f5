"""What a zoo is built from, checked and planned as far as that can be done before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from metav.errors import InputError
from metav.models.running import copied, device_of
from metav.obfuscations.registry import unfit_families
from metav.support.arguments import seed_number
from metav.support.arithmetic import fixed_arithmetic
from metav.support.model_interface import ModelInterface
from metav.support.processor import job_count
from metav.support.randomness import isolated_rng
from metav.tasks.base import Task
from metav.tasks.model_checks import check_trainable
from metav.tasks.user_tasks import as_task
from metav.zoo.architectures import check_architectures, listed
from metav.zoo.cache import ZooCache
from metav.zoo.classical_suspects import takes_classical
from metav.zoo.plan import (
    ANOTHER_ARCHITECTURE_OR_DATA,
    CLASSICAL,
    HOMOLOGOUS,
    KINDRED,
    OTHER_RECIPE,
    PlannedModel,
    plan_zoo,
)
from metav.zoo.told_recipes import check_given, check_recipe

PLAIN_ARCHITECTURES = 2
"""How many plain networks stand beside the owner's class where nobody names others."""


def check_zoo_arguments(
    task: Task, sizes: tuple[int, int, int], options: Mapping[str, Any], *, owner: nn.Module | None = None
) -> None:
    """Find what would make `build_zoo` fail; nothing is trained, and the random state comes back as it was.

    sizes: numbers of derived and of independent training runs, and of snapshots of each.
    options: see `metav.zoo.building.BuildOptions`.
    owner: a model of the owner's class, trained or not; None where there is none yet, so that what depends on it cannot
        be looked at.

    Raises what `build_zoo` does.
    """
    seed = seed_number(options.get("seed", 0))
    jobs, recipe, families = options.get("jobs"), options.get("recipe"), options.get("families")
    job_count(jobs)
    if recipe is not None:
        check_recipe(recipe, jobs)
    sources = checked_sources(task, (options.get("thief_task"), options.get("other_task")))
    check_autocast(options.get("autocast"), owner, (task, *sources))
    how = ModelInterface(
        output=options.get("output"), input=options.get("input"), constants=options.get("constants") or {}
    )
    given = options.get("architectures")
    others = None if given is None else listed(given)
    unfit: Mapping[str, str] = {}
    with isolated_rng(0), fixed_arithmetic():
        if others is not None:
            check_architectures(others, task, how)
        if owner is not None:
            clone = task.adapted(copied(owner), how)
            task.check_model(clone)
            check_trainable(clone, task)
            check_given(options.get("independent", ()), clone, task, None, how)
            unfit = unfit_families(clone, task)
    planned_zoo(
        task,
        sizes,
        architectures=1 + (PLAIN_ARCHITECTURES if others is None else len(others)),
        seed=seed,
        families=families,
        is_told=recipe is not None,
        unfit=unfit,
    )
    if options.get("cache") is not None:
        ZooCache(options["cache"])


def planned_zoo(
    task: Task,
    sizes: tuple[int, int, int],
    *,
    architectures: int,
    seed: int,
    families: Sequence[str] | str | None,
    is_told: bool,
    shares: Mapping[str, tuple[float, float, float]] | None = None,
    suspects: bool = False,
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> tuple[PlannedModel, ...]:
    """Return the plan of a zoo, or of suspects.

    sizes: see `check_zoo_arguments`.
    is_told: whether the owner's recipe is told.

    For the other arguments, and what is raised, see `metav.zoo.plan.plan_zoo`.
    """
    return plan_zoo(
        task,
        positives=sizes[0],
        negatives=sizes[1],
        snapshots=sizes[2],
        architectures=architectures,
        seed=seed,
        families=[families] if isinstance(families, str) else families,
        shares=shares,
        suspects=suspects,
        unfit=unfit,
        **_independent_families(task, is_told, suspects),
    )


def checked_sources(task: Task, given: tuple[Task | None, Task | None]) -> tuple[Task | None, Task | None]:
    """Return the thief's task and the task of another source, as tasks; None where they were not given.

    Raises InputError where they do not fit the owner's.
    """
    thief_task, other_task = (
        None if source is None else as_task(source, name=name)
        for name, source in zip(("thief_task", "other_task"), given, strict=True)
    )
    for name, source in (("thief_task", thief_task), ("other_task", other_task)):
        if source is None:
            continue
        if tuple(source.input_shape) != tuple(task.input_shape):
            raise InputError(f"{name} has inputs of shape {source.input_shape}, expected the task's {task.input_shape}")
        if source.outputs != task.outputs:
            raise InputError(f"{name} has {source.outputs} outputs, expected {task.outputs} like the task")
    return thief_task, other_task


def check_autocast(autocast: str | None, owner: nn.Module | None, tasks: Iterable[Task | None]) -> None:
    """Raise InputError where models of these tasks cannot be trained in a precision on the owner's device.

    autocast: see `metav.zoo.building.BuildOptions`.
    owner: None where it is not there yet.
    """
    if autocast is None:
        return
    for task in tasks:
        if task is not None:
            task.with_autocast(autocast)
    if owner is not None and device_of(owner).type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"this GPU computes no {autocast}; leave autocast out, for full precision")


def _independent_families(task: Task, is_told: bool, suspects: bool) -> dict[str, tuple[str, ...]]:
    """Return the families of the independent models, as `plan_zoo` takes them."""
    if not suspects:
        first = (HOMOLOGOUS,) if is_told else ()
        leading: tuple[str, ...] = (KINDRED,) if is_told else (HOMOLOGOUS,)
        return {"leading": leading, "others": (*first, *ANOTHER_ARCHITECTURE_OR_DATA)}
    classical = (CLASSICAL,) if takes_classical(task) else ()
    leading = (KINDRED, OTHER_RECIPE) if is_told else (OTHER_RECIPE,)
    return {"leading": leading, "others": (HOMOLOGOUS, *ANOTHER_ARCHITECTURE_OR_DATA, *classical)}
