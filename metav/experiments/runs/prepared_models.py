"""What all runs of one experiment share: the owner's model, its zoo and the test suspects, built once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metav.experiments.attacks.registry import LEAK_ATTACKS
from metav.experiments.runs.records import read_record, versions, write_record
from metav.experiments.runs.zoo_variants import TOLD, build_variant
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS, make_scenario
from metav.experiments.scenarios.scales import Scale, ScaleName
from metav.experiments.scenarios.scenario import Scenario
from metav.experiments.suspects.collection import SuspectCollection, build_test_suspects
from metav.experiments.suspects.plan import SUSPECT_COUNTS
from metav.models.architectures import build
from metav.models.identity import architecture_identity, state_digest
from metav.optimization.options import OptimizationOptions
from metav.support.clock import PhaseClock
from metav.support.json_values import plain
from metav.zoo.building import build_suspects
from metav.zoo.cache import TrainedModel, ZooCache, cache_key, pack, tensor_state
from metav.zoo.training import identity_of
from metav.zoo.zoo import Zoo

COMMON = ("seed", "cache", "jobs", "progress")
"""Options that zoos and suspects share."""

Say = Callable[[str], None]
Suspects = tuple[tuple[Any, bool, str], ...]
"""Test suspects: (model, is_positive, family)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One experiment: which task at which scale, on what, and where its files go.

    task: one of EXPERIMENT_TASKS.
    data: folder of the real data sets; None for tasks that need none.
    owner_seed: of the split of the data, the owner, its zoo and the suspects; decides the owner's recipe as well.
    cache: folder of trained models.
    output: folder of results.
    jobs: processes that train; -1 is one per core.
    device: where models are trained and run.
    progress: whether bars show; None: on a terminal.
    from_base: whether the owner fine-tunes a public base, from which honest others start as well.
    """

    task: str
    scale_name: ScaleName
    data: Path | None
    owner_seed: int
    cache: Path
    output: Path
    jobs: int = 1
    device: str = "cpu"
    progress: bool | None = None
    from_base: bool = False

    @property
    def scale(self) -> Scale:
        """Return the sizes."""
        return EXPERIMENT_TASKS[self.task].sizes[self.scale_name]

    @property
    def options(self) -> OptimizationOptions:
        """Return the options of the joint optimisation, before a regime changes them."""
        return OptimizationOptions(queries=self.scale.queries, **self.scale.options)

    @property
    def folder(self) -> Path:
        """Return the folder of this owner's results."""
        return self.output / f"{self.task}-{self.scale_name}" / f"owner{self.owner_seed}"

    def settings(self) -> dict[str, Any]:
        """Return what the results depend on, ready for JSON."""
        return {
            "task": self.task,
            "scale": self.scale_name,
            "owner_seed": self.owner_seed,
            "from_base": self.from_base,
            "device": self.device,
            "sizes": self.scale.to_dict(),
            "versions": versions(),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedModels:
    """Everything that is built once.

    suspects: all test suspects.
    record: what was built, and how long it took, ready for JSON.
    zoos: by what metav is told of the recipe (`zoo_variants.RECIPES`), as far as they were built.
    """

    plan: Plan
    scenario: Scenario
    owner: nn.Module
    suspects: Suspects
    record: dict[str, Any]
    zoos: dict[str, Zoo] = field(default_factory=dict)

    def zoo(self, recipe: str, say: Say = lambda text: None) -> Zoo:
        """Return the zoo of one kind, which is built when it is first needed."""
        if recipe not in self.zoos:
            say(f"{self.plan.task}: zoo, recipe {recipe}")
            self.zoos[recipe] = _zoo(self.scenario, self.owner, self.plan, recipe)
        return self.zoos[recipe]


def prepare_models(plan: Plan, say: Say = lambda text: None) -> PreparedModels:
    """Build, or take from the cache, the owner, the zoo and the suspects; what was stopped goes on where it was.

    Writes `materials.json` into the plan's folder: seconds add up over the sessions that it took.
    """
    scenario = scenario_of(plan)
    path = plan.folder / ("base-materials.json" if plan.from_base else "materials.json")
    with _timed(path, plan) as clock:
        say(f"{plan.task}: owner")
        with clock.phase("owner"):
            owner = load_owner(scenario, plan)
        say(f"{plan.task}: zoo of {plan.scale.surrogates} derived and {plan.scale.surrogates} independent surrogates")
        with clock.phase("zoo"):
            zoo = _zoo(scenario, owner, plan, TOLD)
        say(f"{plan.task}: suspects")
        with clock.phase("suspects"):
            suspects, summary = _suspects(scenario, owner, plan)
    about = {
        "owner_metric": scenario.test_metric(owner),
        "metric_unit": scenario.metric_unit,
        "owner_parameters": sum(parameter.numel() for parameter in owner.parameters()),
        "owner": state_digest(owner),
        "recipe": scenario.recipe.name,
        "zoo": zoo.summary(),
        "suspects": summary,
    }
    record = read_record(path) | about | {"complete": True}
    write_record(path, record)
    return PreparedModels(plan=plan, scenario=scenario, owner=owner, suspects=suspects, record=record, zoos={TOLD: zoo})


def scenario_of(plan: Plan) -> Scenario:
    """Return the scenario of a plan, without training anything but a public base where the owner starts from one."""
    scenario = make_scenario(plan.task, plan.data, plan.owner_seed, plan.scale)
    return scenario.from_public_base() if plan.from_base else scenario


def load_owner(scenario: Scenario, plan: Plan) -> nn.Module:
    """Return the owner's model, on the plan's device: from the cache, else trained and kept there."""
    store = ZooCache(plan.cache / plan.task)
    template = build(scenario.owner_architecture, 0)
    key = cache_key(
        {
            "owner of": scenario.name,
            "task": identity_of(scenario.task),
            "architecture": architecture_identity(template),
            "recipe": scenario.recipe.identity,
            "seed": plan.owner_seed,
            "device": plan.device,
        }
    )
    found = store.load(key)
    if found is not None:
        template.load_state_dict(dict(found.states[0]))
        return template.to(plan.device).eval()
    owner = scenario.owner_of_recipe(device=plan.device)
    trained = TrainedModel(
        states=(tensor_state(owner.state_dict()),),
        fractions=(1.0,),
        metrics=(float(scenario.task.metric(owner)),),
        strength=None,
    )
    store.store(key, pack(trained, key))
    return owner


def _zoo(scenario: Scenario, owner: nn.Module, plan: Plan, recipe: str) -> Zoo:
    options = {name: value for name, value in source_options(scenario, plan).items() if name in COMMON}
    sizes = (plan.scale.surrogates, plan.scale.snapshots)
    return build_variant(recipe, scenario, owner, device=plan.device, sizes=sizes, options=options)


def build_unlearned(materials: PreparedModels, queries: Tensor) -> tuple[Suspects, dict[str, Any]]:
    """Train the suspects of a thief who unlearns the fingerprint's queries; return them beside all independent ones.

    What the former are comes second, ready for JSON.

    queries: (n, *input).
    """
    chosen = {"attacks": LEAK_ATTACKS, "most_attacks": len(LEAK_ATTACKS)}
    built = _with_attacks(
        materials.scenario, materials.owner, materials.plan, chosen, queries=queries, families=LEAK_ATTACKS
    )
    independent = tuple(entry for entry in materials.suspects if not entry[1])
    return (*_bare(built.shipped), *independent), built.summary()


def _suspects(scenario: Scenario, owner: nn.Module, plan: Plan) -> tuple[Suspects, dict[str, Any]]:
    """Return the test suspects, and what they are, ready for JSON.

    They are plain where the scale counts them; else some are attacked, and those that lost too much for a thief to ship
    are left out.
    """
    count = plan.scale.suspects
    if count is not None:
        sources = source_options(scenario, plan)
        recipe = replace(scenario.recipe, device=plan.device)
        simple = build_suspects(owner, scenario.task, positives=count, negatives=count, recipe=recipe, **sources)
        return _bare(simple), simple.summary()
    built = _with_attacks(scenario, owner, plan, {})
    return _bare(built.shipped), built.summary()


def _with_attacks(
    scenario: Scenario, owner: nn.Module, plan: Plan, sizes: Mapping[str, Any], **options: Any
) -> SuspectCollection:
    """Build suspects with attacks, at the plan's sizes but for the given ones."""
    counts = replace(SUSPECT_COUNTS[plan.scale_name], **{**plan.scale.attack_sizes, **sizes})
    common = source_options(scenario, plan)
    recipes = (scenario.recipe, *scenario.other_recipes)
    return build_test_suspects(
        owner, scenario.task, test_task=scenario.test_task, scale=counts, recipes=recipes, **common, **options
    )


def _bare(suspects: Iterable[Any]) -> Suspects:
    return tuple((entry.model, entry.is_positive, entry.family) for entry in suspects)


def source_options(scenario: Scenario, plan: Plan) -> dict[str, Any]:
    """Return the options that all suspects share: architectures, data of others, seed, cache, jobs."""
    return {
        "architectures": scenario.suspect_architectures,
        "other_task": scenario.other_task,
        "thief_task": scenario.thief_task,
        "seed": plan.owner_seed,
        "cache": plan.cache / plan.task,
        "jobs": plan.jobs,
        "progress": plan.progress,
    }


@contextmanager
def _timed(path: Path, plan: Plan) -> Iterator[PhaseClock]:
    """Measure the seconds of each phase, added to those of stopped sessions and kept if this one is stopped, too."""
    settings = plain(plan.settings())  # as they come back from the file: tuples would differ from its lists
    old = read_record(path)
    same = old.get("settings") == settings
    if same and old.get("complete"):
        yield PhaseClock()
        return
    clock = PhaseClock(dict(old["seconds"]) if same else None)
    try:
        yield clock
    finally:
        write_record(path, {"settings": settings, "jobs": plan.jobs, "seconds": clock.seconds, "complete": False})
