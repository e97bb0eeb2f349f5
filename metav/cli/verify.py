"""`metav verify`: judge a suspect; the exit code says the decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from metav.cli.asking import asking_from, asking_options
from metav.cli.given_suspects import GivenSuspect, given_suspect_options
from metav.cli.output_files import check_target
from metav.cli.program import (
    SUCCESS,
    ExitCode,
    json_option,
    stdout_kept_clean,
    tell,
)
from metav.cli.suspect_options import suspect_options
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.support.files import path_text
from metav.support.json_values import readable_json
from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_preview import AskingPreview, preview_asking
from metav.verdicts.verdict import Verdict
from metav.verdicts.verification import verify


@click.command("verify")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.argument("suspect", metavar="SUSPECT")
@given_suspect_options
@suspect_options
@asking_options
@click.option("--dry-run", is_flag=True, help="Say what would be sent and what it would cost; send nothing.")
@click.option("--no-progress", is_flag=True, help="No progress bar (it shows on a terminal only anyway).")
@click.option("--plot", metavar="FILE", help="Draw the score among the calibration scores into this picture file.")
@click.option("--report", "reports", multiple=True, metavar="FILE", help="Write a report, such as r.html; repeatable.")
@json_option
def verify_command(fingerprint: str, suspect: str, options: dict[str, Any], **rest: Any) -> int:
    """Judge whether a suspect was derived from the owner's model; the exit code says it (0 no match, 1 match).

    SUSPECT is a file of recorded answers (.npy, .npz, .csv, .tsv, .json or .jsonl, one row per query); an .onnx file;
    the address of a model behind the Open Inference Protocol or MLflow; a service's template (.yaml, .toml); a .pt2 or
    TorchScript archive with --trust-code; or pkg.module:build with --weights. A build() that returns a function from
    queries to answers, such as a remote model's client, needs none.
    Labels alone, and rounded scores, are answers like any other: the verdict is then by the rule for what is left.

    \b
    Examples:
      metav verify owner.metav answers.csv
      metav verify owner.metav model.onnx --output logits
      metav verify owner.metav service.yaml --log run.db --budget 500 --rate 5 --decoys 20
      metav verify owner.metav https://host/v2/models/m/infer --header 'Authorization: Bearer $TOKEN' --dry-run
      metav verify owner.metav models:build --weights suspect.safetensors --json
      metav verify owner.metav answers.csv --recorded
      metav verify owner.metav clients:connect --batch-size 16 --report verdict.html
    """
    from metav.reports.registry import report_for
    from metav.reports.score_plot import PICTURES

    given = GivenSuspect(
        text=suspect,
        weights=rest["weights"],
        trained=rest["trained"],
        recorded=rest["recorded"],
        options=options,
    )
    progress = False if rest["no_progress"] else None
    asking = asking_from({**rest, "progress": progress, "timeout": given.timeout})
    fp = load(fingerprint)
    files = [*rest["reports"], *(() if rest["plot"] is None else (rest["plot"],))]
    writers = [report_for(file).write for file in files]
    for file in files:
        check_target(Path(file), overwrite=True, endings=PICTURES if file == rest["plot"] else None)
    with stdout_kept_clean():
        found = _judged(fp, given, asking, dry_run=rest["dry_run"])
        tell(str(found))
        if isinstance(found, Verdict):
            for write, file in zip(writers, files, strict=True):
                write(fp, found, file)
                tell(f"written: {file}")
    if rest["as_json"]:
        click.echo(readable_json(found.to_dict()))
    return ExitCode[found.decision.name] if isinstance(found, Verdict) else SUCCESS


def _judged(fp: Fingerprint, given: GivenSuspect, asking: AskingOptions, *, dry_run: bool) -> Verdict | AskingPreview:
    """Return the verdict, or what would be sent for it."""
    from metav.cli.named_models import importing_from_here

    with importing_from_here():
        opened = given.open()
        if dry_run:
            return preview_asking(fp, opened, asking)
        try:
            return verify(fp, opened, asking=asking)
        except KeyboardInterrupt:
            hint = "with --log FILE it can continue"
            if asking.log is not None:
                hint = (
                    f"the same command goes on from {path_text(asking.log)}, and asks nothing twice that was answered"
                )
            tell(f"\nstopped; {hint}")
            raise click.exceptions.Exit(ExitCode.STOPPED) from None
