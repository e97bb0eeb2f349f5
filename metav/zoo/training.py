"""Training of one planned model; its result depends on plan and data alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import ModelError
from metav.models.adapters import bare
from metav.models.architectures import Architecture, build
from metav.models.content_identity import content_identity
from metav.models.copying import duplicate, recompute_weights
from metav.models.running import copied, device_of, evaluating, frozen
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task, train_as_it_can
from metav.tasks.data_variations import varied
from metav.zoo.cache import TrainedModel, cache_key, pack, tensor_state
from metav.zoo.identities import RECIPE
from metav.zoo.plan import KINDRED, OTHER_DATA, PlannedModel
from metav.zoo.told_recipes import Recipe, check_useful, recipe_seed, told_model

ATTEMPTS = 3
"""How often a derived model is made, with less and less strength, until it is useful."""
TOLD_ATTEMPTS = 3
"""Seeds that a told recipe is called with for one model: by a noisy metric single honest models come out weak."""
LAST_SNAPSHOT = 0.9
"""Share of the training after which no snapshot is taken: it would hardly differ from the finished model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooContext:
    """Everything that the models of a zoo are made from.

    owner: a private copy of the owner's model.
    task: the owner's task.
    thief_task: the task on whose data obfuscations train.
    other_task: a task on data of another source, for independent models; None for changed parts of the owner's.
    architectures: callables that return fresh models; the first is the owner's own class.
    least_useful: the metric with which a thief would still use a model; None where none is known.
    digests: identities of all of these, which go into every cache key; that of the recipe into those of its models.
    recipe: how the owner's model was trained; None where the user does not tell.
    autocast: the dtype of their passes while metav trains them (`TrainingOptions.autocast`); None for full precision.
    unidentified: why a cache must not be used, by what it is that has no identity; "recipe" concerns its models alone.
    """

    owner: nn.Module
    task: Task
    thief_task: Task
    other_task: Task | None
    architectures: tuple[Architecture, ...]
    least_useful: float | None
    digests: dict[str, str]
    recipe: Recipe | None = None
    autocast: str | None = None
    unidentified: Mapping[str, str] = field(default_factory=dict)

    def is_cached(self, planned: PlannedModel) -> bool:
        """Return whether the cache key of a planned model stands for all that it depends on."""
        return not self.unidentified or (set(self.unidentified) == {RECIPE} and planned.family != KINDRED)

    def key(self, planned: PlannedModel) -> str:
        """Return the cache key of a planned model."""
        by_told_recipe = planned.family == KINDRED and planned.attack is None
        return cache_key(
            {
                **{name: text for name, text in self.digests.items() if name != RECIPE or planned.family == KINDRED},
                "architecture": self.digests[f"architecture {planned.architecture}"],
                "family": planned.family,
                "strength": planned.strength,
                "seed": planned.seed,
                "snapshots": planned.snapshots,
                "is_positive": planned.is_positive,
                "varied": planned.varied,
                **({} if planned.attack is None else {"attack": planned.attack}),
                **({} if planned.recipe is None else {"recipe": asdict(planned.recipe)}),
                **({} if self.autocast is None or by_told_recipe else {"autocast": self.autocast}),
            }
        )

    def in_precision(self, task: Task) -> Task:
        """Return a task that trains in the precision that is asked for."""
        return task if self.autocast is None else task.with_autocast(self.autocast)

    def about(self, planned: PlannedModel) -> dict[str, str]:
        """Return what a model belongs to, as the cache states it for people."""
        return {
            "run": planned.run,
            "family": planned.family,
            "owner": self.digests["owner"][:12],
            "model": type(bare(self.owner)).__qualname__,
            "task": self.task.name,
        }

    def is_useful(self, metric: float) -> bool:
        """Return whether a model of this metric is worth having: at least halfway from a constant answer to the owner.

        metric: in the task's unit. Any finite one counts as useful where that halfway point is not known.
        """
        if not math.isfinite(metric):
            return False
        if self.least_useful is None:
            return True
        return metric >= self.least_useful if self.task.higher_is_better else metric <= self.least_useful

    def template(self, planned: PlannedModel) -> nn.Module:
        """Return a model of the planned architecture, into which the trained state can be loaded."""
        if planned.architecture == 0:
            return copied(self.owner)
        return build(self.architectures[planned.architecture], derive_seed(planned.seed, "initial weights"))

    def model(self, planned: PlannedModel, state: Mapping[str, Tensor]) -> nn.Module:
        """Return a model of the planned architecture with trained weights, in eval mode on the owner's device.

        Raises ModelError for weights of another architecture.
        """
        model = self.template(planned)
        if set(tensor_state(model.state_dict())) != set(state):
            raise ModelError(f"a trained copy of {type(model).__qualname__} has other weights than a fresh one")
        # not strict: entries of the state that are no tensors were not stored, and stay as in the fresh model
        model.load_state_dict(dict(state), strict=False)
        return recompute_weights(frozen(model).to(device_of(self.owner)).eval())


