"""The tables of families: how each is judged, what leaving it out costs, which suspects are of no use. No PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from metav.experiments.results.markdown import count_text, markdown, mean_text
from metav.experiments.results.run_records import (
    METAV,
    Record,
    grouped,
    matches,
    schemes_of,
    scores_of,
    told_text,
    undecided,
)
from metav.statistics.intervals import Interval
from metav.statistics.roc_aruc import roc_auc

NO_MODELS = ("noise_new", "noise_fixed", "untrained", "constant")
"""Families of suspects that are no model of the task."""
OTHER_FORM_FAMILY = "honest_in_another_form"
"""Honest suspects that are asked a second time, answering in another form."""


def family_table(runs: Sequence[Record], group: str = "full") -> str:
    """Return one row a family, of the runs of one group: how many are called derived, scores, AUC of each scheme."""
    done = [run for run in runs if run["group"] == group and "evaluation" in run]
    schemes, rows = schemes_of(done), []
    for name, derived in kinds_of(done).items():
        matched = matches(done, METAV, derived=derived, families=(name,))
        entries = [run["evaluation"]["by_family"][name] for run in done if name in run["evaluation"]["by_family"]]
        scores = [entry["mean_score"] for entry in entries if entry["mean_score"] is not None]
        areas = [_family_auc(done, scheme, (name,)) if derived else "" for scheme in schemes]
        open_ = undecided(done, METAV, derived=derived, families=(name,))
        rows.append(
            (name, _kind(derived), "-" if matched is None else count_text(matched), open_, mean_text(scores), *areas)
        )
    head = ("family", "kind", "called derived", "undecided", "mean score", *(f"AUC {scheme}" for scheme in schemes))
    return markdown(head, rows)


def rivals_table(runs: Sequence[Record], group: str = "full") -> str:
    """Return one row a family: how many each scheme calls derived, at its own threshold from the same negatives."""
    done = [run for run in runs if run["group"] == group and "evaluation" in run]
    kinds = kinds_of(done)
    schemes = [
        name
        for name in schemes_of(done)
        if any(matches(done, name, derived=derived, families=(family,)) for family, derived in kinds.items())
    ]
    if len(schemes) < 2:
        return ""
    rows = []
    for family, derived in kinds.items():
        counted = [matches(done, scheme, derived=derived, families=(family,)) for scheme in schemes]
        cells = ["-" if entry is None else f"{entry.count}/{entry.total}" for entry in counted]
        rows.append((family, _kind(derived), *cells))
    return markdown(("family", "kind", *schemes), rows)


def ablation_table(runs: Sequence[Record]) -> str:
    """Return one row a part of the method that was left out: what is found and accused without it, and the AUC."""
    rates = ablation_rates(runs)
    quantities = list(dict.fromkeys(name for shares in rates.values() for name in shares))
    rows = []
    for part, shares in rates.items():
        group = [run for run in runs if run["regime"] == f"ablation:{part}"]
        pairs = [pair for run in group if (pair := scores_of(run, METAV)) is not None]
        cells = [count_text(shares[name]) if name in shares else "-" for name in quantities]
        rows.append((part, told_text(group).removeprefix("recipe "), *cells, mean_text([roc_auc(*p) for p in pairs])))
    return markdown(("without", "told", *quantities, "AUC"), rows)


def ablation_rates(runs: Sequence[Record]) -> dict[str, dict[str, Interval]]:
    """Return what is found and accused without each part of the method; without nothing first."""
    done = [run for run in runs if run["group"] == "ablation" and "evaluation" in run]
    found: dict[str, dict[str, Interval]] = {}
    for regime, group in grouped(done, lambda run: run["regime"]).items():
        honest = [name for name, derived in kinds_of(group).items() if not derived]
        others = [name for name in honest if name in NO_MODELS]
        models = [name for name in honest if name not in (*NO_MODELS, OTHER_FORM_FAMILY)]
        shares = {
            "derived found": matches(group, METAV, derived=True),
            "honest accused": matches(group, METAV, derived=False, families=models),
            "nonsense accused": matches(group, METAV, derived=False, families=others),
            "honest in another form accused": matches(group, METAV, derived=False, families=(OTHER_FORM_FAMILY,)),
        }
        found[regime.partition(":")[2]] = {name: share for name, share in shares.items() if share is not None}
    return dict(sorted(found.items(), key=lambda item: item[0] != "nothing"))


def kinds_of(runs: Sequence[Record]) -> dict[str, bool]:
    """Return whether each family is derived, derived ones first."""
    found = {entry["family"]: entry["is_positive"] for run in runs for entry in run["evaluation"]["suspects"]}
    return dict(sorted(found.items(), key=lambda item: not item[1]))


def _kind(derived: bool) -> str:
    return "derived" if derived else "independent"


def without_table(runs: Sequence[Record]) -> str:
    """Return one row a regime that lacks families: how they are judged, with and without them in the zoo."""
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
                _called_derived(full, families),
                _called_derived(done, families),
                _family_auc(full, METAV, families),
                _family_auc(done, METAV, families),
                areas or "-",
            )
        )
    head = ("left out", "called derived, full zoo", "called derived", "AUC, full zoo", "AUC", "AUC of the others")
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


def _called_derived(runs: Sequence[Record], families: Sequence[str]) -> str:
    derived = any(derived for family, derived in kinds_of(runs).items() if family in families)
    found = matches(runs, METAV, derived=derived, families=families)
    return "-" if found is None else f"{found.count}/{found.total}"
