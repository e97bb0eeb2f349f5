"""More surrogates without more training: pruned, quantised and noisy copies of those that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from metav.errors import ZooError
from metav.obfuscations.registry import OBFUSCATIONS, Obfuscation
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task
from metav.zoo.zoo import Zoo, ZooModel

OWNER_COPIES = 24
"""Copies that are made of the owner's model, by default."""
COPIES = 8
"""Copies that are made of each independent surrogate, by default."""


def with_untrained_copies(
    zoo: Zoo, owner: nn.Module, task: Task, *, owner_copies: int = OWNER_COPIES, copies: int = COPIES, seed: int = 0
) -> Zoo:
    """Return the zoo with changed copies of the owner's model and of each independent surrogate added to it.

    owner_copies: number of copies of the owner's model, >= 0.
    copies: number of copies of each independent surrogate that does not calibrate, snapshots included, >= 0.

    For owners who can train only a few surrogates. The copies come from the obfuscations that train nothing. They
    belong to the shares "optimize" and "select", never to "calibrate": copies of one model are no independent evidence.
    Neither zoo nor owner is changed.

    Raises ZooError for negative counts or a zoo without derived surrogates.
    """
    if owner_copies < 0 or copies < 0 or not zoo.positives:
        raise ZooError(
            f"copies need counts from 0 and a zoo with derived surrogates, got {owner_copies} and {copies} for {zoo!r}"
        )
    every = [entry for entry in OBFUSCATIONS.values() if not entry.needs_training and entry.supports(task)]
    sources = [entry for entry in zoo.models if not entry.is_positive and entry.share in ("optimize", "select")]
    derived = [*_owner_copies(zoo, owner, task, _fitting(every, owner, task), owner_copies, seed)]
    independent = [
        _copy(source, source.model, task, entries[(place + number) % len(entries)], number // len(entries), run, seed)
        for place, source in enumerate(sources)
        for entries in [_fitting(every, source.model, task)]
        for number in range(copies if entries else 0)
        for run in [f"{source.run}/copy-{source.fraction:g}-{number}"]
    ]
    return replace(zoo, models=(*zoo.positives, *derived, *zoo.negatives, *independent))


def _fitting(entries: Sequence[Obfuscation], model: nn.Module, task: Task) -> list[Obfuscation]:
    return [entry for entry in entries if entry.why_unfit(model, task) is None]


def _owner_copies(
    zoo: Zoo, owner: nn.Module, task: Task, entries: Sequence[Obfuscation], count: int, seed: int
) -> Iterator[ZooModel]:
    """Yield copies of the owner's model: each fourth round of obfuscations for "select", the others for "optimize"."""
    template = zoo.positives[0]
    for number in range(count if entries else 0):
        entry, turn = entries[number % len(entries)], number // len(entries)
        share = "select" if turn % 4 == 3 else "optimize"
        source = replace(template, family=entry.family, share=share, architecture=0, attack=None)
        yield _copy(source, owner, task, entry, turn, f"owner/copy-{number}", seed)


def _copy(
    source: ZooModel, model: nn.Module, task: Task, entry: Obfuscation, turn: int, run: str, seed: int
) -> ZooModel:
    strength, own_seed = entry.zoo_strengths[turn % len(entry.zoo_strengths)], derive_seed(seed, "copy", run)
    with isolated_rng(own_seed):
        changed = entry.function(model, task, strength=strength, seed=own_seed)
        metric = float(task.metric(changed))
    for parameter in changed.parameters():
        parameter.requires_grad_(False)
    return replace(
        source,
        model=changed.eval(),
        strength=strength if source.is_positive else source.strength,
        seed=own_seed,
        run=run,
        fraction=1.0,
        metric=metric,
        attack=None if source.is_positive else entry.family,
    )
