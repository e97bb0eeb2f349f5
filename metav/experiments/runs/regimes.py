"""The conditions that an experiment is run under: which surrogates, which options, and what lies before the suspect.

A regime is one element of the list that its group's function returns; a group is such a function and a row of
REGIME_GROUPS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

from metav.errors import InputError, ZooError
from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.experiments.runs.zoo_variants import TASKS_OWN, TOLD, UNTOLD
from metav.experiments.scenarios.scales import Scale
from metav.experiments.suspects.degradations import InputChange, OutputAccess, through_channel
from metav.obfuscations.registry import OBFUSCATIONS
from metav.optimization.options import OptimizationOptions
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.plan import (
    DEFAULT_SHARES,
    FEWEST_WITH_ATTACKED,
    HOMOLOGOUS,
    KINDRED,
    OTHER_ARCHITECTURE,
    OTHER_DATA,
    SHARES,
    share_sizes,
)
from metav.zoo.untrained_copies import COPIES, OWNER_COPIES, with_untrained_copies
from metav.zoo.zoo import Zoo, ZooModel

FEW_FAMILIES = ("retrain_all", "distill_same", "finetune_all")
"""The derived model that each share gets in `few`, in the order of SHARES, where the zoo has it: what an owner would
train who can afford three, the one that changes most first. The independent ones are of the owner's own kind."""


NOISE = OutputAccess(kind="noise", parameter=0.02)
ROUNDING = OutputAccess(kind="round", parameter=2)
TOP_THREE = OutputAccess(kind="topk", parameter=3)
LABELS = OutputAccess(kind="label")

FREE, COMPETENCE, NOVELTY, THRESHOLD = "free negatives", "competence", "novelty", "threshold by independents"
LACKS = (FREE, COMPETENCE, NOVELTY, THRESHOLD)
"""Parts of the method that `Regime.lacks` may name: negatives that cost no training; the demand that a match does the
task; the demand that it answers like some calibration model; a threshold that looks at independent models alone."""

CLASS_FORMS: Mapping[str, OutputAccess] = MappingProxyType(
    {
        "percent": OutputAccess(kind="scaled", parameter=100.0),
        "one-hot": LABELS,
        "percent rounded": OutputAccess(kind="whole_percent"),
        "3 decimals": OutputAccess(kind="round", parameter=3),
        "2 decimals": ROUNDING,
        "1 decimal": OutputAccess(kind="round", parameter=1),
        "top 3": OutputAccess(kind="top_alone", parameter=3),
        "top 1": OutputAccess(kind="top_alone", parameter=1),
        "clipped": OutputAccess(kind="clipped", parameter=0.02),
        "logits x 0.4": OutputAccess(kind="sharpened", parameter=0.4),
        "logits x 0.7": OutputAccess(kind="sharpened", parameter=0.7),
        "logits x 1.7": OutputAccess(kind="sharpened", parameter=1.7),
        "logits x 4": OutputAccess(kind="sharpened", parameter=4.0),
        "one entry below 0": OutputAccess(kind="below_zero", parameter=1e-9),
        "other columns": OutputAccess(kind="other_columns", parameter=17),
        "rows reversed": OutputAccess(kind="reversed"),
    }
)
"""Forms in which a classifier's answers come, by what tables call them."""
NUMBER_FORMS: Mapping[str, OutputAccess] = MappingProxyType(
    {
        "x 40": OutputAccess(kind="scaled", parameter=40.0),
        "other unit": OutputAccess(kind="shifted", parameter=17.0),
        "x 0.03": OutputAccess(kind="scaled", parameter=0.03),
        "x -1": OutputAccess(kind="scaled", parameter=-1.0),
        "2 decimals": ROUNDING,
        "1 decimal": OutputAccess(kind="round", parameter=1),
        "rows reversed": OutputAccess(kind="reversed"),
    }
)
"""Forms in which numbers come."""
SAMPLE_FORMS: Mapping[str, OutputAccess] = MappingProxyType(
    {
        "0 to 255": OutputAccess(kind="scaled", parameter=255.0),
        "2 decimals": ROUNDING,
        "other range": OutputAccess(kind="shifted", parameter=0.5),
        "rows reversed": OutputAccess(kind="reversed"),
    }
)
"""Forms in which samples come."""
OTHER_FORM: Mapping[str, OutputAccess] = MappingProxyType(
    {
        "classification": OutputAccess(kind="sharpened", parameter=2.5),
        "regression": OutputAccess(kind="shifted", parameter=6.0),
        "generation": OutputAccess(kind="scaled", parameter=255.0),
    }
)
"""The form in which honest suspects answer a second time among those of "every kind", by the kind of task."""

