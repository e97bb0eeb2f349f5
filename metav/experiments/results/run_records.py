"""What a run's record says: its evaluation, the scores of each scheme, and how runs are put in order. No PyTorch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from metav.statistics.intervals import Interval, exact_interval
from metav.statistics.roc_aruc import roc_auc
from metav.verdicts.evaluation import Evaluation, SuspectResult
from metav.verdicts.verdict import Decision

Record = Mapping[str, Any]

TOLD_NAMES: Mapping[str, str] = MappingProxyType({"untold": "not told", "task's own": "not told, none drawn"})
"""What records say of the recipe, in the words of tables."""

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
    counts = {True: [0, 0, 0], False: [0, 0, 0]}
    for entry in outcomes_of(record, METAV) or []:
        row = counts[entry.is_positive]
        row[0] += entry.matched is True
        row[1] += 1
        row[2] += entry.matched is None
    (found, derived, open_), (accused, honest, others) = counts[True], counts[False]
    rates = f"found {found}/{derived}, accused {accused}/{honest}, undecided {open_} and {others}"
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

    Of metav these are logits, which do not tie where scores saturate. Who got no verdict, or no score, ranks lowest: a
    derived model is then not found, and an honest one not accused.

    families: of the derived ones; None: all.
    """
    return _pair(run, scheme, "logit" if scheme == METAV else "score", families)


def scored(run: Record, scheme: str) -> tuple[list[float], list[float]] | None:
    """Return scores in [0, 1] of derived and of independent suspects; None for schemes of another scale."""
    pair = _pair(run, scheme, "score", None)
    if pair is None or min(map(min, pair)) < 0 or max(map(max, pair)) > 1:
        return None
    return pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one suspect fared with one scheme at its threshold.

    matched: whether it is called derived; None where there is no verdict on it.
    """

    family: str
    is_positive: bool
    matched: bool | None


def outcomes_of(run: Record, scheme: str) -> list[Outcome] | None:
    """Return how each suspect of a run fared; None for a scheme without results or without a threshold."""
    entries = _entries(run, scheme)
    threshold = None if scheme == METAV else run["baselines"].get(scheme, {}).get("threshold")
    if not entries or (scheme != METAV and threshold is None):
        return None
    found = []
    for entry in entries:
        if scheme == METAV:
            undecided = entry["decision"] == Decision.INCONCLUSIVE.value
            matched = None if undecided else entry["decision"] == Decision.MATCH.value
        else:
            matched = None if entry["score"] is None else entry["score"] >= threshold
        found.append(Outcome(family=entry["family"], is_positive=entry["is_positive"], matched=matched))
    return found


def matches(
    runs: Iterable[Record], scheme: str, *, derived: bool, families: Collection[str] | None = None
) -> Interval | None:
    """Return how many of the derived, or of the honest, suspects are called derived; None without results.

    The rate is averaged over each owner's seeds, and counts are added over owners, so that every suspect counts once:
    rounded down for derived suspects, which are found, and up for honest ones, which are accused. Suspects without a
    verdict count as not called derived.

    families: the only ones that count; None: all.
    """
    count = total = 0
    for group in grouped(runs, lambda run: run["owner_seed"]).values():
        shares, sizes = [], []
        for run in group:
            outcomes = outcomes_of(run, scheme)
            if outcomes is None:
                continue
            chosen = [entry for entry in outcomes if entry.is_positive is derived]
            chosen = [entry for entry in chosen if families is None or entry.family in families]
            if chosen:
                shares.append(sum(entry.matched is True for entry in chosen) / len(chosen))
                sizes.append(len(chosen))
        if sizes:
            size = round(statistics.mean(sizes))
            number = statistics.mean(shares) * size
            count += math.floor(number + 1e-9) if derived else math.ceil(number - 1e-9)
            total += size
    return exact_interval(count, total) if total else None


def undecided(runs: Iterable[Record], scheme: str, *, derived: bool, families: Collection[str] | None = None) -> str:
    """Say how many suspects of all runs got no verdict, of how many."""
    every = [entry for run in runs for entry in outcomes_of(run, scheme) or [] if entry.is_positive is derived]
    every = [entry for entry in every if families is None or entry.family in families]
    return f"{sum(entry.matched is None for entry in every)}/{len(every)}" if every else "-"


def told_text(runs: Iterable[Record]) -> str:
    """Say what metav was told of the owners' recipes in these runs."""
    names = dict.fromkeys(run.get("recipe", "not recorded") for run in runs)
    return "recipe " + " and ".join(TOLD_NAMES.get(name, name) for name in names)


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
    entries = _entries(run, scheme)
    found = [entry[value] for entry in entries if _has_value(entry, value)]
    lowest = min(found, default=0.0)
    missing = 0.0 if value == "score" and lowest >= 0.0 else lowest - 1.0
    values = [entry[value] if _has_value(entry, value) else missing for entry in entries]
    high = [
        number
        for entry, number in zip(entries, values, strict=True)
        if entry["is_positive"] and (families is None or entry["family"] in families)
    ]
    low = [number for entry, number in zip(entries, values, strict=True) if not entry["is_positive"]]
    return (high, low) if high and low else None


def _entries(run: Record, scheme: str) -> list[Mapping[str, Any]]:
    if scheme == METAV:
        return list(run["evaluation"]["suspects"]) if "evaluation" in run else []
    return list(run["baselines"].get(scheme, {}).get("suspects", []))


def _has_value(entry: Mapping[str, Any], value: str) -> bool:
    return entry[value] is not None and entry.get("decision") != Decision.INCONCLUSIVE.value


def _order(run: Record) -> tuple[Any, ...]:
    detail = run["regime"].partition(":")[2]
    return int(detail) if detail.isdigit() else 0, run["regime"], run["owner_seed"], run["seed"]
