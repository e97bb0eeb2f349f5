"""Writes the tables and figures of one task at one scale: report.md, and a picture for each kind of result."""

from __future__ import annotations

from pathlib import Path

from metav.experiments.results.figures import write_figures
from metav.experiments.results.tables import all_tables
from metav.experiments.runs.records import read_prepared, read_runs, write_text


def write_report(folder: Path) -> list[Path]:
    """Write report.md and the figures into a folder of results, from its JSON files alone; return what was written.

    A figure without data is left out.

    Raises InputError where there are no results.
    """
    runs, prepared = read_runs(folder), read_prepared(folder)
    written = write_figures(folder, runs, prepared)
    pictures = "\n".join(f"![{path.stem}]({path.name})" for path in written)
    write_text(folder / "report.md", all_tables(runs, prepared) + ("\n" + pictures + "\n" if pictures else ""))
    return [folder / "report.md", *written]
