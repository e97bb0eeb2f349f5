"""Results as pictures."""

from metav.reports.plots import plot_scores

__all__ = ["plot_scores"]
