"""`metav doctor`: what is installed, whether it works, and what to do where it does not."""

from __future__ import annotations

import json
from collections import Counter

import click

from metav.cli.doctor_checks import FAIL, OK, WARN, Finding, examine
from metav.cli.program import ExitCode, json_option, stdout_kept_clean, tell

_EPILOG = """\b
Exit codes:
  0  everything works (warnings included)
  1  something is broken
"""


@click.command("doctor", epilog=_EPILOG)
@click.option("--cache", metavar="FOLDER", help="Also look at this folder of trained models.")
@json_option
def doctor_command(cache: str | None, as_json: bool) -> int:
    """Say what is installed, check that it works, and what to do where it does not.

    Computes a little with the core in every instruction set of this processor and compares it with NumPy and PyTorch,
    imports the libraries of all extras that are there, and looks for a second metav, for cores, threads and free disk.
    Worth quoting whole in a report of a defect.
    """
    with stdout_kept_clean():
        findings = examine(cache)
        for line in _lines(findings):
            tell(line)
    counts = Counter(finding.status for finding in findings)
    if as_json:
        values = {"findings": [finding.to_dict() for finding in findings]}
        click.echo(json.dumps({**{status: counts[status] for status in (OK, WARN, FAIL)}, **values}, indent=2))
    return ExitCode.FAILED if counts[FAIL] else ExitCode.PASSED


def _lines(findings: list[Finding]) -> list[str]:
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status.ljust(4)}  {finding.name.ljust(width)}  {finding.found}")
        if finding.remedy is not None:
            lines.append(f"{' ' * (width + 8)}-> {finding.remedy}")
    counts = Counter(finding.status for finding in findings)
    return [
        *lines,
        f"{counts[OK]} ok, {counts[WARN]} {'warning' if counts[WARN] == 1 else 'warnings'}, {counts[FAIL]} broken",
    ]
