"""Results as pictures."""

from metav.reports.score_plot import plot_scores

__all__ = ["plot_scores"]
