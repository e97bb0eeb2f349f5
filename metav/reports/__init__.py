"""Pictures and pages of results."""

from metav.reports.registry import REPORTS, Report, write_report
from metav.reports.score_plot import plot_scores, save_plot

__all__ = ["REPORTS", "Report", "plot_scores", "save_plot", "write_report"]
