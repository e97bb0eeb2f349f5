"""From run records to Markdown tables: rates, areas, families, sweeps, costs. No PyTorch.

Rates are averaged over the seeds of one owner and added over owners; their exact intervals count each suspect once.
Areas are means over runs, with the standard deviation over runs behind them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.statistics.intervals import Interval, exact_interval
from metav.statistics.roc_aruc import aruc, roc_auc
from metav.verdicts.evaluation import Evaluation, SuspectResult
from metav.verdicts.verdict import Decision

Record = Mapping[str, Any]
METAV = "metav"
LATENT_ATTACKS = ("permute_latent", "rotate_latent")
"""Known limits: a generator behind a changed latent space answers no query as it did."""
WITHOUT_LIMITS = "metav, latent space kept"


def evaluation_of(record: Record) -> Evaluation:
    """The evaluation in a run's record."""
    stored = record["evaluation"]
    return Evaluation(
        results=tuple(
            SuspectResult(**{**entry, "decision": Decision(entry["decision"])}) for entry in stored["suspects"]
        ),
        queries=stored["queries"],
        commitment=stored["commitment"],
    )


def summary_of(record: Record) -> dict[str, Any]:
    """The figures of one run, ready for JSON."""
    summary = {name: record[name] for name in ("task", "scale", "regime", "seed", "owner_seed")}
    if "failed" in record:
        return summary | {"failed": record["failed"]}
    stored = record["evaluation"]
    return summary | {name: stored[name] for name in ("tpr", "tnr", "auc", "aruc", "inconclusive", "queries")}


def summary_line(record: Record) -> str:
    """One line of text about one run."""
    start = "{task} {scale} {regime}, owner {owner_seed}, seed {seed}".format_map(record)
    if "failed" in record:
        return f"{start}: failed, {record['failed']}"
    evaluation = evaluation_of(record)
    rates = f"TPR {evaluation.tpr.count}/{evaluation.tpr.total}, TNR {evaluation.tnr.count}/{evaluation.tnr.total}"
    return f"{start}: {rates}, AUC {evaluation.auc:.3f}, ARUC {evaluation.aruc:.3f}"


def all_tables(runs: Sequence[Record], materials: Sequence[Record]) -> str:
    """All tables of one task at one scale, as Markdown."""
    first = runs[0]
    owners = {run["owner_seed"] for run in runs}
    seeds = {run["seed"] for run in runs}
    parts = [
        f"# {first['task']}, scale {first['scale']}",
        f"{len(runs)} runs: {len(owners)} owners, {len(seeds)} seeds, device {first['device']}, "
        + ", ".join(f"{name} {value}" for name, value in sorted(first["versions"].items()))
        + ".",
        *_regime_tables(runs),
        *_section("By family (full)", family_table(runs)),
        *_section("Families that the zoo lacked", without_table(runs)),
        *_section(
            "Derived suspects that lost too much to be of use: in no rate above", apart_table([*materials, *runs])
        ),
        *_section("Cost", cost_table(runs, materials)),
        *_section("Build cost and what it buys", growth_table(runs, materials)),
        *_section("Failed", failed_table(runs)),
    ]
    return "\n\n".join(parts) + "\n"


def regime_table(runs: Sequence[Record]) -> str:
    """One row a regime and scheme: rates at the threshold, AUC, ARUC, TPR at 5 % FPR; empty without runs.

    Where suspects changed a generator's latent space, a second row of metav leaves them out.
    """
    rows = []
    for regime, group in _grouped(runs, lambda run: run["regime"]).items():
        for scheme in schemes_of(group):
            rows += _regime_row(group, regime, scheme, scheme)
            if scheme != METAV:
                continue
            done = [run for run in group if "evaluation" in run]
            kept = [without_families(run, LATENT_ATTACKS) for run in done]
            if kept != done:
                rows += _regime_row(kept, regime, scheme, WITHOUT_LIMITS)
    head = ("regime", "scheme", "TPR", "TNR", "AUC", "ARUC", "TPR at 5 % FPR", "inconclusive")
    return markdown(head, rows) if rows else ""


