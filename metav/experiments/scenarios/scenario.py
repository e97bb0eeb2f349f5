"""The scenario of an experiment: the owner's task, the thief's, an unrelated owner's, and all architectures."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from metav.models.architectures import Architecture
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """One experiment: data in disjoint parts, and architectures that the zoo and the suspects do not share.

    task: the owner's, and all that the zoo may use.
    thief_task, other_task: the data of a thief and of an unrelated owner, whose models are suspects.
    test_task: what nobody trains on; its metric counts all of it.
    zoo_architectures, suspect_architectures: disjoint; both lack the owner's own, which zoo and suspects have anyway.
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
    metric_unit: str
    metric_scale: float = 1.0

    def train_owner(self, seed: int, *, device: str = "cpu") -> nn.Module:
        """Return the owner's model, trained from scratch, in eval mode; the same seed gives the same weights."""
        with isolated_rng(derive_seed(seed, self.name, "owner weights")):
            model = self.owner_architecture().to(device)
        return self.task.train(model, seed=derive_seed(seed, self.name, "owner training"))

    def test_metric(self, model: nn.Module) -> float:
        """Return the quality of a model on the test part, in `metric_unit`."""
        return self.metric_scale * self.test_task.metric(model)
