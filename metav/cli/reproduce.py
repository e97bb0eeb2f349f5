"""`metav reproduce`: one task of the experiments, from data to tables and figures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metav.cli.program import SUCCESS, ExitCode, jobs_option, json_option, stdout_kept_clean, tell
from metav.errors import InputError
from metav.experiments.runs.regime_groups import REGIME_GROUPS
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS
from metav.experiments.scenarios.scales import SCALES
from metav.support.arguments import MOST_SEED
from metav.support.json_values import readable_json
from metav.support.processor import job_count

if TYPE_CHECKING:
    from metav.experiments.runs.prepared_models import Plan


ACCUSATIONS = "accusations"
"""The experiment that goes over several tasks and owners."""


def _help() -> str:
    """Return the command's help, with the tasks and regimes that there are."""
    tasks = [f"{entry.name} ({entry.about})" for entry in EXPERIMENT_TASKS.values()]
    regimes = [f"{entry.name} ({entry.about})" if entry.about else entry.name for entry in REGIME_GROUPS.values()]
    return f"""Run one task of the experiments, from data to tables and figures.

TASK is one of {", ".join(tasks)}; or accusations: more than a thousand honest models of several tasks and owners,
and the exact interval of the rate at which they are accused (--owner, --seeds and --regimes play no part).

Scales: smoke ends within a minute; small takes an hour or two on two cores; paper is the full size.

Owner, surrogates and suspects are trained once and kept in --cache; each regime and seed writes one JSON file below
--output. What is there is not made again: stopped, or with further --seeds, --regimes or --owner, the same command
goes on. report.md and its figures are written at the end, over all owners of the task and scale; --publish writes the
tables of all scales as one page, with what they were made with.

Regimes: {", ".join(regimes)}; or a single one, such as output:label.

\b
Examples:
  metav reproduce digits --scale smoke
  metav reproduce skin --data FOLDER --seeds 1,2,3 --jobs 2 --background
  metav reproduce skin --report --publish FOLDER
  metav reproduce accusations --data FOLDER --background
"""


@click.command("reproduce", help=_help())
@click.argument("task", type=click.Choice([*EXPERIMENT_TASKS, ACCUSATIONS]))
@click.option("--scale", type=click.Choice(SCALES), default="small", show_default=True, help="How large (see below).")
@click.option("--data", type=click.Path(file_okay=False), help="Folder of the real data sets; digits need none.")
@click.option("--regimes", default="", metavar="NAMES", help="Regimes or groups of them, by commas.  [default: all]")
@click.option("--seeds", default="1", show_default=True, help="Seeds of the fingerprints, by commas.")
@click.option(
    "--owner",
    type=click.IntRange(0, MOST_SEED),
    default=0,
    show_default=True,
    help="Seed of data split, owner, zoo and suspects.",
)
@click.option("--cache", default="zoo-reproduce", show_default=True, help="Folder of trained models, to continue from.")
@click.option("--output", default="results", show_default=True, help="Folder of results.")
@jobs_option
@click.option("--device", default="cpu", show_default=True, help="Where models are trained and run, such as cuda.")
@click.option(
    "--baselines/--no-baselines", default=None, help="The other schemes beside metav.  [default: not at smoke]"
)
@click.option("--report", "report_only", is_flag=True, help="Only write tables and figures of the results so far.")
@click.option("--publish", metavar="FOLDER", help="Also write the tables of all scales, as one page, into this folder.")
@click.option("--background", is_flag=True, help="Go on in the background; messages go to a file in the output folder.")
@click.option("--no-progress", is_flag=True, help="No progress bars (they show on a terminal only anyway).")
@json_option
def reproduce_command(**options: Any) -> int:
    """Run one task of the experiments; see `metav reproduce --help`."""
    from metav.support.dependencies import require_torch

    if options["task"] == ACCUSATIONS:
        return _accusations(options)
    if options["report_only"]:
        runs: list[dict[str, Any]] = []
    else:
        require_torch("metav reproduce")
        plan = _plan(options)
        if options["background"]:
            return _continue_in_background(plan.folder, options)
        with stdout_kept_clean():
            runs = _run(plan, options)
    with stdout_kept_clean():
        _report(options)
    if options["as_json"]:
        click.echo(readable_json(runs))
    return SUCCESS


