"""The tables of costs: seconds of each phase, and what more surrogates buy. No PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from metav.experiments.results.markdown import markdown, mean_text
from metav.experiments.results.run_records import Record, evaluation_of, schemes_of


def cost_table(runs: Sequence[Record], materials: Sequence[Record]) -> str:
    """Return the seconds of each phase, means over owners or runs, and in trainings of the owner."""
    costs = costs_of(runs, materials)
    owner = costs.get("owner")
    return markdown(
        ("phase", "seconds", "owner's trainings"),
        [(name, f"{value:.3g}", f"{value / owner:.3g}" if owner else "-") for name, value in costs.items()],
    )


def growth_table(runs: Sequence[Record], materials: Sequence[Record]) -> str:
    """Return one row a number of surrogates: what zoo and fingerprint cost in trainings of the owner, AUC and ARUC.

    The seconds of the whole zoo are shared out by the number of surrogates.
    """
    costs = costs_of(runs, materials)
    sizes = {record["settings"]["sizes"]["surrogates"] for record in materials if "sizes" in record.get("settings", {})}
    if not costs.get("owner") or "zoo" not in costs or len(sizes) != 1:
        return ""
    groups: dict[int, list[Record]] = {}
    for run in runs:
        if run["group"] in ("surrogates", "full") and "evaluation" in run:
            count = int(run["regime"].partition(":")[2] or max(sizes))
            groups.setdefault(count, []).append(run)
    rows = []
    for count, group in sorted(groups.items()):
        fit = statistics.mean(run["seconds"]["fingerprint"] for run in group)
        multiples = (costs["zoo"] * count / max(sizes) + fit) / costs["owner"]
        areas = [(evaluation.auc, evaluation.aruc) for evaluation in map(evaluation_of, group)]
        rows.append((str(count), f"{multiples:.3g}", *(mean_text(values) for values in zip(*areas, strict=True))))
    return markdown(("surrogates of each class", "owner's trainings", "AUC", "ARUC"), rows) if len(rows) > 1 else ""


def costs_of(runs: Sequence[Record], materials: Sequence[Record]) -> dict[str, float]:
    """Return the mean seconds of each phase; one verdict is the evaluation over the number of suspects."""
    costs: dict[str, float] = {}
    for name in ("owner", "zoo", "suspects"):
        values = [record["seconds"][name] for record in materials if name in record.get("seconds", {})]
        if values:
            costs[name] = statistics.mean(values)
    full = [run for run in runs if run["group"] == "full" and "evaluation" in run]
    if full:
        costs["fingerprint"] = statistics.mean(run["seconds"]["fingerprint"] for run in full)
        costs["one verdict"] = statistics.mean(
            run["seconds"]["evaluation"] / len(run["evaluation"]["suspects"]) for run in full
        )
        for scheme in schemes_of(full)[1:]:
            fits = [entry["seconds"]["fit"] for run in full if "seconds" in (entry := run["baselines"].get(scheme, {}))]
            if fits:
                costs[f"{scheme}, fit"] = statistics.mean(fits)
    return costs
