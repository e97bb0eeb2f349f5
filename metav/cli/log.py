"""`metav log`: what a query log holds, and whether it is intact."""

from __future__ import annotations

import json
from pathlib import Path

import click

from metav.cli.output_files import check_target
from metav.cli.program import SUCCESS, json_option, tell
from metav.errors import InputError
from metav.fingerprints.fingerprint import load
from metav.support.json_values import readable_json
from metav.suspects.log_reports import check_queries, export_log, summarise
from metav.suspects.log_rows import check_head, read_log


@click.group("log")
def log_group() -> None:
    """Show, check and export the log of a run (metav verify --log)."""


@log_group.command("show")
@click.argument("log", metavar="LOG")
@json_option
def show_command(log: str, as_json: bool) -> int:
    """Show whom a log says was asked, what came back, and the head of its chain."""
    summary = summarise(read_log(log))
    tell(str(summary))
    if as_json:
        click.echo(readable_json(summary.to_dict()))
    return SUCCESS


@log_group.command("verify")
@click.argument("log", metavar="LOG")
@click.option(
    "--head", metavar="HASH", help="The head that a verdict states; else rows cut off at the end do not show."
)
@click.option("--verdict", metavar="FILE", help="A verdict, as metav verify --json printed it, that states the head.")
@click.option("--fingerprint", metavar="FILE", help="Also check that the queries are this fingerprint's.")
@json_option
def verify_log_command(log: str, head: str | None, verdict: str | None, fingerprint: str | None, as_json: bool) -> int:
    """Find any row that was altered, removed, moved or added; the exit code is 0 for an intact log, else 2.

    \b
    Examples:
      metav log verify run.db --verdict verdict.json
      metav log verify run.db --head 61ed09... --fingerprint owner.metav
    """
    rows = read_log(log)
    stated = head if verdict is None else _head_of(verdict)
    if head is not None and stated != head:
        raise InputError(f"the verdict states the head {stated}, --head says {head}; pass one of them")
    if stated is not None:
        check_head(rows, stated, log)
    if fingerprint is not None:
        check_queries(rows, load(fingerprint), log)
    checked = "ends with the stated head" if stated is not None else "compare the head with the verdict's"
    tell(f"{log} is intact: {len(rows)} rows; {checked}")
    tell(f"head {rows[-1].hash}")
    if as_json:
        click.echo(
            readable_json({"intact": True, "rows": len(rows), "head": rows[-1].hash, "compared": stated is not None})
        )
    return SUCCESS


@log_group.command("export")
@click.argument("log", metavar="LOG")
@click.option("-o", "--output", required=True, metavar="FILE", help="The .csv or .jsonl file to write.")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
def export_log_command(log: str, output: str, force: bool) -> int:
    """Write all rows of a log to a CSV or JSONL file."""
    rows = read_log(log)
    check_target(Path(output), overwrite=force)
    export_log(rows, output)
    tell(f"{len(rows)} rows written to {output}")
    return SUCCESS


def _head_of(path: str) -> str:
    cure = "expected a verdict with a log, as metav verify --log FILE --json prints it"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))["asking"]["head"]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); {cure}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} states no head of a log; {cure}") from error
    return str(found)