def _accusations(options: dict[str, Any]) -> int:
    from metav.experiments.results.accusations import accusations_lines, publish_accusations
    from metav.experiments.runs.accusations import judge_honest_models, owners_of, read_accusations
    from metav.support.dependencies import require_torch

    if options["background"] and not options["report_only"]:
        return _continue_in_background(Path(options["output"]) / ACCUSATIONS, options)
    if not options["report_only"]:
        require_torch("metav reproduce")
        with stdout_kept_clean():
            for task, owner in owners_of(options["scale"]):
                plan = _plan({**options, "task": task, "owner": owner})
                _until_stopped(judge_honest_models(plan, say=tell))
    records = [record for record in read_accusations(Path(options["output"])) if record["scale"] == options["scale"]]
    for line in accusations_lines(records):
        tell(line)
    if options["publish"] is not None:
        tell(f"written: {publish_accusations(records, Path(options['publish']))}")
    if options["as_json"]:
        click.echo(readable_json(records))
    return SUCCESS


def _until_stopped(records: Iterable[dict[str, Any]]) -> None:
    """Make all records and tell each; Ctrl-C ends the program with its own code."""
    from metav.experiments.results.accusations import accused

    try:
        for record in records:
            who = "{task}, owner {owner_seed} ({owner_recipe}), recipe {recipe}".format_map(record)
            tell(f"{who}: accused {accused([record])}")
    except KeyboardInterrupt:
        tell("\nstopped; run the same command again to continue")
        raise click.exceptions.Exit(ExitCode.STOPPED) from None


def _plan(options: dict[str, Any]) -> Plan:
    from metav.experiments.runs.prepared_models import Plan

    return Plan(
        task=options["task"],
        scale_name=options["scale"],
        data=None if options["data"] is None else Path(options["data"]),
        owner_seed=options["owner"],
        cache=Path(options["cache"]),
        output=Path(options["output"]),
        jobs=job_count(options["jobs"]),
        device=_checked_device(options["device"]),
        progress=False if options["no_progress"] else None,
    )


def _checked_device(name: str) -> str:
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {name!r} cannot be used ({reason}); pass --device cpu") from error
    return name


def _run(plan: Plan, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Make all runs and return their summaries; each is told when it is done."""
    from metav.baselines import BASELINES
    from metav.experiments.results.run_records import summary_line, summary_of
    from metav.experiments.runs.reproduction import parse_seeds, reproduce

    names = [name.strip() for name in options["regimes"].split(",") if name.strip()]
    wanted = options["scale"] != "smoke" if options["baselines"] is None else options["baselines"]
    schemes = BASELINES if wanted else {}
    summaries = []
    try:
        for result in reproduce(plan, seeds=parse_seeds(options["seeds"]), regimes=names, baselines=schemes, say=tell):
            tell(summary_line(result.record) + (" (there already)" if result.found else ""))
            summaries.append({"file": str(result.path), **summary_of(result.record)})
    except KeyboardInterrupt:
        tell("\nstopped; run the same command again to continue")
        raise click.exceptions.Exit(ExitCode.STOPPED) from None
    return summaries


def _report(options: dict[str, Any]) -> None:
    from metav.experiments.results.publishing import publish
    from metav.experiments.results.report import write_report

    output = Path(options["output"])
    for path in write_report(output / f"{options['task']}-{options['scale']}"):
        tell(f"written: {path}")
    if options["publish"] is not None:
        tell(f"written: {publish(options['task'], output, Path(options['publish']))}")


def _continue_in_background(folder: Path, options: dict[str, Any]) -> int:
    """Start the same command in a session of its own, which outlives the terminal."""
    names = ("scale", "data", "regimes", "seeds", "owner", "cache", "output", "jobs", "device", "publish")
    arguments = ["reproduce", options["task"], *(["--json"] if options["as_json"] else [])]
    for name in names:
        if options[name] not in (None, ""):
            arguments += [f"--{name}", str(options[name])]
    if options["baselines"] is not None:
        arguments.append("--baselines" if options["baselines"] else "--no-baselines")
    log = folder / "log.txt"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "metav.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
    except OSError as error:
        raise InputError(f"{log} cannot be written ({error}); choose another folder with --output") from error
    tell(f"process {process.pid} goes on in the background; its messages are in {log}")
    return SUCCESS