LABEL_QUERIES = 30
"""Queries of a second fingerprint for labels alone, where `full` has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """One condition; what it leaves at its default is as in `full`.

    name: "group" or "group:detail", with a group of REGIME_GROUPS.
    without: families absent from the zoo.
    few: whether each share of the zoo has one trained model of each class (FEW_FAMILIES), with its snapshots.
    copies: how many untrained ones of the owner's model, and of each independent one, metav gets on top.
    surrogates: training runs of each class.
    queries: their number.
    view: how answers are read.
    levels: values that a feature of a query may take.
    output, inputs: the channel to every suspect.
    recipe: what metav is told of how the owner trained: "told", "untold" (nothing), or "task's own" (nothing, and all
        surrogates train by the task's own loop, as before there were recipes).
    from_base: whether the owner fine-tunes a public base, from which honest others start as well.
    suspects: which are asked: "all", "sample" (some of each class), "nonsense" (some derived ones and what is no model
        of the task), or "every kind" (all, nonsense, and honest ones in another form).
    lacks: parts of the method that are left out, of LACKS.
    """

    name: str
    without: tuple[str, ...] = ()
    few: bool = False
    copies: tuple[int, int] | None = None
    surrogates: int | None = None
    queries: int | None = None
    view: str | None = None
    levels: int | None = None
    output: OutputAccess | None = None
    inputs: InputChange | None = None
    recipe: str = TOLD
    from_base: bool = False
    suspects: str = "all"
    lacks: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Return the name of the group that the regime belongs to."""
        return self.name.partition(":")[0]

    @property
    def detail(self) -> str:
        """Return what stands behind the group, or nothing."""
        return self.name.partition(":")[2]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self) | {"without": list(self.without), "lacks": list(self.lacks)}

    def fingerprint_settings(self) -> dict[str, Any]:
        """Return what the fingerprint depends on; regimes that agree in it share one fingerprint."""
        names = ("few", "copies", "surrogates", "queries", "view", "levels", "recipe", "from_base")
        found = {name: getattr(self, name) for name in names} | {"without": list(self.without)}
        return found | {"free_negatives": FREE not in self.lacks}

    def choose_zoo(self, zoo: Zoo, seed: int) -> Zoo:
        """Return the surrogates of this regime. Raises ZooError where they do not suffice."""
        models = tuple(
            entry for entry in zoo.models if entry.family not in self.without and entry.attack not in self.without
        )
        if self.few:
            once = dict.fromkeys(SHARES, 1)
            models = _drawn(_most_telling(models), once, once, seed)
        elif self.surrogates is not None:
            wanted = [share_sizes(self.surrogates, DEFAULT_SHARES[side]) for side in ("positive", "negative")]
            models = _drawn(models, wanted[0], wanted[1], seed)
        return replace(zoo, models=models, free=() if FREE in self.lacks else zoo.free)

    def augment(self, zoo: Zoo, owner: nn.Module, task: Task, seed: int) -> Zoo:
        """Return the chosen surrogates and their untrained copies."""
        if self.copies is None:
            return zoo
        owner_copies, copies = self.copies
        return with_untrained_copies(zoo, owner, task, owner_copies=owner_copies, copies=copies, seed=seed)

    def choose_options(self, options: OptimizationOptions) -> OptimizationOptions:
        """Return the options of this regime."""
        changes = {name: getattr(self, name) for name in ("queries", "view", "levels")}
        return replace(options, **{name: value for name, value in changes.items() if value is not None})

    def choose_suspect(self, model: nn.Module, task: Task, seed: int) -> nn.Module | Callable[[Tensor], Tensor]:
        """Return the suspect as it can be asked in this regime."""
        return through_channel(model, task, output=self.output, inputs=self.inputs, seed=seed)


def all_regimes(task: Task, scale: Scale) -> tuple[Regime, ...]:
    """Return every regime that makes sense for a task, at the sizes of a scale, in the order of REGIME_GROUPS."""
    return tuple(regime for group in REGIME_GROUPS.values() for regime in group.load_maker()(task, scale))


