"""How often honest models are accused: a thousand and more of them, of several tasks and owners, in one command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metav.experiments.runs.prepared_models import Plan, PreparedModels, Say, load_owner, scenario_of, source_options
from metav.experiments.runs.records import read_record, settings_key, versions, write_record
from metav.experiments.runs.regimes import Regime
from metav.experiments.runs.reproduction import make_fingerprint
from metav.experiments.runs.zoo_variants import TOLD, UNTOLD
from metav.experiments.scenarios.scales import ScaleName
from metav.experiments.suspects.collection import KnownSuspect, build_test_suspects
from metav.experiments.suspects.honest import HONEST_FAMILIES
from metav.experiments.suspects.plan import ATTACKED, SUSPECT_COUNTS, SuspectCounts
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.progress import progress_bar
from metav.verdicts.verification import verify
from metav.zoo.plan import HOMOLOGOUS

NAME = "accusations"
"""What `metav reproduce` calls this experiment."""

OWNERS: Mapping[str, tuple[int, ...]] = MappingProxyType({"digits": (1, 2, 3), "warfarin": (1, 2, 3)})
"""The owners of each task, one for each recipe. These tasks train models in about a second."""

HONEST_COUNTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "smoke": {"kindred": 3, "kindred_other_data": 1, "other_recipe": 2, "other_architecture": 2, "classical": 1},
        "small": {
            "kindred": 80,
            "kindred_other_data": 24,
            "other_recipe": 32,
            "other_architecture": 24,
            "other_data": 12,
            "homologous": 10,
            "classical": 8,
            "attacked": 16,
        },
        "paper": {
            "kindred": 200,
            "kindred_other_data": 60,
            "other_recipe": 80,
            "other_architecture": 60,
            "other_data": 30,
            "homologous": 30,
            "classical": 16,
            "attacked": 28,
        },
    }
)
"""Honest models of each owner at each scale, as SuspectCounts names them; none of the others."""
_NONE = SuspectCounts(rounds=1, stacks=0, homologous=0, other_architecture=0, other_data=0, attacked=0)
_SEED = 1


def owners_of(scale: ScaleName, tasks: Sequence[str] | None = None) -> list[tuple[str, int]]:
    """Return (task, owner) pairs; at `smoke` the first owner of the first task.

    tasks: the only ones wanted; None: all.
    """
    pairs = [(task, owner) for task, owners in OWNERS.items() for owner in owners if tasks is None or task in tasks]
    return pairs[:1] if scale == "smoke" else pairs


def judge_honest_models(
    plan: Plan, *, recipes: Sequence[str] = (TOLD, UNTOLD), say: Say = lambda text: None
) -> Iterator[dict[str, Any]]:
    """Yield the record of one owner for each recipe as it is done; what is there, made alike, is not made again.

    plan: of the task and the owner.
    recipes: what metav is told, of RECIPES.
    """
    prepared: PreparedModels | None = None
    honest: list[KnownSuspect] = []
    for recipe in recipes:
        path = accusations_folder(plan.output) / f"{plan.task}-{plan.scale_name}-owner{plan.owner_seed}-{recipe}.json"
        settings = {**plan.settings(), "recipe": recipe, "honest": dict(HONEST_COUNTS[plan.scale_name])}
        record = read_record(path)
        if record.get("key") == settings_key(settings):
            yield record
            continue
        if prepared is None:
            prepared = _prepared(plan, say)
            honest = _honest_models(prepared, say)
        fp, _, _ = make_fingerprint(prepared, Regime(name="full", recipe=recipe), _SEED, say)
        record = {
            "task": plan.task,
            "scale": plan.scale_name,
            "owner_seed": plan.owner_seed,
            "owner_recipe": prepared.scenario.recipe.name,
            "recipe": recipe,
            "seed": _SEED,
            "device": plan.device,
            "versions": versions(),
            "honest": _judged(fp, honest, plan.progress),
        }
        write_record(path, record | {"key": settings_key(settings), "settings": settings})
        yield record


def accusations_folder(output: Path) -> Path:
    """Return the folder of this experiment's records."""
    return output / NAME


def read_accusations(output: Path) -> list[dict[str, Any]]:
    """Return all records of this experiment, in the order of their files."""
    return [record for path in sorted(accusations_folder(output).glob("*.json")) if (record := read_record(path))]


def _prepared(plan: Plan, say: Say) -> PreparedModels:
    """Return the owner; zoos are built when they are needed, and no suspects are."""
    say(f"{plan.task}, owner {plan.owner_seed}: owner")
    scenario = scenario_of(plan)
    return PreparedModels(plan=plan, scenario=scenario, owner=load_owner(scenario, plan), suspects=(), record={})


def _honest_models(prepared: PreparedModels, say: Say) -> list[KnownSuspect]:
    plan, scenario = prepared.plan, prepared.scenario
    say(f"{plan.task}, owner {plan.owner_seed}: honest models")
    wanted: dict[str, Any] = dict(HONEST_COUNTS[plan.scale_name])
    counts = replace(_NONE, **wanted, epochs=SUSPECT_COUNTS[plan.scale_name].epochs)
    found = build_test_suspects(
        prepared.owner,
        scenario.task,
        test_task=scenario.test_task,
        scale=counts,
        recipes=(scenario.recipe, *scenario.other_recipes),
        families=(*HONEST_FAMILIES, HOMOLOGOUS, ATTACKED),
        **source_options(scenario, plan),
    )
    return list(found.negatives)


def _judged(fp: Fingerprint, honest: Sequence[KnownSuspect], progress: bool | None) -> list[dict[str, Any]]:
    judged = []
    with progress_bar(total=len(honest), description=NAME, enabled=progress) as bar:
        for entry in honest:
            verdict = verify(fp, entry.model)
            judged.append(
                {
                    "run": entry.run,
                    "family": entry.family,
                    "decision": verdict.decision.value,
                    "reason": verdict.reason,
                    "logit": verdict.logit,
                    "p_value": verdict.p_value,
                }
            )
            bar.update(1)
    return judged
