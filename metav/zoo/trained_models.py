"""The models of a plan: taken from the cache, trained where it lacks them, or fitted by another library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from metav.errors import ZooError
from metav.support.arithmetic import fixed_arithmetic, single_threaded_libraries
from metav.support.progress import progress_bar, skip
from metav.support.randomness import isolated_rng
from metav.zoo.cache import TrainedModel, ZooCache, unpack
from metav.zoo.classical_suspects import classical_suspect
from metav.zoo.plan import CLASSICAL, KINDRED, PlannedModel
from metav.zoo.stages import train_in_stages
from metav.zoo.standing import OwnerStanding
from metav.zoo.told_recipes import DistinctCopies
from metav.zoo.training import ZooContext
from metav.zoo.workers import train_missing
from metav.zoo.zoo import ZooModel

FOREIGN_ARCHITECTURE = -1
"""Stands for an architecture that is none of those that the zoo was built with."""


def train_plan(
    plan: Sequence[PlannedModel],
    context: ZooContext,
    store: ZooCache | None,
    jobs: int | None,
    progress: bool | None,
    *,
    suspects: bool,
) -> tuple[list[ZooModel], OwnerStanding | None]:
    """Return all planned models, and where the owner stands; those of another library are fitted, not trained.

    store, jobs, progress: see `train_all`.
    suspects: whether these are to be test suspects.
    """
    fitted = [planned for planned in plan if planned.family == CLASSICAL]
    plan = [planned for planned in plan if planned.family != CLASSICAL]
    distinct = DistinctCopies()
    with progress_bar(total=len(plan), description="zoo", enabled=progress) as bar:

        def train(stage: Sequence[PlannedModel]) -> Mapping[str, TrainedModel]:
            return _train_stage(stage, context, store, jobs, bar, distinct=distinct)

        result = train_in_stages(plan, context, train, suspects=suspects)
    models = [entry for planned in result.plan for entry in zoo_models(planned, result.trained[planned.run], context)]
    return [*models, *(_fitted(planned, context) for planned in fitted)], result.standing


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
    return independent_model(planned, model, metric)


def independent_model(planned: PlannedModel, model: nn.Module, metric: float) -> ZooModel:
    """Return a model that no zoo trained as an independent one, with what was planned of it."""
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