def select_regimes(regimes: Sequence[Regime], wanted: Sequence[str]) -> tuple[Regime, ...]:
    """Return the regimes of these names or groups, in their own order; all if none is named.

    Raises InputError for names that none has.
    """
    known = {regime.name for regime in regimes} | {regime.group for regime in regimes}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        groups = ", ".join(dict.fromkeys(regime.group for regime in regimes))
        raise InputError(
            f"there is no regime {', '.join(unknown)} for this task and scale; groups are {groups}, single regimes "
            f"{', '.join(regime.name for regime in regimes)}"
        )
    return tuple(regime for regime in regimes if not wanted or regime.name in wanted or regime.group in wanted)


def full_zoo(task: Task, scale: Scale) -> list[Regime]:
    """Make the regime that changes nothing."""
    return [Regime(name="full")]


def few_surrogates(task: Task, scale: Scale) -> list[Regime]:
    """Make the regime of an owner who trains three models of each class."""
    return [Regime(name="few", few=True, copies=(OWNER_COPIES, COPIES))]


def recipes_told(task: Task, scale: Scale) -> list[Regime]:
    """Make the regimes of an owner who tells how the model was trained, and of one who does not."""
    wanted = (TOLD, UNTOLD) if scale.ablations else ()
    return [Regime(name=f"recipe:{recipe}", recipe=recipe) for recipe in wanted]


def public_base(task: Task, scale: Scale) -> list[Regime]:
    """Make the regimes of an owner who fine-tunes a public base, telling so or not."""
    wanted = (TOLD, UNTOLD) if scale.base else ()
    return [Regime(name=f"base:{recipe}", recipe=recipe, from_base=True) for recipe in wanted]


