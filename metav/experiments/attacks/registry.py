"""The attacks of the test suspects beside the ownership obfuscations: one table, and two obfuscations in a row.

Every attack is f(model, task, *, strength, seed, architecture=None, ...) and returns a new module in eval mode; the
given one, its mode and the global random state are untouched. `strength` lies in (0, 1], from hardly visible to as far
as a thief would go. `task` is the thief's. No surrogate zoo uses any of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from metav.errors import ObfuscationError
from metav.experiments.attacks.extraction import double_distill, jbda, knockoff
from metav.experiments.attacks.plain_loops import (
    loop_distill,
    loop_extract_labels,
    loop_finetune,
    loop_finetune_hard,
    loop_finetune_sgd,
    loop_prune_finetune,
)
from metav.experiments.attacks.removal import fine_prune, removal_net, unlearn_fingerprint
from metav.experiments.attacks.structure import permute_latent, permute_neurons, rescale_neurons, rotate_latent
from metav.models.architectures import Architecture
from metav.obfuscations.registry import OBFUSCATIONS
from metav.obfuscations.students import extract_labels, extract_scores
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.tasks.kinds import ANY_TASK, TaskNeeds


def stacked(
    model: nn.Module,
    task: Task,
    *,
    first: str,
    second: str,
    strength: float,
    seed: int,
    architecture: Architecture | None = None,
) -> nn.Module:
    """Do two ownership obfuscations one after the other, both at `strength`.

    first, second: names of OBFUSCATIONS.
    architecture: goes to those that build a new model.

    Raises ObfuscationError for a name that OBFUSCATIONS lacks or that makes no sense for the task.
    """
    for number, family in enumerate((first, second)):
        entry = OBFUSCATIONS.get(family)
        if entry is None or not entry.supports(task):
            raise ObfuscationError(
                f"{family!r} is no ownership obfuscation for a {task.name} task; choose of "
                f"{', '.join(name for name, other in OBFUSCATIONS.items() if other.supports(task))}"
            )
        options = {"architecture": architecture} if entry.other_architecture else {}
        model = entry.function(model, task, strength=strength, seed=derive_seed(seed, "stacked", number), **options)
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One family of test suspects.

    needs: what a task must have.
    needs_training: False for those that only rewrite weights.
    own_architecture, other_architecture: whether the result may be of the owner's class, and of another one.
    needs_other: whether the function takes data of another origin, `other`.
    needs_queries: whether it takes the queries of a leaked fingerprint, `queries`.
    maps_latent: whether the result may be a generator behind a map of its latent.
    strengths: those that suspects have.
    """

    family: str
    function: Callable[..., nn.Module]
    needs: TaskNeeds = ANY_TASK
    needs_training: bool = True
    own_architecture: bool = True
    other_architecture: bool = False
    needs_other: bool = False
    needs_queries: bool = False
    maps_latent: bool = False
    strengths: tuple[float, ...] = (0.35, 0.65, 0.95)

    def supports(self, task: Task) -> bool:
        """Return whether the attack makes sense for a task; an unknown kind of task is treated like regression."""
        return self.needs.met_by(task.kind)


ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        entry.family: entry
        for entry in (
            Attack(family="removal_net", function=removal_net, needs=TaskNeeds(data_inputs=True)),
            Attack(family="fine_prune", function=fine_prune),
            # Their answers are the owner's: few of them say all.
            Attack(family="permute_neurons", function=permute_neurons, needs_training=False, strengths=(0.5, 0.95)),
            Attack(family="rescale_neurons", function=rescale_neurons, needs_training=False, strengths=(0.95,)),
            Attack(
                family="extract_labels_other",
                function=extract_labels,
                needs=TaskNeeds(classes=True),
                own_architecture=False,
                other_architecture=True,
            ),
            Attack(
                family="extract_scores_other",
                function=extract_scores,
                own_architecture=False,
                other_architecture=True,
            ),
            Attack(family="knockoff", function=knockoff, other_architecture=True, needs_other=True),
            Attack(family="jbda", function=jbda, needs=TaskNeeds(data_inputs=True), other_architecture=True),
            Attack(family="double_distill", function=double_distill, other_architecture=True),
            # Loops of the thief's own, which share no code with metav's.
            Attack(family="loop_finetune", function=loop_finetune),
            Attack(family="loop_finetune_sgd", function=loop_finetune_sgd),
            Attack(family="loop_finetune_hard", function=loop_finetune_hard),
            Attack(family="loop_prune_finetune", function=loop_prune_finetune),
            Attack(family="loop_distill", function=loop_distill, other_architecture=True),
            Attack(
                family="loop_extract_labels",
                function=loop_extract_labels,
                needs=TaskNeeds(classes=True),
                other_architecture=True,
            ),
            Attack(family="unlearn_fingerprint", function=unlearn_fingerprint, needs_queries=True),
            Attack(
                family="unlearn_with_decoy",
                function=functools.partial(unlearn_fingerprint, decoy=True),
                needs_queries=True,
            ),
            Attack(
                family="permute_latent",
                function=permute_latent,
                needs=TaskNeeds(latents=True),
                needs_training=False,
                maps_latent=True,
            ),
            Attack(
                family="rotate_latent",
                function=rotate_latent,
                needs=TaskNeeds(latents=True),
                needs_training=False,
                maps_latent=True,
            ),
        )
    }
)
"""All single attacks by name, in a fixed order."""

LEAK_ATTACKS: tuple[str, ...] = tuple(name for name, entry in ATTACKS.items() if entry.needs_queries)
"""Attacks of a thief who holds the fingerprint's queries."""

STACKS: tuple[tuple[str, str], ...] = (
    ("finetune_all", "quantize"),
    ("weight_prune", "distill_other"),
    ("distill_same", "finetune_last"),
    ("prune_then_finetune", "weight_noise"),
    ("weight_noise", "extract_scores"),
    ("adversarial_train", "weight_prune"),
    ("extract_labels", "finetune_all"),
    ("retrain_last", "filter_prune"),
    ("distill_other", "quantize"),
    ("finetune_all", "distill_same"),
)
"""Pairs of obfuscations that test suspects go through, one after the other."""


def supported_stacks(task: Task) -> tuple[tuple[str, str], ...]:
    """Return the pairs of STACKS of which both obfuscations make sense for a task."""
    return tuple(pair for pair in STACKS if all(OBFUSCATIONS[family].supports(task) for family in pair))
