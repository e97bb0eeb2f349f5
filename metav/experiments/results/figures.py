"""The figures of one task at one scale, from the records of its runs. No PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metav.errors import ArtefactError
from metav.experiments.results.cost_tables import costs_of
from metav.experiments.results.family_tables import ablation_rates, kinds_of
from metav.experiments.results.run_records import (
    METAV,
    Record,
    evaluation_of,
    matches,
    schemes_of,
    scored,
    scores_of,
    sweep,
    told_text,
)
from metav.fingerprints.fingerprint import load
from metav.reports.experiment_plots import (
    plot_costs,
    plot_misses,
    plot_parts,
    plot_queries,
    plot_rates,
    plot_robustness,
    plot_roc,
    plot_sweep,
)
from metav.reports.score_plot import plot_scores, save_plot
from metav.statistics.roc_aruc import roc_auc

PUBLISHED = ("rates", "misses", "parts", "scores", "queries", "surrogates", "cost")
"""Figures that stand on a published page."""


def write_figures(
    folder: Path, runs: Sequence[Record], prepared: Sequence[Record], *, names: Sequence[str] = (), prefix: str = ""
) -> list[Path]:
    """Write the figures as PNG files into a folder and return their paths; a figure without data is left out.

    names: the only ones wanted; none: all.
    prefix: of the files' names.
    """
    written = []
    for name, draw in _figures(folder, runs, prepared).items():
        if names and name not in names:
            continue
        axes = draw()
        if axes is not None:
            path = folder / f"{prefix}{name}.png"
            save_plot(axes, path)
            written.append(path)
    return written


def _figures(folder: Path, runs: Sequence[Record], prepared: Sequence[Record]) -> dict[str, Callable[[], Any]]:
    # one run stands for all in the figures that show single suspects: the tables hold the means
    every = [run for run in runs if run["group"] == "full" and "evaluation" in run]
    full = next(iter(every), None)
    return {
        "scores": lambda: None if full is None else plot_scores(evaluation_of(full), title=_title(full)),
        "roc": lambda: None if full is None else _roc(full),
        "misses": lambda: _misses(every) if every else None,
        "rates": lambda: _rates(every) if every else None,
        "parts": lambda: _parts(runs),
        "aruc": lambda: None if full is None else _robustness(full),
        "queries": lambda: _sweep(runs, "queries", "number of queries"),
        "surrogates": lambda: _sweep(runs, "surrogates", "trained surrogates of each class"),
        "fingerprint": lambda: None if full is None else _queries(folder, full),
        "cost": lambda: plot_costs(costs, title="Cost") if (costs := costs_of(runs, prepared)) else None,
    }


def _title(run: Record) -> str:
    return f"{run['task']}, {run['scale']}: owner {run['owner_seed']}, seed {run['seed']}, {told_text([run])}"


def _all_title(runs: Sequence[Record]) -> str:
    found = sorted({run["owner_seed"] for run in runs})
    owners = ("owner " if len(found) == 1 else "owners ") + ", ".join(map(str, found))
    return f"{runs[0]['task']}, {runs[0]['scale']}: {owners}, {told_text(runs)}"


def _roc(run: Record) -> Any:
    pairs = {scheme: scores_of(run, scheme) for scheme in schemes_of([run])}
    found = {scheme: pair for scheme, pair in pairs.items() if pair is not None}
    return plot_roc(found, title=_title(run)) if found else None


def _misses(runs: Sequence[Record]) -> Any:
    """Draw the curve of the run of each scheme whose AUC is in the middle, and the rates of all runs as points."""
    curves, points = {}, {}
    for scheme in schemes_of(runs):
        pairs = sorted(
            (pair for run in runs if (pair := scores_of(run, scheme)) is not None), key=lambda pair: roc_auc(*pair)
        )
        if not pairs:
            continue
        curves[scheme] = pairs[(len(pairs) - 1) // 2]
        found, accused = (matches(runs, scheme, derived=derived) for derived in (True, False))
        if found is not None and accused is not None:
            points[scheme] = (accused.value, 1.0 - found.value)
    return plot_misses(curves, points=points, title=_all_title(runs)) if curves else None


def _rates(runs: Sequence[Record]) -> Any:
    rows = []
    for family, derived in kinds_of(runs).items():
        share = matches(runs, METAV, derived=derived, families=(family,))
        if share is not None:
            rows.append((family, "derived" if derived else "independent", share))
    return plot_rates(rows, title=_all_title(runs)) if rows else None


def _parts(runs: Sequence[Record]) -> Any:
    rates = ablation_rates(runs)
    return plot_parts(rates, title=f"{runs[0]['task']}, {runs[0]['scale']}: the method without") if rates else None


def _robustness(run: Record) -> Any:
    pair = scored(run, METAV)
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
