"""The tables of rates, one row a regime and scheme. No PyTorch.

Rates are averaged over the seeds of one owner and added over owners; their exact intervals count each suspect once.
Areas are means over runs, with the standard deviation over runs behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from metav.experiments.results.markdown import count_text, markdown, mean_text
from metav.experiments.results.run_records import (
    METAV,
    Record,
    grouped,
    matches,
    schemes_of,
    scored,
    scores_of,
    told_text,
    true_positives_at,
    undecided,
    without_families,
)
from metav.statistics.intervals import Interval
from metav.statistics.roc_aruc import aruc, roc_auc

LATENT_ATTACKS = ("permute_latent", "rotate_latent")
"""Known limits: a generator behind a changed latent space answers no query as it did."""

WITHOUT_LIMITS = "metav, latent space kept"


def regime_table(runs: Sequence[Record]) -> str:
    """Return one row a regime and scheme: rates at the threshold, areas, TPR at fixed FPR; empty without runs.

    Where suspects changed a generator's latent space, a second row of metav leaves them out.
    """
    rows = []
    for regime, group in grouped(runs, lambda run: run["regime"]).items():
        for scheme in schemes_of(group):
            rows += _regime_row(group, regime, scheme, scheme)
            if scheme != METAV:
                continue
            done = [run for run in group if "evaluation" in run]
            kept = [without_families(run, LATENT_ATTACKS) for run in done]
            if kept != done:
                rows += _regime_row(kept, regime, scheme, WITHOUT_LIMITS)
    rates = ("derived found", "honest accused", "undecided: derived", "honest")
    areas = ("AUC", "ARUC", "TPR at 1 % FPR", "TPR at 5 % FPR")
    return markdown(("regime", "told", "scheme", *rates, *areas), rows)


def forms_table(runs: Sequence[Record]) -> str:
    """Return one row a regime: what each other scheme finds of the derived suspects, and accuses of the honest ones."""
    schemes = schemes_of(runs)[1:]
    rows = []
    for regime, group in grouped(runs, lambda run: run["regime"]).items():
        pairs = [(matches(group, name, derived=True), matches(group, name, derived=False)) for name in schemes]
        if any(found is not None for found, _ in pairs):
            rows.append((regime.partition(":")[2] or regime, *(f"{_short(a)}; {_short(b)}" for a, b in pairs)))
    return markdown(("found; accused", *schemes), rows)


def metav_alone(runs: Sequence[Record]) -> list[Record]:
    """Return runs as if no other scheme stood beside metav."""
    return [{**run, "baselines": {}} for run in runs]


def _regime_row(group: Sequence[Record], regime: str, scheme: str, title: str) -> list[tuple[str, ...]]:
    scores = [found for run in group if (found := scores_of(run, scheme)) is not None]
    if not scores:
        return []
    aruc_values = [aruc(*pair) for pair in (scored(run, scheme) for run in group) if pair is not None]
    return [
        (
            regime,
            told_text(group).removeprefix("recipe "),
            title,
            _rate(matches(group, scheme, derived=True)),
            _rate(matches(group, scheme, derived=False)),
            undecided(group, scheme, derived=True),
            undecided(group, scheme, derived=False),
            mean_text([roc_auc(*pair) for pair in scores]),
            mean_text(aruc_values),
            mean_text([true_positives_at(*pair, 0.01) for pair in scores]),
            mean_text([true_positives_at(*pair, 0.05) for pair in scores]),
        )
    ]


def _rate(interval: Interval | None) -> str:
    return "-" if interval is None else count_text(interval)


def _short(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.count}/{interval.total}"
