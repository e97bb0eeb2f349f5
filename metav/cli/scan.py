"""`metav scan`: judge many suspects; the exit code says whether any matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metav.cli.asking import asking_from, asking_options_without_log
from metav.cli.output_files import check_target
from metav.cli.program import ExitCode, json_option, stdout_kept_clean, tell
from metav.fingerprints.fingerprint import load
from metav.verdicts.scan_store import write_table
from metav.verdicts.scanning import Scan, scan
from metav.verdicts.suspect_lists import SuspectEntry, read_suspects
from metav.verdicts.verdict import Decision


@click.command("scan")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("suspects", metavar="SUSPECTS...", nargs=-1, required=True)
@click.option(
    "-o", "--output", default="scan.db", show_default=True, metavar="FILE", help="SQLite file of the results."
)
@click.option("--csv", "table", metavar="FILE", help="Also write the results to this CSV file.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes that judge; -1 is one per core.")
@click.option("--logs", metavar="FOLDER", help="Keep a query log of each suspect here, and go on from it.")
@asking_options_without_log
@click.option("--no-progress", is_flag=True, help="No progress bar (it shows on a terminal only anyway).")
@json_option
def scan_command(fingerprint: str, suspects: tuple[str, ...], **options: Any) -> int:
    """Judge many suspects: 1 if any matches, else 3 if any is inconclusive, else 0.

    SUSPECTS are files (recorded answers, ONNX, ...), folders of them, patterns, addresses, pkg.module:build with a
    trained model, or lists: a .yaml or .json file whose key "suspects" holds paths or objects with "suspect" and, if
    wanted, "name", "weights", "trained", "options". Budget and rate are for each suspect.

    Results are written as they come. The same command goes on where it stopped, and asks anew whose file has changed.
    The column p_holm corrects the p-values for the number of suspects.

    \b
    Examples:
      metav scan owner.metav answers/ --csv answers.csv
      metav scan owner.metav 'models/*.onnx' services.yaml --workers 2 --logs logs
    """
    if options["table"] is not None:
        check_target(Path(options["table"]), overwrite=True)
    fp = load(fingerprint)
    progress = False if options["no_progress"] else None
    asking = asking_from({**options, "progress": progress})
    with stdout_kept_clean():
        found = _scanned(fp, fingerprint, suspects, asking, progress, options)
        tell(str(found))
        if options["table"] is not None:
            write_table(found.rows, options["table"])
        tell(f"written: {', '.join(file for file in (options['output'], options['table']) if file)}")
    if options["as_json"]:
        click.echo(found.to_json())
    counts = found.decisions
    if counts[Decision.MATCH]:
        return ExitCode.MATCH
    return ExitCode.INCONCLUSIVE if counts[Decision.INCONCLUSIVE] else ExitCode.NO_MATCH


def _scanned(
    fp: Any, path: str, suspects: tuple[str, ...], asking: Any, progress: Any, options: dict[str, Any]
) -> Scan:
    from metav.cli.named_models import importing_from_here

    given = path if options["workers"] != 1 else fp
    with importing_from_here():
        try:
            return scan(
                given,
                read_suspects(suspects),
                store=options["output"],
                workers=options["workers"],
                asking=asking,
                logs=options["logs"],
                progress=progress,
                opener=open_named,
            )
        except KeyboardInterrupt:
            tell(f"\nstopped; the same command goes on from {options['output']}")
            raise click.exceptions.Exit(ExitCode.STOPPED) from None


def open_named(entry: SuspectEntry) -> Any:
    """Return the suspect of an entry: a file, an address, or the model that pkg.module:build returns."""
    from metav.cli.named_models import build_model, importing_from_here, names_a_builder
    from metav.suspects.callables import CallableSuspect
    from metav.suspects.registry import open_suspect

    if not names_a_builder(entry.source):
        return open_suspect(entry.source, **entry.options)
    with importing_from_here():
        model = build_model(entry.source, entry.weights, trained=entry.trained or entry.weights is None)
    opened = open_suspect(model, **entry.options)
    named = isinstance(opened, CallableSuspect)
    return CallableSuspect(model, name=entry.source, **entry.options) if named else opened
