"""All tables of the experiments, in the order in which they are shown. No PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from metav.experiments.results.cost_tables import cost_table, growth_table
from metav.experiments.results.family_tables import (
    ablation_table,
    apart_table,
    family_table,
    rivals_table,
    without_table,
)
from metav.experiments.results.markdown import markdown
from metav.experiments.results.rate_tables import forms_table, metav_alone, regime_table
from metav.experiments.results.run_records import METAV, Record, told_text
from metav.experiments.runs.regime_groups import REGIME_GROUPS, RegimeGroup

MOST_WITH_SCHEMES = 10
"""Regimes of a group up to which every scheme has a row of its own in each."""


def all_tables(runs: Sequence[Record], prepared: Sequence[Record]) -> str:
    """Return all tables of one task at one scale, as Markdown with a heading each.

    runs: records of runs, at least one.
    prepared: records of what was built, one an owner.
    """
    first = runs[0]
    owners = {run["owner_seed"] for run in runs}
    seeds = {run["seed"] for run in runs}
    parts = [
        f"# {first['task']}, scale {first['scale']}",
        f"{len(runs)} runs: {len(owners)} owners, {len(seeds)} seeds, device {first['device']}, "
        f"{versions_text(first)}.",
        *(f"## {title}\n\n{table}" for title, table in titled_tables(runs, prepared)),
    ]
    return "\n\n".join(parts) + "\n"


def titled_tables(runs: Sequence[Record], prepared: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Yield the title and the Markdown of each table that is not empty."""
    told = told_text([run for run in runs if run["group"] == "full"] or runs)
    tables = [
        *(
            table
            for group in REGIME_GROUPS.values()
            if group.title is not None
            for table in _tables_of_group(group, [run for run in runs if run["group"] == group.name])
        ),
        (f"By kind of suspect (full; {told})", family_table(runs)),
        (f"By kind of suspect, called derived by each scheme (full; {told})", rivals_table(runs)),
        (f"Nonsense by kind ({told})", family_table(runs, "nonsense")),
        ("What each part of the method is worth (recipe told, but for two rows)", ablation_table(runs)),
        (f"Families that the zoo lacked ({told})", without_table(runs)),
        ("Derived suspects that lost too much to be of use: in no rate above", apart_table([*prepared, *runs])),
        ("Cost", cost_table(runs, prepared)),
        ("Build cost and what it buys", growth_table(runs, prepared)),
        ("Failed", failed_table(runs)),
    ]
    yield from ((title, table) for title, table in tables if table)


def _tables_of_group(group: RegimeGroup, runs: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Yield the tables of one group; where it has many regimes, the other schemes stand in a short one."""
    title = str(group.title)
    if len({run["regime"] for run in runs}) <= MOST_WITH_SCHEMES:
        yield title, regime_table(runs)
        return
    yield title, regime_table(metav_alone(runs))
    yield f"{title}: the other schemes", forms_table(runs)


def failed_table(runs: Sequence[Record]) -> str:
    """Return the runs, and other schemes beside runs, that the method refused; empty where none was."""
    rows = [(run["regime"], str(run["seed"]), METAV, run["failed"]) for run in runs if "failed" in run]
    for run in runs:
        for name, entry in run["baselines"].items():
            if "failed" in entry:
                rows.append((run["regime"], str(run["seed"]), name, entry["failed"]))
    return markdown(("regime", "seed", "scheme", "why"), rows)


def versions_text(record: Record) -> str:
    """Say the versions that a run was made with."""
    return ", ".join(f"{name} {value}" for name, value in sorted(record["versions"].items()))
