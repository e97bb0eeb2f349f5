"""`metav inspect`: what a fingerprint was made from, and its queries."""

from __future__ import annotations

from pathlib import Path

import click

from metav.cli.cards import fingerprint_card
from metav.cli.output_files import QUERY_WRITERS, check_target, write_queries
from metav.cli.program import SUCCESS, json_option, tell
from metav.fingerprints.fingerprint import load


@click.command("inspect")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.option("--queries", metavar="FILE", help="Write the queries, in order, to this .npy or .npz file.")
@click.option("--force", is_flag=True, help="Overwrite the file of queries if it exists.")
@json_option
def inspect_command(fingerprint: str, queries: str | None, force: bool, as_json: bool) -> int:
    """Show what a fingerprint was made from, how it decides, and its commitment; write its queries.

    \b
    Example, for a suspect that somebody else asks:
      metav inspect owner.metav --queries queries.npy
      (send the queries, record the answers in that order)
      metav verify owner.metav answers.npy
    """
    fp = load(fingerprint)
    target = None if queries is None else Path(queries)
    if target is not None:
        check_target(target, overwrite=force, endings=tuple(QUERY_WRITERS))
    tell(fingerprint_card(fp))
    if target is not None:
        write_queries(fp.queries, target)
        tell(f"{len(fp.queries)} queries written to {target}, float32 of shape {fp.queries.shape}")
    if as_json:
        click.echo(fp.to_json())
    return SUCCESS
