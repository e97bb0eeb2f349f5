"""`metav gate`: a check in a release pipeline; the exit code says whether the release may go out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metav.cli.asking import asking_from, asking_options_without_log
from metav.cli.given_suspects import GivenSuspect, given_suspect_options
from metav.cli.output_files import check_target
from metav.cli.program import ExitCode, json_option, stdout_kept_clean, tell
from metav.cli.suspect_options import suspect_options
from metav.errors import MetavError
from metav.reports.junit import junit_error, junit_xml, write_junit
from metav.suspects.asking_options import AskingOptions
from metav.suspects.numbered_answers import NumberedRecording
from metav.verdicts.release_gate import Outcome, ReleaseGate, check_release

CODES = {Outcome.PASSED: ExitCode.PASSED, Outcome.FAILED: ExitCode.FAILED, Outcome.INCONCLUSIVE: ExitCode.INCONCLUSIVE}

_EPILOG = """\b
Exit codes:
  0  passed: the release is recognised as its owner's own, and as nobody else's
  1  failed: it is not recognised, or it is taken for a model of somebody else
  2  error: a file, a model or a service that cannot be used
  3  inconclusive: a check tells nothing, for instance as the fingerprint takes other inputs
  4  usage: an unknown option, or a missing argument
"""


@click.command("gate", epilog=_EPILOG)
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("suspect", metavar="RELEASE")
@click.option(
    "--against",
    multiple=True,
    metavar="FINGERPRINT[=ANSWERS]",
    help="Fingerprint of somebody else, which the release must not match; with =ANSWERS where RELEASE is a file of "
    "recorded answers. Repeatable.",
)
@click.option("--junit", metavar="FILE", help="Write a JUnit XML file, one test case per check.")
@click.option("--logs", metavar="FOLDER", help="Keep a query log per fingerprint here, and go on from it.")
@given_suspect_options
@suspect_options
@asking_options_without_log
@click.option("--no-progress", is_flag=True, help="No progress bar (it shows on a terminal only anyway).")
@json_option
def gate_command(fingerprint: str, suspect: str, options: dict[str, Any], **rest: Any) -> int:
    """Check a release in a pipeline: recognised as your own model, and not as anybody else's.

    FINGERPRINT is that of your model. RELEASE is what goes out, pruned, quantised or exported as it may be: all that
    metav verify takes as a suspect (an .onnx file, pkg.module:build with --weights, an address, recorded answers, ...).
    Budget, money and rate are for each fingerprint.

    \b
    Examples:
      metav gate owner.metav release.onnx --junit gate.xml
      metav gate owner.metav release.onnx --against other.metav --against third.metav --json
      metav gate owner.metav models:build --weights release.safetensors --junit gate.xml
      metav gate owner.metav answers.csv --against other.metav=answers-to-other.csv
    """
    junit, logs = rest["junit"], rest["logs"]
    given = GivenSuspect(
        text=suspect,
        weights=rest["weights"],
        trained=rest["trained"],
        recorded=rest["recorded"],
        options=options,
    )
    if junit is not None:
        check_target(Path(junit), overwrite=True)
    progress = False if rest["no_progress"] else None
    asking = asking_from({**rest, "progress": progress, "timeout": given.timeout})
    with stdout_kept_clean():
        try:
            gate = _checked(fingerprint, given, rest["against"], asking, logs)
        except MetavError as error:
            if junit is not None:
                write_junit(junit_error(suspect, str(error)), junit)
            raise
        tell(str(gate))
        if junit is not None:
            write_junit(junit_xml(gate), junit)
            tell(f"written: {junit}")
    if rest["as_json"]:
        click.echo(gate.to_json())
    return CODES[gate.outcome]


def _checked(
    fingerprint: str, given: GivenSuspect, against: tuple[str, ...], asking: AskingOptions, logs: str | None
) -> ReleaseGate:
    from metav.cli.named_models import importing_from_here

    with importing_from_here():
        try:
            others = [_other(text, given.recorded) for text in against]
            return check_release(fingerprint, given.open(), against=others, asking=asking, logs=logs)
        except KeyboardInterrupt:
            hint = "with --logs FOLDER it can continue" if logs is None else f"the same command goes on from {logs}"
            tell(f"\nstopped; {hint}")
            raise click.exceptions.Exit(ExitCode.STOPPED) from None


def _other(text: str, recorded: bool) -> Any:
    """Return somebody else's fingerprint, or a pair of it and the answers to its queries."""
    name, equals, answers = text.rpartition("=")
    if not equals or Path(text).exists():
        return text
    return name, NumberedRecording(answers) if recorded else answers
