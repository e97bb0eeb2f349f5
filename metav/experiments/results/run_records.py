"""What a run's record says: its evaluation, the scores of each scheme, and how runs are put in order. No PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metav.statistics.roc_aruc import roc_auc
from metav.verdicts.evaluation import Evaluation, SuspectResult
from metav.verdicts.verdict import Decision

Record = Mapping[str, Any]

METAV = "metav"
"""The scheme that the others stand beside."""


def evaluation_of(record: Record) -> Evaluation:
    """Return the evaluation in a run's record."""
    stored = record["evaluation"]
    return Evaluation(
        results=tuple(
            SuspectResult(**{**entry, "decision": Decision(entry["decision"])}) for entry in stored["suspects"]
        ),
        queries=stored["queries"],
        commitment=stored["commitment"],
    )


def summary_of(record: Record) -> dict[str, Any]:
    """Return the figures of one run, ready for JSON."""
    summary = {name: record[name] for name in ("task", "scale", "regime", "seed", "owner_seed")}
    if "failed" in record:
        return summary | {"failed": record["failed"]}
    stored = record["evaluation"]
    return summary | {name: stored[name] for name in ("tpr", "tnr", "auc", "aruc", "inconclusive", "queries")}


def summary_line(record: Record) -> str:
    """Return one line of text about one run."""
    start = "{task} {scale} {regime}, owner {owner_seed}, seed {seed}".format_map(record)
    if "failed" in record:
        return f"{start}: failed, {record['failed']}"
    evaluation = evaluation_of(record)
    rates = f"TPR {evaluation.tpr.count}/{evaluation.tpr.total}, TNR {evaluation.tnr.count}/{evaluation.tnr.total}"
    return f"{start}: {rates}, AUC {evaluation.auc:.3f}, ARUC {evaluation.aruc:.3f}"


def without_families(run: Record, families: Sequence[str]) -> Record:
    """Return a run as if metav had not judged suspects of these families; the same object where there are none."""
    evaluation = evaluation_of(run)
    kept = tuple(result for result in evaluation.results if result.family not in families)
    if len(kept) == len(evaluation.results):
        return run
    return {**run, "evaluation": replace(evaluation, results=kept).to_dict()}


def sweep(runs: Sequence[Record], group: str) -> dict[str, dict[int, list[float]]]:
    """Return the AUC of every run of a group such as "queries", by scheme and number."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        if run["group"] != group:
            continue
        for scheme in schemes_of([run]):
            pair = scores_of(run, scheme)
            if pair is not None:
                number = int(run["regime"].partition(":")[2])
                found.setdefault(scheme, {}).setdefault(number, []).append(roc_auc(*pair))
    return found


def schemes_of(runs: Iterable[Record]) -> list[str]:
    """Return metav, then the other schemes of these runs."""
    return [METAV, *dict.fromkeys(name for run in runs for name in run["baselines"])]


def scores_of(
    run: Record, scheme: str, families: Sequence[str] | None = None
) -> tuple[list[float], list[float]] | None:
    """Return the scores of derived and of independent suspects to rank by; None without both.

    Of metav these are logits, which do not tie where scores saturate.

    families: of the derived ones; None: all.
    """
    return _pair(run, scheme, "logit" if scheme == METAV else "score", families)


def scored(run: Record, scheme: str) -> tuple[list[float], list[float]] | None:
    """Return scores in [0, 1] of derived and of independent suspects; None for schemes of another scale."""
    pair = _pair(run, scheme, "score", None)
    if pair is None or min(map(min, pair)) < 0 or max(map(max, pair)) > 1:
        return None
    return pair


def true_positives_at(high: Sequence[float], low: Sequence[float], rate: float) -> float:
    """Return the largest share of derived suspects above a threshold that at most `rate` of the others pass."""
    allowed = math.floor(rate * len(low) + 1e-9)
    limit = sorted(low, reverse=True)[allowed] if allowed < len(low) else -math.inf
    return sum(score > limit for score in high) / len(high)


def grouped(runs: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    """Return runs by a key; by number within a sweep, then by regime, owner and seed."""
    groups: dict[Any, list[Record]] = {}
    for run in sorted(runs, key=_order):
        groups.setdefault(key(run), []).append(run)
    return groups


def _pair(
    run: Record, scheme: str, value: str, families: Sequence[str] | None
) -> tuple[list[float], list[float]] | None:
    if scheme == METAV:
        entries = run["evaluation"]["suspects"] if "evaluation" in run else []
        entries = [entry for entry in entries if entry["decision"] != Decision.INCONCLUSIVE.value]
    else:
        entries = run["baselines"].get(scheme, {}).get("suspects", [])
    high = [e[value] for e in entries if e["is_positive"] and (families is None or e["family"] in families)]
    low = [entry[value] for entry in entries if not entry["is_positive"]]
    return (high, low) if high and low else None


def _order(run: Record) -> tuple[Any, ...]:
    detail = run["regime"].partition(":")[2]
    return int(detail) if detail.isdigit() else 0, run["regime"], run["owner_seed"], run["seed"]
