"""Building a zoo or suspects: the options, the two calls, and putting together what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from torch import nn

from metav.models.architectures import Architecture
from metav.support.files import PathLike
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface
from metav.support.processor import job_count
from metav.support.signatures import show_options
from metav.support.torch_state import in_standard_torch_state
from metav.support.user_warnings import warn_user
from metav.tasks.base import Task
from metav.zoo.cache import ZooCache
from metav.zoo.free_negatives import free_negatives as make_free_negatives
from metav.zoo.plan import GIVEN, HOMOLOGOUS, PlannedModel, assigned_shares, wanted_shares
from metav.zoo.preparation import prepare_zoo
from metav.zoo.told_recipes import Recipe
from metav.zoo.trained_models import FOREIGN_ARCHITECTURE, independent_model, train_plan
from metav.zoo.training import ZooContext
from metav.zoo.zoo import Zoo, ZooModel

POSITIVES = NEGATIVES = 48
"""Training runs of derived and of independent models in a zoo, where nobody says otherwise."""
SNAPSHOTS = 2
"""Copies that are kept of each run that is optimised on, beside the finished model, where nobody says otherwise."""


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
    models, standing = train_plan(prepared.plan, context, store, jobs, progress, suspects=suspects)
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
    return [independent_model(draft, *entry) for draft, entry in zip(drafts, given, strict=True)]


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


for _function in (build_zoo, build_suspects):
    show_options(_function, _build)
