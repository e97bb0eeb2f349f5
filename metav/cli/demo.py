"""`metav demo`: what a fingerprint can do, offline and in under a minute."""

from __future__ import annotations

from pathlib import Path

import click

from metav.cli.output_files import check_target
from metav.cli.program import SUCCESS, jobs_option, json_option, seed_option, stdout_kept_clean, tell


@click.command("demo")
@seed_option
@click.option("--output", default="metav_demo.png", show_default=True, metavar="FILE", help="Where the picture goes.")
@jobs_option
@json_option
def demo_command(seed: int, output: str, jobs: int | None, as_json: bool) -> int:
    """Show what a fingerprint can do, offline and in under a minute, on real handwritten digits.

    Trains a small CNN, makes its fingerprint, then verifies models derived from it and models trained independently,
    with seeds, strengths and architectures that the fingerprint never saw. After the first training, of a few seconds,
    it tells how long the rest will take here.
    """
    from metav.experiments.demonstration import run_demo, write_picture
    from metav.reports.score_plot import PICTURES

    picture = Path(output)
    check_target(picture, overwrite=True, endings=PICTURES)
    with stdout_kept_clean():
        result = run_demo(seed=seed, jobs=jobs, say=tell)
        write_picture(result, picture)
        tell(f"Picture: {picture}")
    if as_json:
        click.echo(result.to_json())
    return SUCCESS
