"""Building a zoo: plan it, train the models that the cache lacks, and put all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from torch import nn

from metav.errors import ModelError, ZooError
from metav.models.adapters import adapted_architecture
from metav.models.architectures import Architecture, OwnerArchitecture
from metav.models.running import copied
from metav.obfuscations.registry import unfit_families
from metav.support.arguments import seed_number
from metav.support.arithmetic import fixed_arithmetic, single_threaded_libraries
from metav.support.files import PathLike
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import PLAIN, ModelInterface
from metav.support.processor import job_count
from metav.support.progress import progress_bar, skip
from metav.support.randomness import isolated_rng
from metav.support.signatures import show_options
from metav.support.torch_state import in_standard_torch_state
from metav.support.user_warnings import warn_user
from metav.tasks.base import Task
from metav.tasks.model_checks import check_trainable
from metav.tasks.user_tasks import as_task
from metav.zoo.architectures import check_architectures, listed, plain_architectures
from metav.zoo.arguments import check_autocast, checked_sources, planned_zoo
from metav.zoo.cache import TrainedModel, ZooCache, unpack
from metav.zoo.classical_suspects import classical_suspect
from metav.zoo.free_negatives import free_negatives as make_free_negatives
from metav.zoo.identities import identities_of
from metav.zoo.plan import (
    CLASSICAL,
    GIVEN,
    HOMOLOGOUS,
    KINDRED,
    PlannedModel,
    assigned_shares,
    wanted_shares,
)
from metav.zoo.stages import train_in_stages
from metav.zoo.standing import OwnerStanding
from metav.zoo.told_recipes import DistinctCopies, Recipe, check_given, check_recipe
from metav.zoo.training import ZooContext
from metav.zoo.workers import train_missing
from metav.zoo.zoo import Zoo, ZooModel

POSITIVES = NEGATIVES = 48
"""Training runs of derived and of independent models in a zoo, where nobody says otherwise."""
SNAPSHOTS = 2
"""Copies that are kept of each run that is optimised on, beside the finished model, where nobody says otherwise."""
FOREIGN_ARCHITECTURE = -1
"""Stands for an architecture that is none of those that the zoo was built with."""


class ZooOptions(TypedDict, total=False):
    """Options of whatever builds a zoo, but for the recipe; see `BuildOptions`."""

    architectures: Sequence[Architecture] | Architecture | None
    seed: int
    cache: PathLike | None
    jobs: int | None
    thief_task: Task | None
    other_task: Task | None
    families: Sequence[str] | str | None
    independent: Sequence[nn.Module]
    autocast: str | None
    output: OutputChoice | None
    input: str | None
    constants: Mapping[str, Any] | None
    progress: bool | None


class BuildOptions(ZooOptions, total=False):
    """Options that `build_zoo` and `build_suspects` share.

    architectures: callables that return fresh models, besides the owner's own class, or a single one; None: two plain
        fully connected networks.
    seed: of every random choice.
    cache: a folder that keeps trained models, so that an interrupted build can be continued; None keeps nothing. A
        model is reused only while all that it was made from is the same: data, attributes, code and what that refers
        to. What has no content to go by, such as a lock or an open file, is not reused, and a warning says so.
    jobs: processes that train; -1 is one per core that this process may use (affinity and control group). None is the
        same where that saves more time than starting the processes takes, and one where the owner's model is on a GPU;
        the environment variable METAV_JOBS says another number for it.
    thief_task: the data that a thief trains on; None: the task's.
    other_task: data of another source for independent models; None: changed parts of the task's.
    families: names of the obfuscations to use, or a single one; None: all that suit the task and the owner's model. A
        warning names those that do not fit the model, each with the reason.
    recipe: a callable from a seed to a fresh model of the owner's class, trained as the owner's model was; its models
        are at least half of the independent ones, the hard ones. None: recipes are drawn at random. It is worth giving
        wherever the owner was not trained by `task.train`.
    independent: trained models that the user has and that do not derive from the owner's, on top of `negatives`.
    autocast: "bfloat16" computes the passes of models that metav's own loop trains in bfloat16 (`torch.autocast`),
        which is faster on a GPU; weights, losses and metrics stay in full precision. None, the default, for full
        precision in all. Models of the recipe are trained as it trains them.
    output, input, constants: how models are called and which part of their answers counts, where that is
        not one tensor to one that fits the task (see `metav.adapt_model`); of models that the recipe returns as well,
        and as far as they have such inputs and parts, of architectures and independent models.
    progress: None shows a bar on a terminal, False never, True always.
    """

    recipe: Recipe | None


def build_zoo(
    owner: nn.Module,
    task: Task,
    *,
    positives: int = POSITIVES,
    negatives: int = NEGATIVES,
    snapshots: int = SNAPSHOTS,
    shares: Mapping[str, tuple[float, float, float]] | None = None,
    free_negatives: bool = True,
    **options: Unpack[BuildOptions],
) -> Zoo:
    """Train the surrogate models of an owner's model; the result does not depend on `jobs` or on what was cached.

    positives, negatives: numbers of training runs of derived and of independent models.
    snapshots: copies that are kept of each run of the share "optimize", at most, at 35-85 % of its training and beside
        the finished model; none for a task whose `train` has no `on_epoch`.
    shares: per "positive" and "negative" three fractions, of "optimize", "select" and "calibrate", that add up to 1.
    free_negatives: whether negatives that cost no training (`metav.zoo.free_negatives`) are added, as `Zoo.free`.
    options: see `BuildOptions`.

    Since nobody knows a thief's data, a part of the positives, and of the negatives that are not homologous (of the
    owner's architecture and data), trains on changed data (`metav.tasks.data_variations`). From 96 negatives on, a
    fifth of the homologous ones goes through an obfuscation, so that the traces of obfuscations are not taken for a
    proof of origin. Each independent model is trained by a recipe (optimiser, rate, length, ...): by the owner's where
    `recipe` tells it, else by one drawn at random from a range that is stretched towards the owner where it stands out
    (`Zoo.standing`). So are half of the derived models that need training. A positive that has become useless (its
    metric is less than halfway between that of a constant answer and the owner's) is made again with half the strength.

    The owner's model and the global random state are untouched.

    Raises ZooError, ModelError, InputError or CacheError where a zoo cannot be built from these arguments.
    """
    sizes = (positives, negatives, snapshots)
    return _build(owner, task, sizes=sizes, shares=shares, free=free_negatives, suspects=False, **options)


def build_suspects(
    owner: nn.Module,
    task: Task,
    *,
    positives: int = 36,
    negatives: int = 36,
    snapshots: int = 0,
    **options: Unpack[BuildOptions],
) -> Zoo:
    """Train test suspects: as `build_zoo`, but with seeds, strengths, recipes and architectures that no zoo has.

    positives, negatives, snapshots, options: as for `build_zoo`. Seeds differ from those of every zoo even where `seed`
        is the same.

    Half of the independent ones are of the owner's class, with recipes from another range than those of a zoo, or by
    the recipe that is told. The others train in the task's own way, have other architectures or other data, or are
    scikit-learn's, where it is installed and inputs are vectors or small images.

    Raises what `build_zoo` does.
    """
    sizes = (positives, negatives, snapshots)
    return _build(owner, task, sizes=sizes, shares=None, free=False, suspects=True, **options)


@in_standard_torch_state
def _build(
    owner: nn.Module,
    task: Task,
    *,
    sizes: tuple[int, int, int],
    shares: Mapping[str, tuple[float, float, float]] | None,
    free: bool,
    suspects: bool,
    architectures: Sequence[Architecture] | Architecture | None = None,
    seed: int = 0,
    cache: PathLike | None = None,
    jobs: int | None = None,
    thief_task: Task | None = None,
    other_task: Task | None = None,
    families: Sequence[str] | str | None = None,
    recipe: Recipe | None = None,
    independent: Sequence[nn.Module] = (),
    autocast: str | None = None,
    output: OutputChoice | None = None,
    input: str | None = None,
    constants: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Zoo:
    jobs = None if jobs is None else job_count(jobs)
    prepared = prepare_zoo(
        owner,
        task,
        sizes=sizes,
        shares=shares,
        suspects=suspects,
        is_cached=cache is not None,
        architectures=architectures,
        seed=seed,
        jobs=jobs,
        thief_task=thief_task,
        other_task=other_task,
        families=families,
        recipe=recipe,
        independent=independent,
        autocast=autocast,
        interface=ModelInterface(output=output, input=input, constants=constants or {}),
    )
    store = None if cache is None else ZooCache(cache)
    task, context = prepared.context.task, prepared.context
    models, standing = _trained(prepared.plan, context, store, jobs, progress, suspects)
    models += _given(prepared.given, "suspects" if suspects else "zoo", shares)
    _warn_of_weak(models, context)
    return Zoo(
        models=tuple(models),
        owner_digest=context.digests["owner"],
        task_digest=task.digest(),
        seed=prepared.seed,
        metric_name=task.metric_name,
        owner_metric=prepared.owner_metric,
        free=make_free_negatives(task, models, context.architectures, seed=prepared.seed) if free else (),
        standing=standing,
        interface=prepared.interface,
    )


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


def _trained(
    plan: Sequence[PlannedModel],
    context: ZooContext,
    store: ZooCache | None,
    jobs: int | None,
    progress: bool | None,
    suspects: bool,
) -> tuple[list[ZooModel], OwnerStanding | None]:
    """Return all planned models, and where the owner stands; those of another library are fitted, not trained."""
    fitted = [planned for planned in plan if planned.family == CLASSICAL]
    plan = [planned for planned in plan if planned.family != CLASSICAL]
    distinct = DistinctCopies()
    with progress_bar(total=len(plan), description="zoo", enabled=progress) as bar:

        def train(stage: Sequence[PlannedModel]) -> Mapping[str, TrainedModel]:
            return _train_stage(stage, context, store, jobs, bar, distinct=distinct)

        result = train_in_stages(plan, context, train, suspects=suspects)
    models = [entry for planned in result.plan for entry in zoo_models(planned, result.trained[planned.run], context)]
    return [*models, *(_fitted(planned, context) for planned in fitted)], result.standing


for _function in (build_zoo, build_suspects):
    show_options(_function, _build)


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
    check_architectures(others, task, interface)
    others = [
        adapted_architecture(entry, lambda model: task.adapted(model, interface.suiting(model.forward)))
        for entry in others
    ]
    own = OwnerArchitecture(clone)
    thief_task, other_task = checked_sources(task, tasks)
    check_autocast(autocast, clone, (task, thief_task, other_task))
    baseline, metric = task.baseline, float(task.metric(clone))
    better = baseline is not None and (metric > baseline if task.higher_is_better else metric < baseline)
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
        architectures=(own, *others),
        least_useful=baseline + 0.5 * (metric - baseline) if baseline is not None and better else None,
        digests=identities.digests,
        unidentified=identities.unidentified,
        recipe=recipe,
        autocast=autocast,
    )


def train_all(
    plan: Sequence[Any],
    context: Any,
    store: ZooCache | None,
    jobs: int | None,
    progress: bool | None,
    train: Callable[[Any, Any], bytes] | None = None,
) -> dict[str, TrainedModel]:
    """Return the trained models by run: from the cache where they are, else trained, in this or other processes.

    plan, context, train: see `train_missing`.
    store: the cache; None for none.

    Raises ZooError where a model vanishes from the cache meanwhile.
    """
    with progress_bar(total=len(plan), description="zoo", enabled=progress) as bar:
        return _train_stage(plan, context, store, jobs, bar, train=train)


def _train_stage(
    plan: Sequence[Any],
    context: Any,
    store: ZooCache | None,
    jobs: int | None,
    bar: Any,
    *,
    train: Callable[[Any, Any], bytes] | None = None,
    distinct: DistinctCopies | None = None,
) -> dict[str, TrainedModel]:
    """Do what `train_all` does for a part of a zoo, with one progress bar for all parts.

    distinct: is shown the models of the told recipe as soon as each is there; None for none.
    """
    trained: dict[str, TrainedModel] = {}

    def keep(planned: Any, found: TrainedModel) -> None:
        trained[planned.run] = found
        if distinct is not None and planned.family == KINDRED:
            distinct(planned.seed, found.states[-1])

    for planned in plan:
        found = store.load(context.key(planned)) if store is not None and context.is_cached(planned) else None
        if found is not None:
            keep(planned, found)
    missing = {planned.run: planned for planned in plan if planned.run not in trained}
    skip(bar, len(trained))
    for run, content in train_missing(missing, context, store, jobs, train):
        key = context.key(missing[run])
        found = unpack(content, key) if content is not None else store.load(key) if store is not None else None
        if found is None:
            raise ZooError(f"the model {run} vanished from the cache while the zoo was built; build it again")
        keep(missing[run], found)
        bar.set_postfix_str(missing[run].family, refresh=False)
        bar.update()
    return trained


def zoo_models(planned: PlannedModel, trained: TrainedModel, context: ZooContext) -> Iterator[ZooModel]:
    """Yield the models of one training run, its snapshots first."""
    for state, fraction, metric in zip(trained.states, trained.fractions, trained.metrics, strict=True):
        yield ZooModel(
            model=context.model(planned, state),
            is_positive=planned.is_positive,
            family=planned.family,
            strength=trained.strength,
            seed=planned.seed,
            run=planned.run,
            fraction=fraction,
            share=planned.share,
            architecture=planned.architecture,
            metric=metric,
            attack=None if planned.attack is None else planned.attack[0],
        )


def _fitted(planned: PlannedModel, context: ZooContext) -> ZooModel:
    """Return a planned suspect of another library; it is fitted here, in moments, and not cached."""
    number = int(planned.run.rpartition("/")[2])
    with isolated_rng(planned.seed), fixed_arithmetic(), single_threaded_libraries():
        model = classical_suspect(context.task, number, planned.seed)
        metric = float(context.task.metric(model))
    return _independent_model(planned, model, metric)


def _given(
    given: Sequence[tuple[nn.Module, float]], purpose: str, shares: Mapping[str, tuple[float, float, float]] | None
) -> list[ZooModel]:
    """Return the models that the user has as independent ones, spread over the shares of a zoo."""
    drafts = [
        PlannedModel(
            is_positive=False,
            family=GIVEN,
            strength=None,
            seed=index,
            run=f"{purpose}/{GIVEN}/{index}",
            share="test",
            architecture=FOREIGN_ARCHITECTURE,
            snapshots=(),
        )
        for index in range(len(given))
    ]
    if purpose == "zoo":
        names = assigned_shares(drafts, wanted_shares(shares, is_positive=False))
        drafts = [replace(draft, share=name) for draft, name in zip(drafts, names, strict=True)]
    return [_independent_model(draft, *entry) for draft, entry in zip(drafts, given, strict=True)]


def _independent_model(planned: PlannedModel, model: nn.Module, metric: float) -> ZooModel:
    return ZooModel(
        model=model.eval(),
        is_positive=False,
        family=planned.family,
        strength=None,
        seed=planned.seed,
        run=planned.run,
        fraction=1.0,
        share=planned.share,
        architecture=FOREIGN_ARCHITECTURE,
        metric=metric,
    )


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


def _warn_of_weak(models: Sequence[ZooModel], context: ZooContext) -> None:
    """Warn when homologous models learned little: then the zoo says nothing about real competitors."""
    every = [entry for entry in models if entry.family == HOMOLOGOUS and entry.fraction == 1.0]
    full = [entry for entry in every if entry.attack is None] or every
    weak = [entry for entry in full if not context.is_useful(entry.metric)]
    if 2 * len(weak) > len(full):
        remedy = "or a recipe=, so that they are trained as the owner was"
        if context.recipe is not None:
            remedy = "so that there are others beside those of the recipe= that are as good"
        warn_user(
            f"{len(weak)} of {len(full)} independent models of the owner's own class are much worse than the owner "
            f"({context.task.metric_name} {weak[0].metric:.4g}); give the task more epochs or another learning_rate, "
            f"{remedy}"
        )
