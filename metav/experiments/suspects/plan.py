"""Which test suspects an experiment judges: obfuscations, attacks, independents and attacked independents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from torch import nn

from metav.errors import InputError, ObfuscationError
from metav.experiments.attacks.registry import ATTACKS, Attack, supported_stacks
from metav.experiments.suspects.honest import KINDRED_OTHER_DATA, PlannedHonest, plan_honest
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.classical_suspects import takes_classical
from metav.zoo.plan import (
    CLASSICAL,
    HOMOLOGOUS,
    KINDRED,
    OTHER_ARCHITECTURE,
    OTHER_DATA,
    OTHER_RECIPE,
    PlannedModel,
    plan_zoo,
)

STACKED = "stacked"
ATTACKED = "attacked_independent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectCounts:
    """How many suspects of each kind there are.

    rounds: how often each obfuscation and attack comes, each time with another strength or architecture.
    families, attacks: the obfuscations and attacks to use, in this order; None: all.
    most_attacks: how many of the attacks are used, at most; None: all.
    stacks: pairs of obfuscations, at most.
    homologous, other_architecture, other_data, attacked: independent models. Where the owners' recipes are told, plain
        loops train those of other architectures and data, and half of those that are attacked.
    kindred, kindred_other_data, other_recipe: independent models by the owner's recipe, by it on the thief's data, and
        by other plain loops; none where no recipes are told.
    classical: scikit-learn's models, where the task's inputs allow them.
    epochs: factor on the epochs of all trainings.
    """

    rounds: int
    families: tuple[str, ...] | None = None
    attacks: tuple[str, ...] | None = None
    most_attacks: int | None = None
    stacks: int
    homologous: int
    other_architecture: int
    other_data: int
    attacked: int
    kindred: int = 0
    kindred_other_data: int = 0
    other_recipe: int = 0
    classical: int = 0
    epochs: float = 1.0


SUSPECT_COUNTS: Mapping[str, SuspectCounts] = MappingProxyType(
    {
        # About 12 + 12, a look at everything that is quick.
        "smoke": SuspectCounts(
            rounds=1,
            families=("weight_prune", "finetune_last", "quantize", "distill_other", "extract_scores"),
            attacks=(
                "rotate_latent",
                "unlearn_with_decoy",
                "removal_net",
                "knockoff",
                "fine_prune",
                "permute_neurons",
                "jbda",
                "permute_latent",
                "double_distill",
            ),
            most_attacks=6,
            stacks=1,
            homologous=6,
            other_architecture=2,
            other_data=2,
            attacked=2,
            epochs=0.4,
        ),
        "small": SuspectCounts(
            rounds=1,
            stacks=3,
            homologous=10,
            other_architecture=12,
            other_data=8,
            attacked=12,
            kindred=30,
            kindred_other_data=10,
            other_recipe=16,
            classical=8,
        ),
        "paper": SuspectCounts(
            rounds=3,
            stacks=10,
            homologous=30,
            other_architecture=24,
            other_data=24,
            attacked=28,
            kindred=100,
            kindred_other_data=24,
            other_recipe=32,
            classical=16,
        ),
    }
)
"""The numbers of each scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAttack:
    """One attacked model to be.

    attacks: names of ATTACKS or OBFUSCATIONS, done one after the other.
    architecture: index of the result's among the context's; 0 is the owner's own.
    base: the independent model that is attacked; None for the owner's.
    """

    is_positive: bool
    family: str
    attacks: tuple[str, ...]
    strength: float
    seed: int
    run: str
    architecture: int
    base: PlannedModel | PlannedHonest | None = None


