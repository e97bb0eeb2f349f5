"""How well fingerprints tell derived from independent models that they never saw: one owner a seed, three tasks."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metav.calibration import Interval, exact_interval
from metav.errors import InputError
from metav.evaluation import Evaluation, evaluate
from metav.experiments.scenarios import Scenario, digits_scenario, fashion_scenario, warfarin_scenario
from metav.fingerprinting import fingerprint
from metav.zoo import build_suspects, build_zoo


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Sizes of one task's experiment: surrogates and suspects of each class, queries of the fingerprint."""

    surrogates: int
    suspects: int
    queries: int


PROTOCOLS = {
    "digits": Protocol(surrogates=192, suspects=36, queries=100),
    "warfarin": Protocol(surrogates=144, suspects=36, queries=100),
    # A generator answers 784 numbers a query: twenty queries are plenty.
    "fashion": Protocol(surrogates=30, suspects=14, queries=20),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of one owner: rates on suspects that were neither optimised on, selected on nor calibrated on."""

    task: str
    seed: int
    owner_metric: float
    metric_unit: str
    evaluation: Evaluation
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, ready for JSON."""
        import numpy as np
        import torch

        return {
            "task": self.task,
            "seed": self.seed,
            "owner_metric": self.owner_metric,
            "metric_unit": self.metric_unit,
            "seconds": self.seconds,
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "torch": torch.__version__,
                "machine": platform.machine(),
            },
            "evaluation": self.evaluation.to_dict(),
        }


def scenario_of(task: str, data: str | os.PathLike[str] | None, seed: int) -> Scenario:
    """The scenario of a task; InputError where it needs `data`, the folder of the real data sets, and has none."""
    if task == "digits":
        return digits_scenario(seed)
    if data is None:
        raise InputError(f"{task} needs the folder of the real data sets; pass --data FOLDER.")
    makers: dict[str, Callable[..., Scenario]] = {"warfarin": warfarin_scenario, "fashion": fashion_scenario}
    if task not in makers:
        raise InputError(f"task must be one of {', '.join(PROTOCOLS)}, got {task!r}.")
    return makers[task](Path(data), seed)


def run_accuracy(
    task: str,
    seed: int,
    *,
    protocol: Protocol | None = None,
    data: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> Run:
    """Train an owner, make its fingerprint, and judge suspects of other seeds, architectures and strengths.

    Negative suspects of other origin come from another source of data than any surrogate's (`other_task`).
    """
    sizes = protocol or PROTOCOLS[task]
    scenario = scenario_of(task, data, seed)
    folder = None if cache is None else Path(cache) / task
    clock = [time.perf_counter()]
    owner = scenario.train_owner(seed)
    clock.append(time.perf_counter())
    common: dict[str, Any] = {"seed": seed, "cache": folder, "jobs": jobs, "progress": progress}
    zoo = build_zoo(
        owner,
        scenario.task,
        positives=sizes.surrogates,
        negatives=sizes.surrogates,
        architectures=scenario.zoo_architectures,
        **common,
    )
    clock.append(time.perf_counter())
    made = fingerprint(owner, scenario.task, zoo=zoo, queries=sizes.queries, seed=seed, progress=progress)
    clock.append(time.perf_counter())
    suspects = build_suspects(
        owner,
        scenario.task,
        positives=sizes.suspects,
        negatives=sizes.suspects,
        architectures=scenario.suspect_architectures,
        other_task=scenario.other_task,
        **common,
    )
    clock.append(time.perf_counter())
    evaluation = evaluate(made, suspects, progress=progress)
    clock.append(time.perf_counter())
    phases = ("owner", "zoo", "fingerprint", "suspects", "evaluation")
    return Run(
        task=task,
        seed=seed,
        owner_metric=scenario.test_metric(owner),
        metric_unit=scenario.metric_unit,
        evaluation=evaluation,
        seconds={name: round(end - start, 2) for name, start, end in zip(phases, clock, clock[1:], strict=False)},
    )


def table(runs: Sequence[Run]) -> str:
    """One Markdown table of the runs of one task, with all suspects of all seeds pooled in the last row."""
    rows = [
        f"**{runs[0].task}** (owner: {statistics.mean(run.owner_metric for run in runs):.3g} {runs[0].metric_unit})",
        "",
        "| seed | TPR | TNR | AUC | ARUC |",
        "|---|---|---|---|---|",
    ]
    for run in runs:
        result = run.evaluation
        rows.append(
            f"| {run.seed} | {_share(result.tpr)} | {_share(result.tnr)} | {result.auc:.4f} | {result.aruc:.3f} |"
        )
    pooled = [_pooled([getattr(run.evaluation, name) for run in runs]) for name in ("tpr", "tnr")]
    auc = statistics.mean(run.evaluation.auc for run in runs)
    aruc = statistics.mean(run.evaluation.aruc for run in runs)
    rows.append(f"| all | {_share(pooled[0])} | {_share(pooled[1])} | {auc:.4f} | {aruc:.3f} |")
    return "\n".join(rows)


def write_runs(runs: Sequence[Run], folder: str | os.PathLike[str]) -> None:
    """Write one JSON file a run, `<task>-<seed>.json`, into a folder that is made where needed."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for run in runs:
        path = target / f"{run.task}-{run.seed}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(run.to_dict(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)


def report_progress(run: Run) -> None:
    """One line on stderr when a run is done."""
    print(f"{run.task} seed {run.seed}: {sum(run.seconds.values()):.0f} s", file=sys.stderr, flush=True)


def _share(interval: Interval) -> str:
    return f"{interval.count}/{interval.total} ({interval.low:.1%} to {interval.high:.1%})"


def _pooled(intervals: Sequence[Interval]) -> Interval:
    return exact_interval(sum(entry.count for entry in intervals), sum(entry.total for entry in intervals))
