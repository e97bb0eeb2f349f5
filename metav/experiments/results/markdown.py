"""Markdown of the experiments' tables, and how their cells say means, shares and intervals. No PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from metav.statistics.intervals import Interval


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, or an empty text where it has no rows."""
    rows = list(rows)
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def mean_text(values: Sequence[float]) -> str:
    """Say a mean, with the standard deviation behind it where there are several values."""
    if not values:
        return "-"
    mean = statistics.mean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def count_text(interval: Interval) -> str:
    """Say a count of a total, with its exact interval."""
    if not interval.total:
        return "-"
    return f"{interval.count}/{interval.total} ({interval.low:.1%} to {interval.high:.1%})"
