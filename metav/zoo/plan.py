"""The plan of a zoo: which models it consists of, and which share each belongs to (see `metav.zoo`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from metav.errors import ObfuscationError, ZooError
from metav.models.recipe import DrawnRecipe
from metav.obfuscations.registry import OBFUSCATIONS, Obfuscation
from metav.support.arguments import whole_number
from metav.support.randomness import derive_seed
from metav.tasks.base import Task

SHARES = ("optimize", "select", "calibrate")
DEFAULT_SHARES: Mapping[str, tuple[float, float, float]] = {
    "positive": (0.50, 0.15, 0.35),
    "negative": (0.40, 0.15, 0.45),
}
"""Fractions of the models of each class that go to the three shares, in the order of SHARES."""
HOMOLOGOUS = "independent_same_data"
OTHER_ARCHITECTURE = "independent_other_architecture"
OTHER_DATA = "independent_other_data"
KINDRED = "independent_same_recipe"
OTHER_RECIPE = "independent_other_recipe"
CLASSICAL = "independent_classical"
GIVEN = "independent_given"
VARIED_POSITIVES = 0.6
"""Share of the derived surrogates whose thief trains on changed data instead of the task's."""
VARIED_OTHER_ARCHITECTURES = 0.5
"""The same share of the independent surrogates of another architecture."""
ATTACKED_HOMOLOGOUS = 0.2
"""Share of the homologous surrogates (independent, of the owner's architecture and data) that are obfuscated as well.

If only derived models were obfuscated, the verifier could learn to recognise the traces of an obfuscation instead of
the owner's model, and would accuse independent models that were, for example, pruned or distilled.
"""
FEWEST_WITH_ATTACKED = 96
"""Negatives from which on a zoo has such attacked models: in one with 48, copies extracted from the owner's model were
missed because of them."""
WHOLE = (KINDRED, CLASSICAL)
"""Families of which no snapshots are taken, since other code than metav's trains them."""
ANOTHER_ARCHITECTURE_OR_DATA = (OTHER_ARCHITECTURE, OTHER_DATA)
"""Families of the independent models that differ from the owner's in more than how they are trained."""
VARIED: Mapping[str, float] = {OTHER_ARCHITECTURE: VARIED_OTHER_ARCHITECTURES, OTHER_DATA: 1.0}
"""Share of the independent surrogates of each family that train on changed data; of families not named, none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """One training run that is planned.

    is_positive: whether it derives from the owner's model.
    family: name of the obfuscation, or of the kind of independent training.
    strength: of the obfuscation, in (0, 1]; None for an independent model.
    seed: of every random choice of the run.
    run: its name, unique in the plan.
    share: "optimize", "select", "calibrate" or "test".
    architecture: index into the architectures; 0 is the owner's own class.
    snapshots: the fractions of the training at which a copy is kept.
    varied: whether it trains on changed data, as of another source, instead of the data as they are.
    attack: the obfuscation that an independent model goes through after its training, and its strength; None for none.
    recipe: how it is trained, or how the thief trains; None for the task's own way.
    """

    is_positive: bool
    family: str
    strength: float | None
    seed: int
    run: str
    share: str
    architecture: int
    snapshots: tuple[float, ...]
    varied: bool = False
    attack: tuple[str, float] | None = None
    recipe: DrawnRecipe | None = None


def plan_zoo(
    task: Task,
    *,
    positives: int,
    negatives: int,
    architectures: int,
    seed: int,
    snapshots: int,
    families: Sequence[str] | None,
    shares: Mapping[str, tuple[float, float, float]] | None,
    suspects: bool,
    leading: Sequence[str] = (HOMOLOGOUS,),
    others: Sequence[str] = ANOTHER_ARCHITECTURE_OR_DATA,
    unfit: Mapping[str, str] = MappingProxyType({}),
) -> tuple[PlannedModel, ...]:
    """Return the plan of a zoo, positives first; the same arguments give the same plan.

    positives, negatives: numbers of training runs.
    architectures: number of architectures, the owner's included.
    snapshots: copies to keep of each run that is optimised on.
    families: names of the obfuscations; None for all that suit the task and are not unfit.
    unfit: names of obfuscations that do not fit the owner's model, each with the reason.
    shares: see `build_zoo`; None for DEFAULT_SHARES.
    suspects: whether test suspects are planned instead of surrogates.
    leading: families of the independent models that every second one belongs to, in turn. Kindred ones are at least
        half of the independent models of every share.
    others: families of the rest, in turn; of other architectures only where there are some.

    A model's seed depends on its family and number alone, so that a larger zoo contains the smaller one.

    Raises ZooError without positives or negatives, ObfuscationError for families that do not fit task or owner.
    """
    for name, count in (("positives", positives), ("negatives", negatives), ("snapshots", snapshots)):
        remedy = "a meta-verifier learns from models of both kinds"
        whole_number(name, count, least=0 if name == "snapshots" else 1, remedy=remedy, error=ZooError)
    purpose = "suspects" if suspects else "zoo"
    chosen = _positive_families(task, families, architectures, unfit)
    drafts = [_positive(chosen, number, architectures, seed, purpose, suspects) for number in range(positives)]
    attacks = (
        ()
        if suspects or negatives < FEWEST_WITH_ATTACKED
        else tuple(entry for entry in chosen if entry.own_architecture)
    )
    wanted = {is_positive: wanted_shares(shares, is_positive) for is_positive in (True, False)}
    order = _family_order(negatives, architectures, leading, others, None if suspects else wanted[False])
    drafts += _negatives(order, architectures, seed, purpose, attacks)
    return _with_shares(drafts, wanted, _snapshot_fractions(snapshots), suspects)


def _with_shares(
    drafts: Sequence[PlannedModel],
    wanted: Mapping[bool, tuple[float, float, float]],
    fractions: tuple[float, ...],
    suspects: bool,
) -> tuple[PlannedModel, ...]:
    """Return the models with the share of each, and with snapshots at `fractions` where any are taken.

    wanted: fractions of the three shares, of negatives (False) and positives (True).
    """
    plan: list[PlannedModel] = []
    for is_positive in (True, False):
        group = [draft for draft in drafts if draft.is_positive == is_positive]
        names = ["test"] * len(group) if suspects else assigned_shares(group, wanted[is_positive])
        for draft, share in zip(group, names, strict=True):
            trains = not is_positive or OBFUSCATIONS[draft.family].needs_training
            kept = fractions if trains and draft.family not in WHOLE and share in ("optimize", "test") else ()
            plan.append(replace(draft, share=share, snapshots=kept))
    return tuple(plan)


def _positive_families(
    task: Task, families: Sequence[str] | None, architectures: int, unfit: Mapping[str, str]
) -> list[Obfuscation]:
    if families is None:
        supported = [entry for entry in OBFUSCATIONS.values() if entry.supports(task) and entry.family not in unfit]
        return [entry for entry in supported if entry.own_architecture or architectures > 1]
    unknown = [name for name in families if name not in OBFUSCATIONS]
    if unknown or not families:
        raise ZooError(f"families must name at least one of {', '.join(OBFUSCATIONS)}; got {list(families)}")
    chosen = [OBFUSCATIONS[name] for name in dict.fromkeys(families)]
    for entry in chosen:
        if not entry.supports(task):
            raise ObfuscationError(
                f"{entry.family} makes no sense for a {task.name} task, only for {', '.join(entry.needs.kinds)}; "
                "leave it out of families"
            )
        if entry.family in unfit:
            raise ObfuscationError(
                f"{entry.family} does not fit the owner's model: {unfit[entry.family]}; leave it out of families"
            )
        if not entry.own_architecture and architectures < 2:
            raise ZooError(f"{entry.family} needs another architecture than the owner's; pass architectures=[...]")
    return chosen


def _positive(
    chosen: Sequence[Obfuscation], number: int, architectures: int, seed: int, purpose: str, suspects: bool
) -> PlannedModel:
    entry, round_ = chosen[number % len(chosen)], number // len(chosen)
    grid = entry.suspect_strengths if suspects else entry.zoo_strengths
    # each family starts at another strength, so that even a zoo with one model per family has weak and strong ones
    offset = entry.first_turn
    architecture = 0
    if entry.other_architecture and architectures > 1 and (round_ % 2 == 1 or not entry.own_architecture):
        turn = round_ // 2 if entry.own_architecture else round_
        architecture = 1 + (turn + offset) % (architectures - 1)
    own_seed = derive_seed(seed, purpose, entry.family, round_)
    return PlannedModel(
        is_positive=True,
        family=entry.family,
        strength=grid[(round_ + offset) % len(grid)],
        seed=own_seed,
        run=f"{purpose}-{seed}/{entry.family}/{round_}",
        share="",
        architecture=architecture,
        snapshots=(),
        varied=entry.needs_training and not suspects and is_drawn(own_seed, "varied", VARIED_POSITIVES),
    )


def _family_order(
    count: int,
    architectures: int,
    leading: Sequence[str],
    others: Sequence[str],
    wanted: tuple[float, float, float] | None,
) -> list[str]:
    """Return the families of the independent models in order: the first and every second one is a leading one.

    wanted: fractions of the shares, each of which holds at least half kindred models where there are any; None for
        suspects.
    """
    others = [family for family in others if family != OTHER_ARCHITECTURE or architectures > 1]
    first = (count + 1) // 2
    if KINDRED in leading and wanted is not None:
        first = sum(_kindred_sizes(share_sizes(count, wanted)).values())
    order: list[str] = []
    for index in range(count):
        place, rest = index // 2, count - first
        if index % 2 == 0 or place >= rest:
            order.append(leading[(place if place < rest else index - rest) % len(leading)])
        else:
            order.append(others[place % len(others)])
    return order


def _kindred_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return how many kindred models each share gets: half of its independent models, rounded up."""
    return {name: (size + 1) // 2 for name, size in sizes.items()}


def _negatives(
    order: Sequence[str], architectures: int, seed: int, purpose: str, attacks: Sequence[Obfuscation]
) -> list[PlannedModel]:
    """Return the independent models, of the families in `order`; some of the homologous ones are attacked."""
    numbers = dict.fromkeys(order, 0)
    drafts = []
    for family in order:
        number = numbers[family]
        numbers[family] += 1
        own_seed = derive_seed(seed, purpose, family, number)
        drafts.append(
            PlannedModel(
                is_positive=False,
                family=family,
                strength=None,
                seed=own_seed,
                run=f"{purpose}-{seed}/{family}/{number}",
                share="",
                architecture=1 + number % (architectures - 1) if family == OTHER_ARCHITECTURE else 0,
                snapshots=(),
                varied=purpose == "zoo" and is_drawn(own_seed, "varied", VARIED.get(family, 0.0)),
                attack=_attack(own_seed, attacks) if attacks and family in (HOMOLOGOUS, KINDRED) else None,
            )
        )
    return drafts


def _attack(seed: int, attacks: Sequence[Obfuscation]) -> tuple[str, float] | None:
    """Return the obfuscation of an independent model and its strength, chosen at random; None for most models."""
    if not is_drawn(seed, "attacked", ATTACKED_HOMOLOGOUS):
        return None
    # no obfuscation leaves a stronger trace than training on another model's answers: half of the attacked models are
    # such students
    students = [entry for entry in attacks if entry.makes_student]
    chosen = students if students and derive_seed(seed, "attacked by a student") % 2 else attacks
    entry = chosen[derive_seed(seed, "attack") % len(chosen)]
    return entry.family, entry.zoo_strengths[derive_seed(seed, "attack strength") % len(entry.zoo_strengths)]


def is_drawn(seed: int, purpose: str, share: float) -> bool:
    """Return whether a run belongs to a random share of all runs, drawn anew for each purpose."""
    return derive_seed(seed, purpose) % 1000 < 1000 * share


def wanted_shares(
    shares: Mapping[str, tuple[float, float, float]] | None, is_positive: bool
) -> tuple[float, float, float]:
    """Return the fractions of the three shares for one class of models, in the order of SHARES, after a check.

    shares: see `build_zoo`; None for DEFAULT_SHARES.
    """
    side = "positive" if is_positive else "negative"
    wanted = tuple((shares or {}).get(side, DEFAULT_SHARES[side]))
    if len(wanted) != 3 or any(part < 0 for part in wanted) or not math.isclose(sum(wanted), 1.0, abs_tol=1e-6):
        raise ZooError(f"shares[{side!r}] must be three fractions for {SHARES} that add up to 1, got {wanted}")
    return wanted


def assigned_shares(group: Sequence[PlannedModel], wanted: tuple[float, float, float]) -> list[str]:
    """Return the share of each model of one class: sizes as wanted, kindred models at least half of each share.

    wanted: fractions of the three shares, in the order of SHARES.
    """
    sizes = share_sizes(len(group), wanted)
    kindred = [model for model in group if model.family == KINDRED]
    if not kindred:
        return _assigned(group, sizes, wanted)
    own = _kindred_sizes(sizes)
    rest = {name: size - own[name] for name, size in sizes.items()}
    others = [model for model in group if model.family != KINDRED]
    names = {model.run: name for model, name in zip(kindred, _assigned(kindred, own, wanted), strict=True)}
    names |= {model.run: name for model, name in zip(others, _assigned(others, rest, wanted), strict=True)}
    return [names[model.run] for model in group]


def _assigned(group: Sequence[PlannedModel], sizes: Mapping[str, int], wanted: tuple[float, float, float]) -> list[str]:
    """Return the share of each model: sizes as given, every share with as many families as it can hold."""
    left = dict(sizes)
    order = {"optimize": 0, "calibrate": 1, "select": 2}
    seen: dict[str, set[str]] = {name: set() for name in SHARES}
    names: list[str] = []
    for model in group:
        free = [name for name in SHARES if left[name] > 0]
        missing = [name for name in free if model.family not in seen[name]]
        if missing:
            name = min(missing, key=order.__getitem__)
        else:
            total = dict(zip(SHARES, wanted, strict=True))
            name = max(free, key=lambda candidate: (left[candidate] / total[candidate], -order[candidate]))
        left[name] -= 1
        seen[name].add(model.family)
        names.append(name)
    return names


def share_sizes(count: int, wanted: tuple[float, float, float]) -> dict[str, int]:
    """Return how many of `count` models each share gets, as whole numbers by largest remainder.

    wanted: fractions of the three shares, in the order of SHARES.

    Of few models "optimize" gets the first, "calibrate" the next.
    """
    exact = {name: part * count for name, part in zip(SHARES, wanted, strict=True)}
    sizes = {name: int(value) for name, value in exact.items()}
    for name in sorted(SHARES, key=lambda name: sizes[name] - exact[name])[: count - sum(sizes.values())]:
        sizes[name] += 1
    for name in ("optimize", "calibrate", "select")[:count]:
        largest = max(sizes, key=lambda candidate: sizes[candidate])
        if exact[name] > 0 and sizes[name] == 0 and sizes[largest] > 1:
            sizes[largest] -= 1
            sizes[name] += 1
    if count == 1:
        sizes = {"optimize": 1, "select": 0, "calibrate": 0}
    return sizes


def _snapshot_fractions(count: int) -> tuple[float, ...]:
    """Return `count` shares of a training, evenly from 35 to 85 % (LiteGuard, ICLR 2026); 60 % for a single one."""
    if count == 1:
        return (0.6,)
    return tuple(round(0.35 + 0.5 * index / (count - 1), 4) for index in range(count))