class SnapshotRecorder:
    """A callback for `on_epoch` that keeps copies of a model at given shares of its training.

    fractions: the shares, ascending, in (0, 1).
    """

    def __init__(self, fractions: tuple[float, ...]) -> None:
        self._wanted = list(fractions)
        self.snapshots: list[tuple[float, nn.Module]] = []

    def __call__(self, share: float, model: nn.Module) -> None:
        """Copy the model if the next wanted share is reached (never a nearly finished one)."""
        if not self._wanted or share < self._wanted[0]:
            return
        while self._wanted and share >= self._wanted[0]:
            self._wanted.pop(0)
        if share <= LAST_SNAPSHOT:
            self.snapshots.append((share, duplicate(model).eval()))


def train_planned(planned: PlannedModel, context: ZooContext) -> bytes:
    """Train a planned model and return it packed.

    A model that diverges or stays useless by a drawn recipe is trained in the task's own way. A positive that is no
        longer useful is made again with half the strength, at most twice: a thief would not use a broken model.

    Raises ModelError when an independent model diverges, and what `told_model` does.
    """
    with fixed_arithmetic(), isolated_rng(planned.seed):
        attempts = list(_attempts(planned))
        for attempt in attempts:
            last = attempt is attempts[-1]
            recorder = SnapshotRecorder(planned.snapshots)
            try:
                model = train_one(attempt, context, recorder)
            except ModelError as error:
                if last:
                    raise ModelError(f"{planned.run}: {error}") from error
                continue
            metric = float(context.task.metric(model))
            if last or context.is_useful(metric):
                break
        snapshots = [(share, copy_, float(context.task.metric(copy_))) for share, copy_ in recorder.snapshots]
        snapshots.append((1.0, model, metric))
    for share, snapshot, _ in snapshots:
        check_weights(snapshot, planned.run, share)
    trained = TrainedModel(
        states=tuple(tensor_state(snapshot.state_dict()) for _, snapshot, _ in snapshots),
        fractions=tuple(share for share, _, _ in snapshots),
        metrics=tuple(metric for _, _, metric in snapshots),
        strength=attempt.strength,
    )
    return pack(trained, context.key(planned), context.about(planned))


def train_one(planned: PlannedModel, context: ZooContext, recorder: SnapshotRecorder) -> nn.Module:
    """Return a planned model, trained once; the random state is the caller's business.

    recorder: is called with (share done, model) after each epoch, where snapshots are planned.

    Raises ModelError where it diverges.
    """
    return (_positive if planned.is_positive else _negative)(planned, context, recorder)


def _attempts(planned: PlannedModel) -> Iterator[PlannedModel]:
    """Yield what is tried in turn until the model is useful."""
    if planned.recipe is not None:
        yield planned
    own = replace(planned, recipe=None)
    if planned.strength is None:
        yield own
        return
    for halvings in range(ATTEMPTS):
        yield replace(own, strength=planned.strength / 2**halvings)