def without_families(run: Record, families: Sequence[str]) -> Record:
    """The run as if suspects of these families had not been judged by metav; the same object where there are none."""
    evaluation = evaluation_of(run)
    kept = tuple(result for result in evaluation.results if result.family not in families)
    if len(kept) == len(evaluation.results):
        return run
    return {**run, "evaluation": replace(evaluation, results=kept).to_dict()}


def family_table(runs: Sequence[Record]) -> str:
    """One row a family, of the runs with the full zoo: share judged rightly, scores, AUC of each scheme."""
    full = [run for run in runs if run["group"] == "full" and "evaluation" in run]
    if not full:
        return ""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for run in full:
        for name, entry in run["evaluation"]["by_family"].items():
            families.setdefault(name, []).append(entry)
    schemes = schemes_of(full)
    rows = []
    for name, entries in families.items():
        derived = entries[0]["is_positive"]
        scores = [entry["mean_score"] for entry in entries if entry["mean_score"] is not None]
        share = f"{sum(entry['rate']['count'] for entry in entries)}/{sum(entry['n'] for entry in entries)}"
        areas = [_family_auc(full, scheme, (name,)) if derived else "" for scheme in schemes]
        rows.append((name, "derived" if derived else "independent", share, _spread(scores), *areas))
    return markdown(("family", "kind", "right", "mean score", *(f"AUC {scheme}" for scheme in schemes)), rows)


def without_table(runs: Sequence[Record]) -> str:
    """One row a regime that lacks families: AUC (derived) or share judged rightly of those, with and without them."""
    full = [run for run in runs if run["group"] == "full" and "evaluation" in run]
    rows = []
    lacking = [run for run in runs if run["group"] == "without"]
    for regime, group in _grouped(lacking, lambda run: run["regime"]).items():
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
    return markdown(head, rows) if rows else ""


def apart_table(records: Sequence[Record]) -> str:
    """One row a family of which derived suspects lost more of the owner's usefulness than allowed; empty without.

    records: of materials, and of runs with suspects of their own.
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
    return markdown(("owner", "family", "not of use", "usefulness lost in this family"), rows) if rows else ""


def cost_table(runs: Sequence[Record], materials: Sequence[Record]) -> str:
    """Seconds of each phase, means over owners or runs, and in trainings of the owner."""
    costs = costs_of(runs, materials)
    owner = costs.get("owner")
    return markdown(
        ("phase", "seconds", "owner's trainings"),
        [(name, f"{value:.3g}", f"{value / owner:.3g}" if owner else "-") for name, value in costs.items()],
    )


def growth_table(runs: Sequence[Record], materials: Sequence[Record]) -> str:
    """One row a number of surrogates: what zoo and fingerprint cost in trainings of the owner, AUC and ARUC.

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
        rows.append((str(count), f"{multiples:.3g}", *(_spread(values) for values in zip(*areas, strict=True))))
    return markdown(("surrogates of each class", "owner's trainings", "AUC", "ARUC"), rows) if len(rows) > 1 else ""


def costs_of(runs: Sequence[Record], materials: Sequence[Record]) -> dict[str, float]:
    """Mean seconds of each phase; one verdict is the evaluation over the number of suspects."""
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


def failed_table(runs: Sequence[Record]) -> str:
    """Runs, and baselines of runs, that the method refused; empty where none was."""
    rows = [(run["regime"], str(run["seed"]), METAV, run["failed"]) for run in runs if "failed" in run]
    for run in runs:
        for name, entry in run["baselines"].items():
            if "failed" in entry:
                rows.append((run["regime"], str(run["seed"]), name, entry["failed"]))
    return markdown(("regime", "seed", "scheme", "why"), rows) if rows else ""


def sweep(runs: Sequence[Record], group: str) -> dict[str, dict[int, list[float]]]:
    """AUC of every run of a group such as "queries", by scheme and number."""
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
    """metav, then the baselines of these runs."""
    return [METAV, *dict.fromkeys(name for run in runs for name in run["baselines"])]