def forms_of_answers(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each form in which some suspects answer, of which the fingerprint does not know."""
    forms = CLASS_FORMS if task.kind.answers_classes else SAMPLE_FORMS if task.kind.inputs_are_latents else NUMBER_FORMS
    return [
        Regime(name=f"form:{name}", output=output, suspects="sample")
        for name, output in list(forms.items())[: scale.forms]
    ]


def nonsense(task: Task, scale: Scale) -> list[Regime]:
    """Make the regime of suspects that are no model of the task at all."""
    return [Regime(name="nonsense", suspects="nonsense")]


def ablations(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each part of the method, without which it judges suspects of every kind; one has them all."""
    if not scale.ablations:
        return []
    changes: dict[str, dict[str, Any]] = {
        "nothing": {},
        "told recipe": {"recipe": UNTOLD},
        "all recipes": {"recipe": TASKS_OWN},
        **({"division by spread": {"view": "logprob"}} if task.kind.answers_classes else {}),
        **{name: {"lacks": (name,)} for name in LACKS},
    }
    return [Regime(name=f"ablation:{name}", suspects="every kind", **change) for name, change in changes.items()]


def families_left_out(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for all students together, and one for each family that a zoo can do without."""
    families = [entry.family for entry in OBFUSCATIONS.values() if entry.supports(task)]
    students = tuple(family for family in families if OBFUSCATIONS[family].makes_student)
    regimes = [Regime(name="without:students", without=students)]
    if scale.every_family:
        # negatives of the owner's own class and data stay: without them no zoo is worth its name
        absent = [*families, OTHER_ARCHITECTURE, OTHER_DATA]
        regimes += [Regime(name=f"without:{family}", without=(family,)) for family in absent]
    return regimes


def numbers_of_queries(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each number of queries of the scale."""
    return [Regime(name=f"queries:{count}", queries=count) for count in scale.query_counts]


def numbers_of_surrogates(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each number of surrogates of the scale that its zoo holds."""
    counts = [count for count in scale.surrogate_counts if count <= scale.surrogates]
    return [Regime(name=f"surrogates:{count}", surrogates=count) for count in counts]


def output_accesses(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each form in which answers may come back, the fingerprint being made for it."""
    if not task.kind.answers_classes:
        return [
            Regime(name="output:round2", view="identity_round(2)", output=ROUNDING),
            Regime(name="output:noisy", output=NOISE),
        ]
    few = [Regime(name=f"output:label-{LABEL_QUERIES}", view="label", queries=LABEL_QUERIES, output=LABELS)]
    return [
        Regime(name="output:round2", view="round(2)", output=ROUNDING),
        Regime(name="output:top3", view="topk(3)", output=TOP_THREE),
        Regime(name="output:label", view="label", output=LABELS),
        *(few if scale.queries > LABEL_QUERIES else []),
        # a view whose floor lies above the noise: logarithms of smaller probabilities would be noise alone
        Regime(name="output:noisy", view="round(1)", output=NOISE),
    ]


def one_for_all_accesses(task: Task, scale: Scale) -> list[Regime]:
    """Make the regimes of one fingerprint that is made for labels alone, and asks suspects that answer more."""
    if not task.kind.answers_classes:
        return []
    channels = {"scores": None, "round2": ROUNDING, "top3": TOP_THREE, "label": LABELS}
    return [Regime(name=f"one:{name}", view="label", output=output) for name, output in channels.items()]


def transports(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each kind of file that queries travel as; they are made of what files hold."""
    if len(task.input_shape) != 3:
        return []
    return [
        Regime(name="transport:8bit", levels=256, inputs=InputChange(kind="8bit")),
        Regime(name="transport:jpeg", levels=256, inputs=InputChange(kind="jpeg", parameter=90)),
    ]


def changes_in_front(task: Task, scale: Scale) -> list[Regime]:
    """Make a regime for each change of queries in front of the suspect, of which the fingerprint does not know."""
    noise = Regime(name="front:noise", inputs=InputChange(kind="noise", parameter=0.03))
    if len(task.input_shape) != 3:
        return [noise]
    return [
        noise,
        Regime(name="front:blur", inputs=InputChange(kind="blur", parameter=0.6)),
        Regime(name="front:resize", inputs=InputChange(kind="resize", parameter=0.75)),
    ]


def leaked_queries(task: Task, scale: Scale) -> list[Regime]:
    """Make the regime of a thief who holds the fingerprint's queries, and whose models have unlearned them."""
    return [Regime(name="leaked")]


def _drawn(
    models: Sequence[ZooModel], positives: dict[str, int], negatives: dict[str, int], seed: int
) -> tuple[ZooModel, ...]:
    """Return the models of randomly drawn runs, so many of each class in each share, families taking turns."""
    if sum(negatives.values()) < FEWEST_WITH_ATTACKED:
        models = [entry for entry in models if entry.attack is None]
    kept: set[str] = set()
    for is_positive, wanted in ((True, positives), (False, negatives)):
        for share, count in wanted.items():
            families: dict[str, dict[str, None]] = {}
            for entry in models:
                if entry.is_positive is is_positive and entry.share == share:
                    families.setdefault(entry.family, {})[entry.run] = None
            random = np.random.default_rng(derive_seed(seed, "drawn", share, str(is_positive)))
            runs = _in_turn([list(random.permutation(list(runs))) for runs in families.values()], random)
            if len(runs) < count:
                kind = "positives" if is_positive else "negatives"
                raise ZooError(
                    f"the zoo's {share!r} share has {len(runs)} {kind}, expected {count}; build a larger zoo"
                )
            kept.update(runs[:count])
    return tuple(entry for entry in models if entry.run in kept)


def _most_telling(models: Sequence[ZooModel]) -> tuple[ZooModel, ...]:
    """Return what `few` draws from: in each share and class one family, the first there is by preference."""
    trained = [name for name, entry in OBFUSCATIONS.items() if entry.needs_training]
    wished: dict[tuple[str, bool], str | None] = {}
    for place, share in enumerate(SHARES):
        order = (*FEW_FAMILIES[place:], *FEW_FAMILIES[:place], *trained, KINDRED, HOMOLOGOUS)
        for is_positive in (True, False):
            found = {entry.family for entry in models if (entry.share, entry.is_positive) == (share, is_positive)}
            wished[share, is_positive] = next((name for name in order if name in found), None)
    return tuple(entry for entry in models if wished[entry.share, entry.is_positive] in (None, entry.family))


def _in_turn(queues: list[list[str]], random: np.random.Generator) -> list[str]:
    """Return all entries, one queue after the other in random order."""
    order = random.permutation(len(queues))
    longest = max(map(len, queues), default=0)
    return [str(queues[place][turn]) for turn in range(longest) for place in order if turn < len(queues[place])]
