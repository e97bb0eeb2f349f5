"""What comes before a zoo is trained: arguments are checked, models planned, and what makes it weak is warned of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from metav.errors import InputError, ModelError
from metav.models.adapters import adapted_architecture
from metav.models.architectures import Architecture, OwnerArchitecture
from metav.models.running import copied, device_of
from metav.obfuscations.registry import unfit_families
from metav.support.arguments import seed_number
from metav.support.arithmetic import fixed_arithmetic
from metav.support.model_interface import PLAIN, ModelInterface
from metav.support.processor import job_count
from metav.support.randomness import isolated_rng
from metav.tasks.base import Task
from metav.tasks.model_checks import check_trainable
from metav.tasks.user_tasks import as_task
from metav.zoo.architectures import check_architectures, listed, plain_architectures
from metav.zoo.classical_suspects import takes_classical
from metav.zoo.identities import identities_of
from metav.zoo.plan import (
    ANOTHER_ARCHITECTURE_OR_DATA,
    CLASSICAL,
    HOMOLOGOUS,
    KINDRED,
    OTHER_RECIPE,
    PlannedModel,
    plan_zoo,
)
from metav.zoo.told_recipes import Recipe, check_given, check_recipe
from metav.zoo.training import ZooContext


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedZoo:
    """A zoo that is planned and of which nothing is trained yet.

    context: what its models are made from.
    plan: its models, without their recipes.
    given: independent models that the user has, each with its metric.
    owner_metric: of the owner's model.
    seed, interface: as they were given, checked.
    """

    context: ZooContext
    plan: tuple[PlannedModel, ...]
    given: Sequence[tuple[nn.Module, float]]
    owner_metric: float
    seed: int
    interface: ModelInterface


def prepare_zoo(
    owner: nn.Module,
    task: Task,
    *,
    sizes: tuple[int, int, int],
    shares: Mapping[str, tuple[float, float, float]] | None = None,
    suspects: bool = False,
    is_cached: bool = False,
    architectures: Sequence[Architecture] | Architecture | None = None,
    seed: int = 0,
    jobs: int | None = None,
    thief_task: Task | None = None,
    other_task: Task | None = None,
    families: Sequence[str] | str | None = None,
    recipe: Recipe | None = None,
    independent: Sequence[nn.Module] = (),
    autocast: str | None = None,
    interface: ModelInterface = PLAIN,
) -> PreparedZoo:
    """Return a zoo, checked and planned, before anything is trained; the random state comes back as it was.

    Warns of what makes it weak, on behalf of who called the function that called this one through one more.

    sizes: numbers of derived and of independent training runs, and of snapshots of each.
    is_cached: whether there will be a cache.

    For the other arguments, and what is raised, see `build_zoo`.
    """
    task, seed = checked_arguments(owner, task, jobs), seed_number(seed)
    if recipe is not None:
        check_recipe(recipe, jobs)
    with isolated_rng(0), fixed_arithmetic():
        context = zoo_context(
            owner,
            task,
            (thief_task, other_task),
            architectures,
            suspects,
            recipe=recipe,
            autocast=autocast,
            is_cached=is_cached,
            interface=interface,
        )
        owner_metric = float(task.metric(context.owner))
        given = check_given(independent, context.owner, task, context.least_useful, interface)
        unfit = unfit_families(context.owner, task)
    _warn_of_useless(context, owner_metric)
    plan = plan_zoo(
        task,
        positives=sizes[0],
        negatives=sizes[1],
        snapshots=sizes[2],
        architectures=len(context.architectures),
        seed=seed,
        families=[families] if isinstance(families, str) else families,
        shares=shares,
        suspects=suspects,
        unfit=unfit,
        **_independent_families(task, recipe is not None, suspects),
    )
    _warn_of_unfit(unfit if families is None else {})
    return PreparedZoo(
        context=context,
        plan=plan,
        given=given,
        owner_metric=owner_metric,
        seed=seed,
        interface=interface,
    )


def _independent_families(task: Task, told: bool, suspects: bool) -> dict[str, tuple[str, ...]]:
    """Return the families of the independent models, as `plan_zoo` takes them."""
    if not suspects:
        first = (HOMOLOGOUS,) if told else ()
        leading: tuple[str, ...] = (KINDRED,) if told else (HOMOLOGOUS,)
        return {"leading": leading, "others": (*first, *ANOTHER_ARCHITECTURE_OR_DATA)}
    classical = (CLASSICAL,) if takes_classical(task) else ()
    leading = (KINDRED, OTHER_RECIPE) if told else (OTHER_RECIPE,)
    return {"leading": leading, "others": (HOMOLOGOUS, *ANOTHER_ARCHITECTURE_OR_DATA, *classical)}


def checked_arguments(owner: nn.Module, task: Task, jobs: int | None) -> Task:
    """Return the task as a `Task`, after a check of all arguments.

    Raises ModelError or InputError for arguments from which no zoo can be built.
    """
    if not isinstance(owner, nn.Module):
        raise ModelError(f"owner must be a torch.nn.Module, got {type(owner).__name__}; pass the trained model itself")
    job_count(jobs)
    return as_task(task)


def zoo_context(
    owner: nn.Module,
    task: Task,
    tasks: tuple[Task | None, Task | None],
    architectures: Sequence[Architecture] | Architecture | None,
    suspects: bool,
    *,
    recipe: Recipe | None = None,
    autocast: str | None = None,
    is_cached: bool = False,
    interface: ModelInterface = PLAIN,
) -> ZooContext:
    """Return what the models are made from, after checking that owner and architectures fit the task.

    tasks: the thief's task and the task of another source; None for the owner's and for none.
    suspects: whether the default architectures are those of suspects.
    recipe: how the owner's model was trained; None where it is not told.
    autocast: see `BuildOptions`.
    is_cached: whether there is a cache.
    interface: how the owner's model is called, and what of its answer counts.

    Warns where a cache cannot be used.

    Raises ModelError or InputError where something does not fit.
    """
    clone = task.adapted(copied(owner), interface)
    task.check_model(clone)
    check_trainable(clone, task)
    others = plain_architectures(clone, task, unusual=suspects) if architectures is None else listed(architectures)
    others = _adapted(others, task, interface)
    thief_task, other_task = map(_of_another, tasks, ("thief_task", "other_task"), (task, task))
    if autocast is not None:
        _check_autocast(autocast, clone, [given for given in (task, thief_task, other_task) if given is not None])
    least_useful = _least_useful(clone, task)
    identities = identities_of(
        clone,
        {"task": task, "thief": thief_task or task, "other": other_task},
        others,
        recipe,
        is_cached=is_cached,
    )
    identities.warn()
    return ZooContext(
        owner=clone,
        task=task,
        thief_task=thief_task or task,
        other_task=other_task,
        architectures=(OwnerArchitecture(clone), *others),
        least_useful=least_useful,
        digests=identities.digests,
        unidentified=identities.unidentified,
        recipe=recipe,
        autocast=autocast,
    )


def _adapted(architectures: Sequence[Architecture], task: Task, interface: ModelInterface) -> list[Architecture]:
    """Return architectures whose models answer as the task expects, after a check of each."""
    check_architectures(architectures, task, interface)
    return [
        adapted_architecture(entry, lambda model: task.adapted(model, interface.suiting(model.forward)))
        for entry in architectures
    ]


def _of_another(given: Task | None, name: str, task: Task) -> Task | None:
    """Return the task of a thief or of another source, after a check that it is one for the same models."""
    if given is None:
        return None
    other = as_task(given, name=name)
    if tuple(other.input_shape) != tuple(task.input_shape):
        raise InputError(f"{name} has inputs of shape {other.input_shape}, expected the task's {task.input_shape}")
    if other.outputs != task.outputs:
        raise InputError(f"{name} has {other.outputs} outputs, expected {task.outputs} like the task")
    return other


def _check_autocast(autocast: str, owner: nn.Module, tasks: Sequence[Task]) -> None:
    """Raise InputError where models of these tasks cannot be trained in a precision on the owner's device."""
    for task in tasks:
        task.with_autocast(autocast)
    if device_of(owner).type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"this GPU computes no {autocast}; leave autocast out, for full precision")


