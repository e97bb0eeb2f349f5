"""`metav doctor`: what is installed, whether it works, and what to do where it does not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import click

from metav.cli import doctor_checks, doctor_libraries
from metav.cli.doctor_checks import FAIL, OK, WARN, Finding
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


Check = Callable[[], Iterator[Finding]]


def examine(cache: str | None = None) -> list[Finding]:
    """Return the findings of all checks; a check that cannot be carried out is a finding, too.

    cache: a folder of trained models to look at; None for none.
    """
    checks: list[Check] = [
        doctor_checks.check_python,
        doctor_checks.check_package,
        doctor_libraries.check_requirements,
        doctor_checks.check_extension,
        doctor_checks.check_instruction_sets,
        doctor_checks.check_processor,
        doctor_libraries.check_torch,
        doctor_libraries.check_extras,
        doctor_checks.check_workers,
        doctor_checks.check_disk,
        partial(doctor_checks.check_cache, cache),
    ]
    return [finding for check in checks for finding in _carried_out(check)]


def _carried_out(check: Check) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # whatever is broken here must not hide the other findings
        function = check.func if isinstance(check, partial) else check
        name = getattr(function, "__name__", "check").removeprefix("check_").replace("_", " ")
        return [Finding(FAIL, name, f"cannot be checked ({type(error).__name__}: {error})", "mend what it names")]


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