def identity_of(task: Task) -> str:
    """Return a text that changes with a task's data, options and attributes and with the code of its class.

    Raises UnidentifiedError for a task with an attribute that has no content, such as an open file.
    """
    content = content_identity(task, "task")
    return f"{task.digest()} {cache_key({'source': task.identity(), 'content': content})}"


def _positive(planned: PlannedModel, context: ZooContext, recorder: SnapshotRecorder) -> nn.Module:
    entry = OBFUSCATIONS[planned.family]
    options: dict[str, Any] = {}
    if planned.architecture:
        options["architecture"] = context.architectures[planned.architecture]
    if planned.snapshots and entry.needs_training:
        options["on_epoch"] = recorder
    task = varied(context.thief_task, planned.seed) if planned.varied else context.thief_task
    task = context.in_precision(task if planned.recipe is None else task.with_recipe(planned.recipe))
    with evaluating(context.owner), torch.enable_grad():
        return entry.function(context.owner, task, strength=planned.strength, seed=planned.seed, **options)


def _negative(planned: PlannedModel, context: ZooContext, recorder: SnapshotRecorder) -> nn.Module:
    task = context.in_precision(_data_of(planned, context))
    watched: dict[str, Any] = {"on_epoch": recorder} if planned.snapshots else {}
    model = _independent(planned, context, task, {} if planned.attack else watched)
    if planned.attack is None:
        return model
    family, strength = planned.attack
    entry = OBFUSCATIONS[family]
    with evaluating(model), torch.enable_grad():
        return entry.function(
            model,
            task,
            strength=strength,
            seed=derive_seed(planned.seed, "attacked"),
            **(watched if entry.needs_training else {}),
        )


def _data_of(planned: PlannedModel, context: ZooContext) -> Task:
    """Return the task on whose data an independent model is trained."""
    if planned.family == OTHER_DATA and context.other_task is not None:
        return context.other_task
    if planned.varied:
        return varied(context.task, planned.seed)
    if planned.family == OTHER_DATA:
        return context.task.bootstrap(derive_seed(planned.seed, "data"), 0.5)
    return context.task


def _independent(planned: PlannedModel, context: ZooContext, task: Task, watched: dict[str, Any]) -> nn.Module:
    """Return an independent model: by the recipe that was told, by a drawn one, or by the task's own.

    watched: options of its training.
    """
    if planned.family == KINDRED and context.recipe is not None:
        return _told(context.recipe, planned.seed, context).to(device_of(context.owner))
    start = derive_seed(planned.seed, "initial weights")
    model = build(context.architectures[planned.architecture], start).to(device_of(context.owner))
    if planned.recipe is not None:
        task = task.with_recipe(planned.recipe)
        # a loop of the user's own may not look at the task's epochs, but takes them as an argument
        stated = task.has_own_loop and task.states_epochs
        watched = {**watched, "epochs": planned.recipe.epochs} if stated else watched
    return train_as_it_can(task, model, seed=derive_seed(planned.seed, "training"), **watched)


def _told(recipe: Recipe, seed: int, context: ZooContext) -> nn.Module:
    """Return a useful model of the told recipe; one that came out weak gives way to those of two further seeds.

    seed: of the planned model.

    Raises what `told_model` does, ZooError where none of them is useful.
    """
    for attempt in range(TOLD_ATTEMPTS):
        again = derive_seed(seed, "told again", attempt) if attempt else seed
        model = told_model(recipe, again, context.owner, context.task)
        metric = float(context.task.metric(model))
        if context.is_useful(metric):
            break
    name = f"the model of recipe({recipe_seed(again)}), the last of {attempt + 1} seeds tried,"
    check_useful(name, metric, context.task, context.least_useful)
    return model


def check_weights(model: nn.Module, run: str, share: float) -> None:
    """Raise ModelError for NaN or infinite values in a model's weights.

    run, share: the training run and how much of it is done, which name the model in the message.
    """
    for name, tensor in tensor_state(model.state_dict()).items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(
                f"{run} at {share:.0%} of its training has NaN or infinite values in {name}; lower the task's "
                "learning_rate or rescale the data to the order of 1"
            )
