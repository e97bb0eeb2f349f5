"""The tables of rates, one row a regime and scheme. No PyTorch.

Rates are averaged over the seeds of one owner and added over owners; their exact intervals count each suspect once.
Areas are means over runs, with the standard deviation over runs behind them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from metav.experiments.results.markdown import count_text, markdown, mean_text
from metav.experiments.results.run_records import (
    METAV,
    Record,
    grouped,
    schemes_of,
    scored,
    scores_of,
    true_positives_at,
    without_families,
)
from metav.statistics.intervals import exact_interval
from metav.statistics.roc_aruc import aruc, roc_auc

LATENT_ATTACKS = ("permute_latent", "rotate_latent")
"""Known limits: a generator behind a changed latent space answers no query as it did."""

WITHOUT_LIMITS = "metav, latent space kept"


def regime_table(runs: Sequence[Record]) -> str:
    """Return one row a regime and scheme: rates at the threshold, AUC, ARUC, TPR at 5 % FPR; empty without runs.

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
    head = ("regime", "scheme", "TPR", "TNR", "AUC", "ARUC", "TPR at 5 % FPR", "inconclusive")
    return markdown(head, rows)


def _regime_row(group: Sequence[Record], regime: str, scheme: str, title: str) -> list[tuple[str, ...]]:
    scores = [found for run in group if (found := scores_of(run, scheme)) is not None]
    done = [run for run in group if "evaluation" in run] if scheme == METAV else []
    if not scores and not done:
        return []
    aruc_values = [aruc(*pair) for pair in (scored(run, scheme) for run in group) if pair is not None]
    return [
        (
            regime,
            title,
            _rate(done, "tpr") if done else "-",
            _rate(done, "tnr") if done else "-",
            mean_text([roc_auc(*pair) for pair in scores]),
            mean_text(aruc_values),
            mean_text([true_positives_at(*pair, 0.05) for pair in scores]),
            str(sum(run["evaluation"]["inconclusive"] for run in done)) if done else "-",
        )
    ]


def _rate(runs: Sequence[Record], name: str) -> str:
    """Say a rate, averaged over the seeds of each owner (rounded down), with the interval of all owners' suspects."""
    count = total = 0
    for group in grouped(runs, lambda run: run["owner_seed"]).values():
        size = round(statistics.mean(run["evaluation"][name]["total"] for run in group))
        share = statistics.mean(run["evaluation"][name]["value"] or 0.0 for run in group)
        count, total = count + math.floor(share * size + 1e-9), total + size
    return count_text(exact_interval(count, total))
