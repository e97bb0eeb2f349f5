"""Writes the tables and figures of one task at one scale: report.md, and a picture for each kind of result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metav.errors import ArtefactError
from metav.experiments.results.cost_tables import costs_of
from metav.experiments.results.run_records import Record, evaluation_of, schemes_of, scored, scores_of, sweep
from metav.experiments.results.tables import all_tables
from metav.experiments.runs.records import read_prepared, read_runs, write_text
from metav.fingerprints.fingerprint import load
from metav.reports.experiment_plots import plot_costs, plot_queries, plot_robustness, plot_roc, plot_sweep
from metav.reports.score_plot import plot_scores, save_plot


def write_report(folder: Path) -> list[Path]:
    """Write report.md and the figures into a folder of results, from its JSON files alone; return what was written.

    A figure without data is left out.

    Raises InputError where there are no results.
    """
    runs, prepared = read_runs(folder), read_prepared(folder)
    written = []
    for name, draw in _figures(folder, runs, prepared).items():
        axes = draw()
        if axes is not None:
            save_plot(axes, folder / f"{name}.png")
            written.append(folder / f"{name}.png")
    pictures = "\n".join(f"![{path.stem}]({path.name})" for path in written)
    write_text(folder / "report.md", all_tables(runs, prepared) + ("\n" + pictures + "\n" if pictures else ""))
    return [folder / "report.md", *written]


def _figures(folder: Path, runs: Sequence[Record], prepared: Sequence[Record]) -> dict[str, Callable[[], Any]]:
    # one run stands for all in the figures that show single suspects: the tables hold the means
    full = next((run for run in runs if run["group"] == "full" and "evaluation" in run), None)
    return {
        "scores": lambda: None if full is None else plot_scores(evaluation_of(full), title=_title(full)),
        "roc": lambda: None if full is None else _roc(full),
        "aruc": lambda: None if full is None else _robustness(full),
        "queries": lambda: _sweep(runs, "queries", "number of queries"),
        "surrogates": lambda: _sweep(runs, "surrogates", "trained surrogates of each class"),
        "fingerprint": lambda: None if full is None else _queries(folder, full),
        "cost": lambda: plot_costs(costs, title="Cost") if (costs := costs_of(runs, prepared)) else None,
    }


def _title(run: Record) -> str:
    return f"{run['task']}, {run['scale']}: owner {run['owner_seed']}, seed {run['seed']}"


def _roc(run: Record) -> Any:
    pairs = {scheme: scores_of(run, scheme) for scheme in schemes_of([run])}
    found = {scheme: pair for scheme, pair in pairs.items() if pair is not None}
    return plot_roc(found, title=_title(run)) if found else None


def _robustness(run: Record) -> Any:
    pair = scored(run, schemes_of([])[0])
    return None if pair is None else plot_robustness(*pair, title=_title(run))


def _sweep(runs: Sequence[Record], group: str, label: str) -> Any:
    schemes = sweep(runs, group)
    return plot_sweep(schemes, label=label, title=f"{runs[0]['task']}, {runs[0]['scale']}") if schemes else None


def _queries(folder: Path, run: Record) -> Any:
    path = folder / f"owner{run['owner_seed']}" / "fingerprints" / run["fingerprint"]["file"]
    try:
        fp = load(path)
    except ArtefactError:
        return None  # results travel without the fingerprints, which are secrets
    return plot_queries(fp.queries, adaptive=fp.adaptive, title=f"{run['task']}, {run['scale']}")
