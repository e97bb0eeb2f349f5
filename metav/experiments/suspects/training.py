"""Training of one planned test suspect, in this process or in a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import InputError, ModelError
from metav.experiments.attacks.registry import ATTACKS, Attack, stacked
from metav.experiments.attacks.structure import MappedLatent
from metav.experiments.scenarios.recipes.owner_recipe import OwnerRecipe
from metav.experiments.suspects.honest import PlannedHonest, honest_recipe, train_honest
from metav.experiments.suspects.plan import STACKED, AnySuspect, PlannedAttack
from metav.models.architectures import build
from metav.models.identity import tensor_digest
from metav.models.running import copied, device_of, evaluating
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.arithmetic import fixed_arithmetic
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task
from metav.tasks.data_variations import varied
from metav.zoo.cache import TrainedModel, ZooCache, cache_key, pack, tensor_state, unpack
from metav.zoo.plan import PlannedModel
from metav.zoo.training import ZooContext, check_weights, identity_of, train_planned

ATTACK_FORMAT = 1
"""Raised whenever an attack changes, so that a cache never holds what an older one made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectContext:
    """What all suspects are made from: a zoo's context, and what only attacks need.

    transfer: data of another origin.
    queries: the leaked fingerprint's, (n, *input); None where there is none.
    folder: the cache, where attacked independent models find their base.
    digests: of `transfer`, `queries`, and each of the recipes on each data.
    recipes: plain loops that honest suspects are trained by, the owner's first.
    """

    zoo: ZooContext
    transfer: Task
    queries: Tensor | None
    folder: str | None
    digests: dict[str, str]
    recipes: tuple[OwnerRecipe, ...] = ()

    def key(self, planned: AnySuspect) -> str:
        """Return the cache key of a planned suspect; that of a plain one is a zoo's."""
        if isinstance(planned, PlannedModel):
            return self.zoo.key(planned)
        architecture = self.zoo.digests[f"architecture {planned.architecture}"]
        if isinstance(planned, PlannedHonest):
            # no word of the owner's weights: an honest model stays what it is whomever it is compared with
            recipe = self.digests[f"recipe {planned.recipe} on {planned.data}"]
            return cache_key({"plain loop": recipe, "architecture": architecture, "seed": planned.seed})
        used = _attack_of(planned)
        return cache_key(
            {
                **self.zoo.digests,
                "attack format": ATTACK_FORMAT,
                "architecture": architecture,
                "attacks": list(planned.attacks),
                "strength": planned.strength,
                "seed": planned.seed,
                "base": None if planned.base is None else self.key(planned.base),
                "queries": self.digests["queries"] if used is not None and used.needs_queries else None,
                "transfer": self.digests["transfer"] if used is not None and used.needs_other else None,
            }
        )

    def is_cached(self, planned: AnySuspect) -> bool:
        """Return whether the cache key of a planned suspect stands for all that it depends on."""
        if isinstance(planned, PlannedModel):
            return self.zoo.is_cached(planned)
        return not self.zoo.unidentified

    def base(self, planned: PlannedAttack) -> nn.Module:
        """Return the model to attack: the owner's, or an independent one, trained anew where the cache lacks it."""
        if planned.base is None:
            return self.zoo.owner
        key = self.key(planned.base)
        folder = self.folder if self.is_cached(planned.base) else None
        found = None if folder is None else ZooCache(folder).load(key)
        model = self.model(planned.base, found or unpack(train_suspect(planned.base, self), key))
        return copied(model)

    def recipe(self, planned: PlannedHonest) -> OwnerRecipe:
        """Return the recipe of a planned honest model, on its data."""
        recipe = honest_recipe(planned, self.recipes, _sources(self.zoo), self.zoo.architectures)
        return replace(recipe, device=str(device_of(self.zoo.owner)))

    def model(self, planned: AnySuspect, trained: TrainedModel) -> nn.Module:
        """Return the fully trained model of a run, in eval mode and without gradients."""
        state, zoo = trained.states[-1], self.zoo
        if planned.architecture == 0:
            model = copied(zoo.owner)
        else:
            model = build(zoo.architectures[planned.architecture], derive_seed(planned.seed, "initial weights"))
        missing = set(state) - set(tensor_state(model.state_dict()))
        attack = _attack_of(planned) if isinstance(planned, PlannedAttack) else None
        if attack is not None and attack.maps_latent and "matrix" in missing:
            model = MappedLatent(model, state["matrix"])
        if set(tensor_state(model.state_dict())) != set(state):
            raise ModelError(f"a trained copy of {type(model).__qualname__} has other weights than a fresh one")
        # Not strict: extra state that is no tensor stays the template's.
        model.load_state_dict(dict(state), strict=False)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        return model.to(device_of(zoo.owner)).eval()