def _least_useful(owner: nn.Module, task: Task) -> float | None:
    """Return the metric halfway between a constant answer's and the owner's; None where the owner's is no better."""
    baseline, metric = task.baseline, float(task.metric(owner))
    if baseline is None or not (metric > baseline if task.higher_is_better else metric < baseline):
        return None
    return baseline + 0.5 * (metric - baseline)


def _warn_of_useless(context: ZooContext, metric: float) -> None:
    """Warn, before anything is trained, of an owner's model that does not do the task on these data."""
    task = context.task
    if context.least_useful is not None or task.baseline is None:
        return
    lower, upper = float(task.lower.min()), float(task.upper.max())
    names = ", ".join(task.class_names[:5])
    order = f", and classes in the order of its outputs ({names})" if names else ""
    warnings.warn(
        f"the owner's model has {task.metric_name} {metric:.4g} on these data, no better than a constant answer "
        f"({task.baseline:.4g}); check that inputs are scaled as in its training (here {lower:.4g} to {upper:.4g})"
        f"{order}",
        stacklevel=6,
    )


def _warn_of_unfit(unfit: Mapping[str, str]) -> None:
    """Warn, before anything is trained, of the families that are left out."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in unfit.items():
        by_reason.setdefault(reason, []).append(name)
    if by_reason:
        named = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        warnings.warn(f"left out, as they do not fit the owner's model: {named}", stacklevel=6)
