"""The command line: all commands of `metav`, and what their exit codes stand for.

Results for programs go to stdout as JSON, everything for people to stderr. Exit codes say what was found, so that none
of them may come from anything else: an unexpected failure, or a suspect's code that calls sys.exit, is a run error.
"""

from __future__ import annotations

import click

from metav.cli.program import LazyCommands, Program
from metav.support.versions import version_of

_EPILOG = """\b
Exit codes of all commands:
  0  no match (verify, scan), passed (gate), or done (every other command)
  1  match: the suspect was derived from the owner's model; or a check that failed (gate)
  2  error: a file, a model or data that cannot be used
  3  inconclusive: the suspect failed, or its answers cannot be scored
  4  usage: an unknown command or option, or a missing argument
"""


COMMANDS = {
    "demo": "metav.cli.demo:demo_command",
    "fingerprint": "metav.cli.fingerprint:fingerprint_command",
    "inspect": "metav.cli.inspect:inspect_command",
    "verify": "metav.cli.verify:verify_command",
    "gate": "metav.cli.gate:gate_command",
    "scan": "metav.cli.scan:scan_command",
    "log": "metav.cli.log:log_group",
    "queries": "metav.cli.queries:queries_group",
    "zoo": "metav.cli.zoo:zoo_group",
    "cache": "metav.cli.cache:cache_group",
    "doctor": "metav.cli.doctor:doctor_command",
    "completion": "metav.cli.completion:completion_command",
    "reproduce": "metav.cli.reproduce:reproduce_command",
}
"""Where each command lives."""


@click.group(
    cls=Program,
    commands=LazyCommands(COMMANDS),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