def suspect_context(
    zoo: ZooContext,
    queries: Tensor | None,
    folder: str | None,
    seed: int,
    recipes: tuple[OwnerRecipe, ...] = (),
) -> SuspectContext:
    """Return the context of a zoo, with data of another origin: its other task, else changed data of the thief.

    queries: of a leaked fingerprint, (n, *input).
    folder: the cache.
    recipes: plain loops that honest suspects are trained by, the owner's first.

    Raises InputError for queries of another shape.
    """
    if queries is not None and tuple(queries.shape[1:]) != tuple(zoo.task.input_shape):
        raise InputError(f"queries must have shape (n, *{tuple(zoo.task.input_shape)}), got {tuple(queries.shape)}")
    transfer = zoo.other_task or varied(zoo.thief_task, derive_seed(seed, "transfer"))
    leaked = None if queries is None else queries.detach().cpu().float().clone()
    digests = {
        "queries": "" if leaked is None else tensor_digest({"queries": leaked}),
        "transfer": transfer.digest() if zoo.unidentified else identity_of(transfer),
        **_recipe_digests(recipes, zoo),
    }
    return SuspectContext(zoo=zoo, transfer=transfer, queries=leaked, folder=folder, digests=digests, recipes=recipes)


def _recipe_digests(recipes: tuple[OwnerRecipe, ...], zoo: ZooContext) -> dict[str, str]:
    found = {}
    for number, recipe in enumerate(recipes):
        found[f"recipe {number} on owner"] = recipe.identity
        for data, task in _sources(zoo).items():
            found[f"recipe {number} on {data}"] = recipe.on(task).identity
    return found


def _sources(zoo: ZooContext) -> dict[str, Task]:
    """Return the tasks of others by the names of their data."""
    return {"thief": zoo.thief_task} | ({} if zoo.other_task is None else {"other": zoo.other_task})


def train_suspect(planned: AnySuspect, context: SuspectContext) -> bytes:
    """Train a planned suspect and return it packed; a plain one as a zoo does.

    An attack is done once at its strength: whether the result is still of use is reported, not mended.

    Raises ModelError, naming the run, where a training diverges.
    """
    if isinstance(planned, PlannedModel):
        return train_planned(planned, context.zoo)
    if isinstance(planned, PlannedHonest):
        model = train_honest(planned, context.recipe(planned))
        return _packed(model, planned, context, None)
    with fixed_arithmetic(), isolated_rng(planned.seed):
        base = context.base(planned)
        try:
            with evaluating(base), torch.enable_grad():
                model = _attacked(base, planned, context)
        except ModelError as error:
            raise ModelError(f"{planned.run}: {error}") from error
        check_weights(model, planned.run, 1.0)
    return _packed(model, planned, context, planned.strength)


def _packed(model: nn.Module, planned: AnySuspect, context: SuspectContext, strength: float | None) -> bytes:
    with fixed_arithmetic(), isolated_rng(planned.seed):
        metric = float(context.zoo.task.metric(model))
    states = (tensor_state(model.state_dict()),)
    return pack(
        TrainedModel(states=states, fractions=(1.0,), metrics=(metric,), strength=strength), context.key(planned)
    )


def _attacked(base: nn.Module, planned: PlannedAttack, context: SuspectContext) -> nn.Module:
    options: dict[str, Any] = {"strength": planned.strength, "seed": planned.seed}
    if planned.architecture:
        options["architecture"] = context.zoo.architectures[planned.architecture]
    task = context.zoo.thief_task
    if planned.family == STACKED:
        first, second = planned.attacks
        return stacked(base, task, first=first, second=second, **options)
    entry = _attack_of(planned)
    if entry is None:
        return OBFUSCATIONS[planned.attacks[0]].function(base, task, **options)
    if entry.needs_other:
        options["other"] = context.transfer
    if entry.needs_queries:
        options["queries"] = context.queries
    return entry.function(base, task, **options)


def _attack_of(planned: PlannedAttack) -> Attack | None:
    """Return the entry of a single attack, None for obfuscations and pairs of them."""
    return ATTACKS.get(planned.attacks[0]) if len(planned.attacks) == 1 else None
