"""What comes before a zoo is trained: arguments are checked, models planned, and what makes it weak is warned of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from metav.errors import ModelError
from metav.models.adapters import adapted_architecture
from metav.models.architectures import Architecture, OwnerArchitecture
from metav.models.running import copied
from metav.obfuscations.registry import unfit_families
from metav.support.arguments import seed_number
from metav.support.arithmetic import fixed_arithmetic
from metav.support.model_interface import PLAIN, ModelInterface
from metav.support.processor import job_count
from metav.support.randomness import isolated_rng
from metav.support.user_warnings import warn_user
from metav.tasks.base import Task
from metav.tasks.model_checks import check_trainable
from metav.tasks.user_tasks import as_task
from metav.zoo.architectures import check_architectures, listed, plain_architectures
from metav.zoo.arguments import check_autocast, checked_sources, planned_zoo
from metav.zoo.identities import identities_of
from metav.zoo.plan import PlannedModel
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

    Warns of what makes it weak.

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
    plan = planned_zoo(
        task,
        sizes,
        architectures=len(context.architectures),
        seed=seed,
        families=families,
        shares=shares,
        suspects=suspects,
        is_told=recipe is not None,
        unfit=unfit,
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
    thief_task, other_task = checked_sources(task, tasks)
    check_autocast(autocast, clone, (task, thief_task, other_task))
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
    warn_user(
        f"the owner's model has {task.metric_name} {metric:.4g} on these data, no better than a constant answer "
        f"({task.baseline:.4g}); check that inputs are scaled as in its training (here {lower:.4g} to {upper:.4g})"
        f"{order}"
    )


def _warn_of_unfit(unfit: Mapping[str, str]) -> None:
    """Warn, before anything is trained, of the families that are left out."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in unfit.items():
        by_reason.setdefault(reason, []).append(name)
    if by_reason:
        named = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        warn_user(f"left out, as they do not fit the owner's model: {named}")
