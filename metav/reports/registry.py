"""The table of reports on a verdict: one row a kind, chosen by the ending of the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.reports.page import write_page
from metav.reports.score_plot import PICTURES, plot_scores, save_plot
from metav.support.files import PathLike, path_text
from metav.verdicts.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One kind of report.

    name: of the kind.
    shows: what it shows, for the help text.
    endings: of its files, in lower case.
    write: (fingerprint, verdict, path), writes the file at once or not at all.
    """

    name: str
    shows: str
    endings: tuple[str, ...]
    write: Callable[[Fingerprint, Verdict, PathLike], None]


REPORTS: tuple[Report, ...] = (
    Report(
        name="scores",
        shows="the score among those of the calibration models",
        endings=PICTURES,
        write=lambda fingerprint, verdict, path: save_plot(plot_scores(fingerprint, verdict), path),
    ),
    Report(
        name="page", shows="verdict, picture and fingerprint on one page", endings=(".html", ".htm"), write=write_page
    ),
)
"""All kinds of report."""


def report_for(path: PathLike) -> Report:
    """Return the kind of report that a file's ending stands for; InputError where none does."""
    file = Path(path_text(path))
    ending = file.suffix.lower()
    for report in REPORTS:
        if ending in report.endings:
            return report
    known = "; ".join(f"{', '.join(report.endings)} for {report.shows}" for report in REPORTS)
    raise InputError(f"{file} has an unknown ending for a report; expected one of {known}")


def write_report(fingerprint: Fingerprint, verdict: Verdict, path: PathLike) -> None:
    """Write a report on a verdict, of the kind that the file's ending stands for.

    Raises InputError for another ending, and where the file cannot be written.
    """
    report_for(path).write(fingerprint, verdict, path)
