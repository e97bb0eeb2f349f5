"""`metav queries`: the queries of a fingerprint, for somebody else to ask."""

from __future__ import annotations

import click

from metav.cli.program import SUCCESS, tell
from metav.fingerprints.fingerprint import load
from metav.reports.query_folder import write_query_folder


@click.group("queries")
def queries_group() -> None:
    """Give the queries to somebody else to ask."""


@queries_group.command("export")
@click.argument("fingerprint", metavar="FINGERPRINT")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="The folder to make.")
def export_queries_command(fingerprint: str, output: str) -> int:
    """Write the queries as arrays, pictures and a table, with a form for the answers and a page that explains it.

    \b
    Example:
      metav queries export owner.metav -o queries
      (send the folder, get the filled form back, rows in any order)
      metav verify owner.metav answers.csv --recorded
    """
    folder = write_query_folder(load(fingerprint), output)
    width = max(len(name) for name, _ in folder.files)
    tell(f"written to {folder.path}:")
    for name, text in folder.files:
        tell(f"  {name.ljust(width)}  {text}")
    for note in folder.notes:
        tell(f"note: {note}")
    tell("whoever has these queries can evade the fingerprint: send them only to somebody you trust")
    return SUCCESS
