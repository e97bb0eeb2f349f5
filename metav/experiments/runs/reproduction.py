"""Runs one task from data to results: every regime with every seed, one JSON file a run, resumable."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metav.baselines.base import Baseline
from metav.errors import ArtefactError, InputError, MetavError
from metav.experiments.runs.prepared_models import Plan, PreparedModels, Say, Suspects, build_unlearned, prepare_models
from metav.experiments.runs.records import read_record, settings_key, versions, write_record
from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.experiments.runs.regimes import Regime, all_regimes, select_regimes
from metav.experiments.scenarios.registry import make_scenario
from metav.fingerprinting import fingerprint
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.models.identity import state_digest
from metav.models.running import device_of
from metav.statistics.roc_aruc import aruc, roc_auc
from metav.support.arguments import seed_number
from metav.support.clock import PhaseClock
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.verdicts.evaluation import evaluate

Baselines = Mapping[str, type[Baseline]]
"""Schemes to compare with, by name: `cls().fit(owner, task, zoo, queries=, seed=)`, then `score(suspect) -> float`."""


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
    prepared: PreparedModels | None = None
    for seed in seeds:
        for regime in wanted:
            path = plan.folder / f"{regime.name.replace(':', '-')}-seed{seed}.json"
            beside = schemes_beside(regime, schemes)
            settings = _settings(plan, regime, seed, beside)
            record = read_record(path)
            if record.get("key") == settings_key(settings):
                yield RunResult(path=path, record=record, found=True)
                continue
            prepared = prepared or prepare_models(plan, say)
            record = _run(prepared, regime, seed, beside)
            record |= {"key": settings_key(settings), "settings": settings}
            write_record(path, record)
            yield RunResult(path=path, record=record, found=False)


def schemes_beside(regime: Regime, schemes: Baselines) -> Baselines:
    """Return the schemes that a regime is compared with, those that its group chooses."""
    chosen = REGIME_GROUPS[regime.group].beside
    return {name: cls for name, cls in schemes.items() if chosen(cls)}


def _settings(plan: Plan, regime: Regime, seed: int, schemes: Baselines) -> dict[str, Any]:
    return {
        **plan.settings(),
        "regime": regime.to_dict(),
        "seed": seed,
        "options": regime.choose_options(plan.options).to_dict(),
        "baselines": sorted(schemes),
    }


def _run(prepared: PreparedModels, regime: Regime, seed: int, schemes: Baselines) -> dict[str, Any]:
    """Make one run and return its record; one that the method refuses (too few models, say) is a record of why."""
    plan, scenario = prepared.plan, prepared.scenario
    record: dict[str, Any] = {
        "task": plan.task,
        "scale": plan.scale_name,
        "regime": regime.name,
        "group": regime.group,
        "seed": seed,
        "owner_seed": plan.owner_seed,
        "device": str(device_of(prepared.owner)),
        "versions": versions(),
        "owner_metric": prepared.record["owner_metric"],
        "metric_unit": prepared.record["metric_unit"],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    suspects = _asked(prepared.suspects, scenario.task, regime, seed)
    try:
        record |= _fingerprint_results(prepared, regime, seed, suspects)
    except MetavError as error:
        record["failed"] = f"{type(error).__name__}: {error}"
    record["baselines"] = {
        name: _baseline_results(cls, prepared, regime, seed, suspects) for name, cls in schemes.items()
    }
    return record


def _asked(suspects: Suspects, task: Task, regime: Regime, seed: int) -> list[tuple[Any, bool, str]]:
    """Return the suspects as they can be asked in a regime."""
    return [
        (regime.choose_suspect(model, task, derive_seed(seed, regime.name, number)), is_positive, family)
        for number, (model, is_positive, family) in enumerate(suspects)
    ]


def _fingerprint_results(
    prepared: PreparedModels, regime: Regime, seed: int, suspects: list[tuple[Any, bool, str]]
) -> dict[str, Any]:
    about: dict[str, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fp, path, seconds = _fingerprint(prepared, regime, seed)
        if REGIME_GROUPS[regime.group].unlearned:
            unlearned, about["suspects"] = build_unlearned(prepared, torch.tensor(fp.queries))
            suspects = _asked(unlearned, prepared.scenario.task, regime, seed)
        clock = PhaseClock({"fingerprint": seconds})
        with clock.phase("evaluation"):
            evaluation = evaluate(fp, suspects, progress=prepared.plan.progress)
    return about | {
        "evaluation": evaluation.to_dict(),
        "fingerprint": {
            "file": path.name,
            "adaptive": fp.adaptive,
            "members": list(fp.meta_verifier.kinds),
            "threshold": fp.calibration.threshold,
            "surrogates": {name: fp.zoo[name] for name in ("positives", "negatives", "snapshots")},
            "history": fp.history,
        },
        "seconds": clock.seconds,
        "warnings": sorted({str(entry.message) for entry in caught}),
    }


def _fingerprint(prepared: PreparedModels, regime: Regime, seed: int) -> tuple[Fingerprint, Path, float]:
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
    with clock.phase("fingerprint"):
        fp = fingerprint(
            owner,
            task,
            zoo=regime.augment(regime.choose_zoo(prepared.zoo, seed), owner, task, seed),
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


def _baseline_results(
    cls: type[Any], prepared: PreparedModels, regime: Regime, seed: int, suspects: list[tuple[Any, bool, str]]
) -> dict[str, Any]:
    """Return one scheme's scores of the same suspects; of a scheme that fails, why it did."""
    clock = PhaseClock()
    try:
        with clock.phase("fit"):
            scheme = cls().fit(
                prepared.owner,
                prepared.scenario.task,
                regime.choose_zoo(prepared.zoo, seed),
                queries=regime.choose_options(prepared.plan.options).queries,
                seed=seed,
            )
        with clock.phase("score"):
            scores = [float(scheme.score(model)) for model, _, _ in suspects]
    except MetavError as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    return {
        **ranking([entry[1] for entry in suspects], scores),
        "suspects": [
            {"family": family, "is_positive": is_positive, "score": score}
            for (_, is_positive, family), score in zip(suspects, scores, strict=True)
        ],
        "seconds": clock.seconds,
    }


def ranking(is_positive: Sequence[bool], scores: Sequence[float]) -> dict[str, float | None]:
    """Return the AUC of scores of any scale, and the ARUC where they lie in [0, 1] (None elsewhere)."""
    high = [score for score, positive in zip(scores, is_positive, strict=True) if positive]
    low = [score for score, positive in zip(scores, is_positive, strict=True) if not positive]
    within = min(scores) >= 0 and max(scores) <= 1
    return {"auc": roc_auc(high, low), "aruc": aruc(high, low) if within else None}


def parse_seeds(text: str) -> list[int]:
    """Return seeds that are separated by commas. Raises InputError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"seeds must be whole numbers from 0, separated by commas, got {text!r}")
    return [seed_number(int(part), "each of the seeds") for part in parts]
