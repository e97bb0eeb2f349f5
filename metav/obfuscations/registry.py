"""The table of ownership obfuscations: one row per family, with all that the rest of metav needs to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from metav.obfuscations.fitting import has_gradient_to_inputs, has_hidden_channels, has_layers_below_last, has_weights
from metav.obfuscations.rewriting import filter_prune, quantize, weight_noise, weight_prune
from metav.obfuscations.students import distill, extract_labels, extract_scores
from metav.obfuscations.tuning import (
    adversarial_train,
    finetune_all,
    finetune_last,
    prune_then_finetune,
    retrain_all,
    retrain_last,
)
from metav.tasks.base import Task
from metav.tasks.kinds import ANY_TASK, TaskNeeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Obfuscation:
    """One family of ownership obfuscations.

    family: its name, in zoos and results.
    function: (model, task, *, strength, seed, architecture=None, on_epoch=None) -> model.
    needs_training: whether it trains, so that it takes `on_epoch` and the thief's data matter.
    makes_student: whether the result is a new model trained on the owner's answers, with no weight of the owner's.
    needs: what a task must have for it to make sense.
    misfit: (owner, task) -> why the family does not fit the owner's model, None where it does; None: it fits any.
    own_architecture, other_architecture: whether the result may have the owner's architecture, or another.
    zoo_strengths: strengths of surrogates, taken in turn.
    suspect_strengths: other strengths, of test suspects, taken in turn.
    first_turn: at which strength and architecture the family starts, so that not all families start with the same.
    """

    family: str
    function: Callable[..., nn.Module]
    needs_training: bool = True
    makes_student: bool = False
    needs: TaskNeeds = ANY_TASK
    misfit: Callable[[nn.Module, Task], str | None] | None = None
    own_architecture: bool = True
    other_architecture: bool = False
    zoo_strengths: tuple[float, ...] = (0.2, 0.5, 0.8)
    suspect_strengths: tuple[float, ...] = (0.35, 0.65, 0.95)
    first_turn: int = 0

    def supports(self, task: Task) -> bool:
        """Return whether the family makes sense for a task; an unknown kind of task is treated like regression."""
        return self.needs.met_by(task.kind)

    def why_unfit(self, owner: nn.Module, task: Task) -> str | None:
        """Return why the family does not fit an owner's model, None where it does; nothing is trained for it."""
        return None if self.misfit is None else self.misfit(owner, task)


_ROWS = (
    Obfuscation(family="finetune_last", function=finetune_last, misfit=has_weights),
    Obfuscation(family="finetune_all", function=finetune_all, first_turn=1),
    Obfuscation(family="retrain_last", function=retrain_last, misfit=has_layers_below_last, first_turn=2),
    Obfuscation(
        family="retrain_all",
        function=retrain_all,
        needs=TaskNeeds(data_inputs=True),
        misfit=has_layers_below_last,
        first_turn=3,
    ),
    Obfuscation(family="weight_prune", function=weight_prune, needs_training=False, misfit=has_weights, first_turn=4),
    Obfuscation(
        family="filter_prune", function=filter_prune, needs_training=False, misfit=has_hidden_channels, first_turn=5
    ),
    Obfuscation(family="prune_then_finetune", function=prune_then_finetune, misfit=has_weights, first_turn=6),
    Obfuscation(
        family="quantize",
        function=quantize,
        needs_training=False,
        misfit=has_weights,
        zoo_strengths=(0.4, 0.8),  # 6 and 4 bits
        suspect_strengths=(0.6, 1.0),  # 5 and 3 bits
        first_turn=7,
    ),
    Obfuscation(family="weight_noise", function=weight_noise, needs_training=False, misfit=has_weights, first_turn=8),
    Obfuscation(family="distill_same", function=distill, makes_student=True, first_turn=9),
    Obfuscation(
        family="distill_other",
        function=distill,
        makes_student=True,
        own_architecture=False,
        other_architecture=True,
        first_turn=10,
    ),
    Obfuscation(
        family="extract_labels",
        function=extract_labels,
        makes_student=True,
        needs=TaskNeeds(labels=True),
        other_architecture=True,
        first_turn=11,
    ),
    Obfuscation(
        family="extract_scores", function=extract_scores, makes_student=True, other_architecture=True, first_turn=12
    ),
    Obfuscation(
        family="adversarial_train",
        function=adversarial_train,
        needs=TaskNeeds(data_inputs=True),
        misfit=has_gradient_to_inputs,
        first_turn=13,
    ),
)

OBFUSCATIONS: Mapping[str, Obfuscation] = MappingProxyType({row.family: row for row in _ROWS})
"""All families by name, in a fixed order."""


def unfit_families(owner: nn.Module, task: Task) -> dict[str, str]:
    """Return the obfuscations that suit the task and yet do not fit the owner's model, each with the reason."""
    reasons = {name: entry.why_unfit(owner, task) for name, entry in OBFUSCATIONS.items() if entry.supports(task)}
    return {name: reason for name, reason in reasons.items() if reason is not None}