AnySuspect: TypeAlias = PlannedModel | PlannedAttack | PlannedHonest
"""Any planned suspect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectPlan:
    """The training runs of a set of suspects.

    plain: obfuscations and independent models, all trained in the task's own way.
    attacks: what comes on top.
    honest: independent models trained by plain loops.
    classical: scikit-learn's, which are fitted.
    """

    plain: tuple[PlannedModel, ...]
    attacks: tuple[PlannedAttack, ...]
    honest: tuple[PlannedHonest, ...] = ()
    classical: tuple[PlannedModel, ...] = ()

    @property
    def runs(self) -> tuple[AnySuspect, ...]:
        """Return all runs, those that give derived suspects first."""
        every: tuple[AnySuspect, ...] = (*self.plain, *self.honest, *self.classical, *self.attacks)
        return tuple(sorted(every, key=lambda planned: not planned.is_positive))

    def of_families(self, families: Collection[str]) -> SuspectPlan:
        """Return the runs of these families alone. Raises InputError where there are none."""
        chosen = SuspectPlan(
            plain=tuple(planned for planned in self.plain if planned.family in families),
            attacks=tuple(planned for planned in self.attacks if planned.family in families),
            honest=tuple(planned for planned in self.honest if planned.family in families),
            classical=tuple(planned for planned in self.classical if planned.family in families),
        )
        if not chosen.runs:
            known = ", ".join(dict.fromkeys(planned.family for planned in self.runs))
            raise InputError(f"families must name some of {known}, got {', '.join(families) or 'none'}")
        return chosen


def counts_of(scale: str | SuspectCounts) -> SuspectCounts:
    """Return the numbers of a scale; numbers are returned as they are. Raises InputError for an unknown scale."""
    if isinstance(scale, SuspectCounts):
        return scale
    if scale not in SUSPECT_COUNTS:
        raise InputError(f"scale must be one of {', '.join(SUSPECT_COUNTS)}, or a SuspectCounts, got {scale!r}")
    return SUSPECT_COUNTS[scale]


def plan_suspects(
    owner: nn.Module,
    task: Task,
    counts: SuspectCounts,
    *,
    architectures: int,
    seed: int,
    leaked: bool,
    recipes: int = 0,
    has_other_data: bool = False,
) -> SuspectPlan:
    """Plan the suspects; the same arguments give the same plan, and a larger scale holds the runs of a smaller one.

    Left out are attacks that make no sense for the task, and rewritings that find nothing to rewrite in this owner.

    architectures: their number, the owner's own included.
    leaked: whether the fingerprint's queries are at hand for the attacks that need them.
    recipes: number of plain loops that honest suspects are trained by, the owner's first; 0 for none.
    has_other_data: whether there are data of another source for them.
    """
    supported = [
        name
        for name in counts.families or OBFUSCATIONS
        if OBFUSCATIONS[name].supports(task) and (OBFUSCATIONS[name].own_architecture or architectures > 1)
    ]
    drafts = plan_zoo(
        task,
        positives=counts.rounds * len(supported),
        negatives=2 * max(counts.homologous, 2 * counts.other_architecture, 2 * counts.other_data),
        architectures=architectures,
        seed=seed,
        snapshots=0,
        families=supported,
        shares=None,
        suspects=True,
    )
    others = {OTHER_ARCHITECTURE: counts.other_architecture, OTHER_DATA: counts.other_data}
    negatives = {HOMOLOGOUS: counts.homologous} | ({} if recipes else others)
    honest = _honest(counts, others, recipes, architectures, has_other_data, seed)
    plain = [draft for draft in drafts if draft.is_positive]
    for family, count in negatives.items():
        plain += [draft for draft in drafts if draft.family == family][:count]
    attacks = [
        *_single(owner, task, counts, architectures, seed, leaked),
        *_stacked(task, counts, architectures, seed),
        *_attacked(_bases(plain, honest), supported, counts, architectures, seed),
    ]
    return SuspectPlan(
        plain=tuple(plain),
        attacks=tuple(attacks),
        honest=tuple(honest),
        classical=tuple(_classical(counts, seed) if takes_classical(task) else ()),
    )


def _honest(
    counts: SuspectCounts, others: Mapping[str, int], recipes: int, architectures: int, other: bool, seed: int
) -> list[PlannedHonest]:
    if not recipes:
        return []
    wanted = {
        KINDRED: counts.kindred,
        KINDRED_OTHER_DATA: counts.kindred_other_data,
        OTHER_RECIPE: counts.other_recipe,
        **others,
    }
    return plan_honest(wanted, recipes=recipes, architectures=architectures, has_other_data=other, seed=seed)


def _classical(counts: SuspectCounts, seed: int) -> list[PlannedModel]:
    return [
        PlannedModel(
            is_positive=False,
            family=CLASSICAL,
            strength=None,
            seed=derive_seed(seed, "suspects", CLASSICAL, number),
            run=f"suspects-{seed}/{CLASSICAL}/{number}",
            share="test",
            architecture=0,
            snapshots=(),
        )
        for number in range(counts.classical)
    ]


def _bases(plain: Sequence[PlannedModel], honest: Sequence[PlannedHonest]) -> list[PlannedModel | PlannedHonest]:
    """Return the independent models to attack: of the owner's class, those of its recipe and others taking turns."""
    own = [entry for entry in plain if entry.family == HOMOLOGOUS]
    kindred = [entry for entry in honest if entry.family == KINDRED]
    if not own or not kindred:
        return [*own, *kindred]
    return [entry for pair in zip(kindred, own, strict=False) for entry in pair]


