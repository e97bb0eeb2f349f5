"""The command line: all commands of `metav`, and what their exit codes stand for.

Results for programs go to stdout as JSON, everything for people to stderr. Exit codes say what was found, so that none
of them may come from anything else: an unexpected failure, or a suspect's code that calls sys.exit, is a run error.
"""

from __future__ import annotations

import click

from metav.cli.demo import demo_command
from metav.cli.fingerprint import fingerprint_command
from metav.cli.gate import gate_command
from metav.cli.inspect import inspect_command
from metav.cli.log import log_group
from metav.cli.program import Program
from metav.cli.queries import queries_group
from metav.cli.reproduce import reproduce_command
from metav.cli.scan import scan_command
from metav.cli.verify import verify_command
from metav.support.versions import version_of

_EPILOG = """\b
Exit codes of all commands:
  0  no match (verify, scan), passed (gate), or done (every other command)
  1  match: the suspect was derived from the owner's model; or a check that failed (gate)
  2  error: a file, a model or data that cannot be used
  3  inconclusive: the suspect failed, or its answers cannot be scored
  4  usage: an unknown command or option, or a missing argument
"""


@click.group(cls=Program, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version_of(), "-V", "--version", prog_name="metav")
def main() -> None:
    """Fingerprints of trained models: was this suspect derived from mine, with stated error rates.

    \b
    Examples:
      metav demo
      metav fingerprint models:build --weights w.safetensors --data data.npz -o owner.metav
      metav inspect owner.metav --queries queries.npy
      metav verify owner.metav answers.csv
    """


for _command in (
    demo_command,
    fingerprint_command,
    inspect_command,
    verify_command,
    gate_command,
    scan_command,
    log_group,
    queries_group,
    reproduce_command,
):
    main.add_command(_command)