def scores_of(
    run: Record, scheme: str, families: Sequence[str] | None = None
) -> tuple[list[float], list[float]] | None:
    """Scores of derived (of these families, None is all) and independent suspects to rank by; None without both.

    Of metav these are logits, which do not tie where scores saturate.
    """
    return _pair(run, scheme, "logit" if scheme == METAV else "score", families)


def scored(run: Record, scheme: str) -> tuple[list[float], list[float]] | None:
    """Scores in [0, 1] of derived and independent suspects; None for schemes of another scale."""
    pair = _pair(run, scheme, "score", None)
    if pair is None or min(map(min, pair)) < 0 or max(map(max, pair)) > 1:
        return None
    return pair


def true_positives_at(high: Sequence[float], low: Sequence[float], rate: float) -> float:
    """The largest share of derived suspects above a threshold that at most `rate` of the independent ones pass."""
    allowed = math.floor(rate * len(low) + 1e-9)
    limit = sorted(low, reverse=True)[allowed] if allowed < len(low) else -math.inf
    return sum(score > limit for score in high) / len(high)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _regime_tables(runs: Sequence[Record]) -> Iterator[str]:
    for group in REGIME_GROUPS.values():
        if group.title is not None:
            yield from _section(group.title, regime_table([run for run in runs if run["group"] == group.name]))


def _regime_row(group: Sequence[Record], regime: str, scheme: str, title: str) -> list[tuple[str, ...]]:
    scores = [found for run in group if (found := scores_of(run, scheme)) is not None]
    if not scores:
        return []
    done = [run for run in group if "evaluation" in run] if scheme == METAV else []
    aruc_values = [aruc(*pair) for pair in (scored(run, scheme) for run in group) if pair is not None]
    return [
        (
            regime,
            title,
            _rate(done, "tpr") if done else "-",
            _rate(done, "tnr") if done else "-",
            _spread([roc_auc(*pair) for pair in scores]),
            _spread(aruc_values),
            _spread([true_positives_at(*pair, 0.05) for pair in scores]),
            str(sum(run["evaluation"]["inconclusive"] for run in done)) if done else "-",
        )
    ]


def _section(title: str, table: str) -> tuple[str, ...]:
    return (f"## {title}", table) if table else ()


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


def _family_auc(runs: Sequence[Record], scheme: str, families: Sequence[str]) -> str:
    pairs = [pair for run in runs if (pair := scores_of(run, scheme, families)) is not None]
    return _spread([roc_auc(*pair) for pair in pairs])


def _right(runs: Sequence[Record], families: Sequence[str]) -> str:
    all_families = [run["evaluation"]["by_family"] for run in runs]
    entries = [found[name] for found in all_families for name in families if name in found]
    total = sum(entry["n"] for entry in entries)
    return f"{sum(entry['rate']['count'] for entry in entries)}/{total}" if total else "-"


def _rate(runs: Sequence[Record], name: str) -> str:
    """A rate, averaged over the seeds of each owner (rounded down), with the interval of all owners' suspects."""
    count = total = 0
    for group in _grouped(runs, lambda run: run["owner_seed"]).values():
        size = round(statistics.mean(run["evaluation"][name]["total"] for run in group))
        share = statistics.mean(run["evaluation"][name]["value"] or 0.0 for run in group)
        count, total = count + math.floor(share * size + 1e-9), total + size
    return _share(exact_interval(count, total))


def _share(interval: Interval) -> str:
    if not interval.total:
        return "-"
    return f"{interval.count}/{interval.total} ({interval.low:.1%} to {interval.high:.1%})"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = statistics.mean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def _grouped(runs: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = {}
    for run in sorted(runs, key=_order):
        groups.setdefault(key(run), []).append(run)
    return groups


def _order(run: Record) -> tuple[Any, ...]:
    detail = run["regime"].partition(":")[2]
    return int(detail) if detail.isdigit() else 0, run["regime"], run["owner_seed"], run["seed"]