def _single(
    owner: nn.Module, task: Task, counts: SuspectCounts, architectures: int, seed: int, leaked: bool
) -> list[PlannedAttack]:
    chosen = [
        entry
        for entry in (ATTACKS[name] for name in counts.attacks or ATTACKS)
        if entry.supports(task)
        and (leaked or not entry.needs_queries)
        and (entry.own_architecture or architectures > 1)
        and _finds_something(entry, owner, task)
    ][: counts.most_attacks]
    return [
        _planned(entry, number, architectures, seed)
        for entry in chosen
        for number in range(_rounds(entry, counts, architectures))
    ]


def _rounds(entry: Attack, counts: SuspectCounts, architectures: int) -> int:
    """Return how often an attack comes: across architectures once for each, and never twice the same."""
    if not entry.own_architecture and counts.rounds > 1:
        return max(counts.rounds, architectures - 1)
    return min(counts.rounds, len(entry.strengths))


def _planned(entry: Attack, number: int, architectures: int, seed: int) -> PlannedAttack:
    architecture = 0
    if entry.other_architecture and architectures > 1 and (number % 2 == 1 or not entry.own_architecture):
        turn = number // 2 if entry.own_architecture else number
        architecture = 1 + (turn + list(ATTACKS).index(entry.family)) % (architectures - 1)
    return PlannedAttack(
        is_positive=True,
        family=entry.family,
        attacks=(entry.family,),
        strength=entry.strengths[(number + list(ATTACKS).index(entry.family)) % len(entry.strengths)],
        seed=derive_seed(seed, "suspects", entry.family, number),
        run=f"suspects-{seed}/{entry.family}/{number}",
        architecture=architecture,
    )


def _stacked(task: Task, counts: SuspectCounts, architectures: int, seed: int) -> list[PlannedAttack]:
    planned = []
    for number, pair in enumerate(supported_stacks(task)):
        new_class = not all(OBFUSCATIONS[family].own_architecture for family in pair)
        if new_class and architectures < 2:
            continue
        name = "+".join(pair)
        planned.append(
            PlannedAttack(
                is_positive=True,
                family=STACKED,
                attacks=pair,
                strength=(0.35, 0.65)[number % 2],
                seed=derive_seed(seed, "suspects", name),
                run=f"suspects-{seed}/{STACKED}/{name}",
                architecture=1 + number % (architectures - 1) if new_class else 0,
            )
        )
    return planned[: counts.stacks]


def _attacked(
    bases: Sequence[PlannedModel | PlannedHonest],
    supported: Sequence[str],
    counts: SuspectCounts,
    architectures: int,
    seed: int,
) -> list[PlannedAttack]:
    """Plan every obfuscation in turn, each on another independent model of the owner's class."""
    planned = []
    for number in range(counts.attacked if bases else 0):
        entry = OBFUSCATIONS[supported[number % len(supported)]]
        strengths = entry.suspect_strengths
        name = f"{entry.family}-{number}"
        planned.append(
            PlannedAttack(
                is_positive=False,
                family=ATTACKED,
                attacks=(entry.family,),
                strength=strengths[(number // len(supported) + number) % len(strengths)],
                seed=derive_seed(seed, "suspects", ATTACKED, name),
                run=f"suspects-{seed}/{ATTACKED}/{name}",
                architecture=0 if entry.own_architecture else 1 + number % (architectures - 1),
                base=bases[number % len(bases)],
            )
        )
    return planned


def _finds_something(entry: Attack, owner: nn.Module, task: Task) -> bool:
    """Return whether an attack that only rewrites weights can do so; others are not tried, since they train."""
    if entry.needs_training:
        return True
    try:
        entry.function(owner, task, strength=entry.strengths[0], seed=0)
    except ObfuscationError:
        return False
    return True
