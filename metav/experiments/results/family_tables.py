"""The tables of families: how each is judged, what leaving it out costs, which suspects are of no use. No PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metav.experiments.results.markdown import markdown, mean_text
from metav.experiments.results.run_records import METAV, Record, grouped, schemes_of, scores_of
from metav.statistics.roc_aruc import roc_auc


def family_table(runs: Sequence[Record]) -> str:
    """Return one row a family, of the runs with the full zoo: share judged rightly, scores, AUC of each scheme."""
    full = [run for run in runs if run["group"] == "full" and "evaluation" in run]
    families: dict[str, list[Mapping[str, Any]]] = {}
    for run in full:
        for name, entry in run["evaluation"]["by_family"].items():
            families.setdefault(name, []).append(entry)
    schemes = schemes_of(full)
    rows = []
    for name, entries in families.items():
        derived = entries[0]["is_positive"]
        scores = [entry["mean_score"] for entry in entries if entry["mean_score"] is not None]
        right = f"{sum(entry['rate']['count'] for entry in entries)}/{sum(entry['n'] for entry in entries)}"
        areas = [_family_auc(full, scheme, (name,)) if derived else "" for scheme in schemes]
        rows.append((name, "derived" if derived else "independent", right, mean_text(scores), *areas))
    return markdown(("family", "kind", "right", "mean score", *(f"AUC {scheme}" for scheme in schemes)), rows)


def without_table(runs: Sequence[Record]) -> str:
    """Return one row a regime that lacks families: AUC and share judged rightly of those, with and without them."""
    full = [run for run in runs if run["group"] == "full" and "evaluation" in run]
    rows = []
    lacking = [run for run in runs if run["group"] == "without"]
    for regime, group in grouped(lacking, lambda run: run["regime"]).items():
        done = [run for run in group if "evaluation" in run]
        if not done:
            continue
        families = tuple(done[0]["settings"]["regime"]["without"])
        schemes = schemes_of(done)
        areas = ", ".join(f"{scheme} {_family_auc(done, scheme, families)}" for scheme in schemes[1:])
        rows.append(
            (
                regime.partition(":")[2],
                _right(full, families),
                _right(done, families),
                _family_auc(full, METAV, families),
                _family_auc(done, METAV, families),
                areas or "-",
            )
        )
    head = ("left out", "right, full zoo", "right", "AUC, full zoo", "AUC", "AUC of the others")
    return markdown(head, rows)


def apart_table(records: Sequence[Record]) -> str:
    """Return one row a family of which derived suspects lost more usefulness than allowed; empty without any.

    records: of what was built, and of runs with suspects of their own.
    """
    rows = []
    for record in records:
        summary = record.get("suspects", {})
        for name, entry in summary.get("families", {}).items():
            # plain suspects are useful by construction, and say nothing of it
            if entry["is_positive"] and "useful" in entry and entry["useful"] < entry["count"]:
                low, high = entry["lost"]
                useless = f"{entry['count'] - entry['useful']}/{entry['count']}"
                rows.append((str(record["settings"]["owner_seed"]), name, useless, f"{low:.0%} to {high:.0%}"))
    return markdown(("owner", "family", "not of use", "usefulness lost in this family"), rows)


def _family_auc(runs: Sequence[Record], scheme: str, families: Sequence[str]) -> str:
    pairs = [pair for run in runs if (pair := scores_of(run, scheme, families)) is not None]
    return mean_text([roc_auc(*pair) for pair in pairs])


def _right(runs: Sequence[Record], families: Sequence[str]) -> str:
    all_families = [run["evaluation"]["by_family"] for run in runs]
    entries = [found[name] for found in all_families for name in families if name in found]
    total = sum(entry["n"] for entry in entries)
    return f"{sum(entry['rate']['count'] for entry in entries)}/{total}" if total else "-"
