"""`metav verify`: judge a suspect; the exit code says the decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import click

from metav.cli.model_inputs import interface_of, interface_options
from metav.cli.output_files import check_target
from metav.cli.program import ExitCode, json_option, stdout_kept_clean, tell, trained_option, weights_option
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.verdicts.verdict import Verdict
from metav.verdicts.verification import verify


@click.command("verify")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("suspect", metavar="SUSPECT")
@weights_option
@trained_option
@interface_options
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Queries per call.")
@click.option("--plot", metavar="FILE", help="Draw the score among the calibration scores into this picture file.")
@click.option("--report", "reports", multiple=True, metavar="FILE", help="Write a report, such as r.html; repeatable.")
@json_option
def verify_command(
    fingerprint: str,
    suspect: str,
    weights: str | None,
    trained: bool,
    model_output: str | None,
    query_input: str | None,
    constant_inputs: tuple[str, ...],
    batch_size: int,
    plot: str | None,
    reports: tuple[str, ...],
    as_json: bool,
) -> NoReturn:
    """Judge whether a suspect was derived from the owner's model; the exit code says it (0 no match, 1 match).

    SUSPECT is a file of recorded answers (.npy, .npz, .csv or .json, one row per query), or pkg.module:build with
    --weights. A build() that returns a function from queries to answers, such as a remote model's client, needs none.

    \b
    Examples:
      metav verify owner.metav answers.csv
      metav verify owner.metav models:build --weights suspect.safetensors --json
      metav verify owner.metav clients:connect --batch-size 16 --report verdict.html
    """
    from metav.cli.named_models import names_a_builder
    from metav.reports.registry import report_for

    is_builder = names_a_builder(suspect)
    if not is_builder and (weights is not None or trained):
        raise click.UsageError("--weights and --trained go with pkg.module:build, not with a file of recorded answers")
    fp = load(fingerprint)
    files = [*reports, *(() if plot is None else (plot,))]
    writers = [report_for(file).write for file in files]
    for file in files:
        check_target(Path(file), overwrite=True)
    interface = interface_of(model_output, query_input, constant_inputs)
    with stdout_kept_clean():
        verdict = _verdict(fp, suspect, is_builder, weights, trained, {"batch_size": batch_size, **interface})
        tell(str(verdict))
        for write, file in zip(writers, files, strict=True):
            write(fp, verdict, file)
            tell(f"written: {file}")
    if as_json:
        click.echo(verdict.to_json())
    raise click.exceptions.Exit(ExitCode[verdict.decision.name])


def _verdict(
    fp: Fingerprint, suspect: str, is_builder: bool, weights: str | None, trained: bool, options: dict[str, Any]
) -> Verdict:
    from metav.cli.named_models import build_model, importing_from_here

    if not is_builder:
        return verify(fp, suspect, **options)
    with importing_from_here():
        model = build_model(suspect, weights, trained=trained)
        return verify(fp, model, **options)
