"""Runs one task from data to results: every regime with every seed, one JSON file a run, resumable."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metav.errors import ArtefactError, InputError, MetavError
from metav.experiments.runs.judging import judge, suspects_asked
from metav.experiments.runs.prepared_models import Plan, PreparedModels, Say, Suspects, build_unlearned, prepare_models
from metav.experiments.runs.records import read_record, settings_key, versions, write_record
from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.experiments.runs.regimes import Regime, all_regimes, select_regimes
from metav.experiments.runs.rivals import Baselines, Rivals, schemes_beside
from metav.experiments.scenarios.registry import make_scenario
from metav.fingerprinting import fingerprint
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.models.identity import state_digest
from metav.models.running import device_of
from metav.support.arguments import seed_number
from metav.support.clock import PhaseClock


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One regime with one seed: its file, its record, and whether it was there already."""

    path: Path
    record: dict[str, Any]
    found: bool


def reproduce(
    plan: Plan,
    *,
    seeds: Sequence[int],
    regimes: Sequence[str] = (),
    baselines: Baselines | None = None,
    say: Say = lambda text: None,
) -> Iterator[RunResult]:
    """Yield the result of each regime and seed as it is done; what is there already, made alike, is not made again.

    seeds: of the fingerprints.
    regimes: names or groups; none is all.
    baselines: other schemes to score on the same suspects, by name.
    say: is given each line for people as it comes.

    Raises InputError for unknown regimes, before anything is trained.
    """
    task = make_scenario(plan.task, plan.data, plan.owner_seed, plan.scale).task
    wanted = select_regimes(all_regimes(task, plan.scale), regimes)
    schemes = {name: cls for name, cls in (baselines or {}).items() if cls.supports(task)}
    benches: dict[bool, _Bench] = {}
    for seed in seeds:
        for bench in benches.values():
            bench.rivals = Rivals(bench.prepared)
        for regime in wanted:
            plan = replace(plan, from_base=regime.from_base)
            path = plan.folder / f"{file_name(regime)}-seed{seed}.json"
            beside = schemes_beside(regime, schemes)
            settings = _settings(plan, regime, seed, beside)
            record = read_record(path)
            if record.get("key") == settings_key(settings):
                yield RunResult(path=path, record=record, found=True)
                continue
            if plan.from_base not in benches:
                prepared = prepare_models(plan, say)
                benches[plan.from_base] = _Bench(prepared=prepared, rivals=Rivals(prepared), say=say)
            record = _run(benches[plan.from_base], regime, seed, beside)
            record |= {"key": settings_key(settings), "settings": settings}
            write_record(path, record)
            yield RunResult(path=path, record=record, found=False)


@dataclass(slots=True, kw_only=True)
class _Bench:
    """What runs share: the models, and the other schemes as far as they are fitted for the seed at hand."""

    prepared: PreparedModels
    rivals: Rivals
    say: Say


def file_name(regime: Regime) -> str:
    """Return the name of a regime as it stands in names of files."""
    return re.sub(r"[^a-z0-9.]+", "-", regime.name.lower()).strip("-")


def _settings(plan: Plan, regime: Regime, seed: int, schemes: Baselines) -> dict[str, Any]:
    return {
        **plan.settings(),
        "regime": regime.to_dict(),
        "seed": seed,
        "options": regime.choose_options(plan.options).to_dict(),
        "baselines": sorted(schemes),
    }


def _run(bench: _Bench, regime: Regime, seed: int, schemes: Baselines) -> dict[str, Any]:
    """Make one run and return its record; one that the method refuses (too few models, say) is a record of why."""
    prepared = bench.prepared
    plan, scenario = prepared.plan, prepared.scenario
    record: dict[str, Any] = {
        "task": plan.task,
        "scale": plan.scale_name,
        "regime": regime.name,
        "group": regime.group,
        "seed": seed,
        "owner_seed": plan.owner_seed,
        "owner_recipe": scenario.recipe.name + (", from a public base" if plan.from_base else ""),
        "recipe": regime.recipe,
        "device": str(device_of(prepared.owner)),
        "versions": versions(),
        "owner_metric": prepared.record["owner_metric"],
        "metric_unit": prepared.record["metric_unit"],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    suspects = suspects_asked(prepared, regime, seed)
    try:
        record |= _fingerprint_results(bench, regime, seed, suspects)
    except MetavError as error:
        record["failed"] = f"{type(error).__name__}: {error}"
    record["baselines"] = {name: bench.rivals.results(cls, regime, seed, suspects) for name, cls in schemes.items()}
    return record


def _fingerprint_results(bench: _Bench, regime: Regime, seed: int, suspects: Suspects) -> dict[str, Any]:
    about: dict[str, Any] = {}
    prepared = bench.prepared
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fp, path, seconds = make_fingerprint(prepared, regime, seed, bench.say)
        if REGIME_GROUPS[regime.group].unlearned:
            unlearned, about["suspects"] = build_unlearned(prepared, torch.tensor(fp.queries))
            suspects = suspects_asked(prepared, regime, seed, unlearned)
        clock = PhaseClock({"fingerprint": seconds})
        with clock.phase("evaluation"):
            evaluation = judge(fp, suspects, regime, progress=prepared.plan.progress)
    return about | {
        "evaluation": evaluation.to_dict(),
        "fingerprint": {
            "file": path.name,
            "adaptive": fp.adaptive,
            "members": list(fp.meta_verifier.kinds),
            "threshold": fp.calibration.threshold,
            "check": fp.check,
            "surrogates": {name: fp.zoo[name] for name in ("positives", "negatives", "snapshots")},
            "history": fp.history,
        },
        "seconds": clock.seconds,
        "warnings": sorted({str(entry.message) for entry in caught}),
    }


def make_fingerprint(
    prepared: PreparedModels, regime: Regime, seed: int, say: Say = lambda text: None
) -> tuple[Fingerprint, Path, float]:
    """Return a regime's fingerprint, its file and its seconds; regimes that differ only in channels share one."""
    plan = prepared.plan
    made_from = {
        **plan.settings(),
        "owner": state_digest(prepared.owner),
        "fingerprint": regime.fingerprint_settings(),
        "seed": seed,
    }
    path = plan.folder / "fingerprints" / f"{settings_key(made_from)[:32]}.metav"
    if path.exists():
        try:
            return load(path), path, float(read_record(path.with_suffix(".time"))["seconds"])
        except (ArtefactError, KeyError):
            pass  # left by a run that was stopped or changed since: it is made again
    clock, owner, task = PhaseClock(), prepared.owner, prepared.scenario.task
    zoo = prepared.zoo(regime.recipe, say)
    with clock.phase("fingerprint"):
        fp = fingerprint(
            owner,
            task,
            zoo=regime.augment(regime.choose_zoo(zoo, seed), owner, task, seed),
            options=regime.choose_options(plan.options),
            target_fpr=plan.scale.target_fpr,
            seed=seed,
            progress=plan.progress,
        )
    seconds = clock.seconds["fingerprint"]
    path.parent.mkdir(parents=True, exist_ok=True)
    fp.save(path)
    write_record(path.with_suffix(".time"), {"seconds": seconds})
    return fp, path, seconds


def parse_seeds(text: str) -> list[int]:
    """Return seeds that are separated by commas. Raises InputError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"seeds must be whole numbers from 0, separated by commas, got {text!r}")
    return [seed_number(int(part), "each of the seeds") for part in parts]
