"""The scenario of an experiment: the tasks of owner, thief and an unrelated owner, recipes, all architectures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from metav.experiments.scenarios.recipes.owner_recipe import OwnerRecipe, owner_seed
from metav.models.architectures import Architecture
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """One experiment: data in disjoint parts, and architectures that the zoo and the suspects do not share.

    task: the owner's, and all that the zoo may use.
    thief_task, other_task: the data of a thief and of an unrelated owner, whose models are suspects.
    test_task: what nobody trains on; its metric counts all of it.
    owner_architecture: of the owner's model.
    zoo_architectures, suspect_architectures: disjoint; both lack the owner's own, which zoo and suspects have anyway.
    recipes: how owners train, on the owner's data; owner k goes by number k, modulo their number.
    metric_unit: what the metric is in, once multiplied by `metric_scale`.
    """

    name: str
    seed: int
    task: Task
    thief_task: Task
    other_task: Task
    test_task: Task
    owner_architecture: Architecture
    zoo_architectures: tuple[Architecture, ...]
    suspect_architectures: tuple[Architecture, ...]
    recipes: tuple[OwnerRecipe, ...]
    metric_unit: str
    metric_scale: float = 1.0

    @property
    def recipe(self) -> OwnerRecipe:
        """The recipe of this scenario's owner."""
        return self.recipes[self.seed % len(self.recipes)]

    @property
    def other_recipes(self) -> tuple[OwnerRecipe, ...]:
        """The recipes of other owners, on the same data."""
        return tuple(recipe for recipe in self.recipes if recipe is not self.recipe)

    def owner_of_recipe(self, *, device: str = "cpu") -> nn.Module:
        """Return the owner's model of the experiments: by a plain loop, which shares no code with metav's."""
        return replace(self.recipe, device=device)(owner_seed(self.seed, self.name))

    def from_public_base(self) -> Self:
        """Return the scenario of an owner who fine-tunes a public base, from which honest others start as well.

        The base is of the owner's class, and has learned from the unrelated owner's data by the first recipe.
        """
        base = self.recipes[0].on(self.other_task)(owner_seed(self.seed, "public base"))
        return replace(self, recipes=tuple(recipe.from_base(base) for recipe in self.recipes))

    def train_owner(self, seed: int, *, device: str = "cpu") -> nn.Module:
        """Return a model of the owner's architecture, trained in the task's own way; as in demonstration and notebooks.

        seed: of initial weights and training.
        """
        with isolated_rng(derive_seed(seed, self.name, "owner weights")):
            model = self.owner_architecture().to(device)
        return self.task.train(model, seed=derive_seed(seed, self.name, "owner training"))

    def test_metric(self, model: nn.Module) -> float:
        """Return the quality of a model on the test part, in `metric_unit`."""
        return self.metric_scale * self.test_task.metric(model)
