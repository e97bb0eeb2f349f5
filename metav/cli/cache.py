"""`metav cache`: the trained models in a folder given as --cache or cache=."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import click

from metav.cli.program import SUCCESS, json_option, tell
from metav.support.json_values import readable_json
from metav.support.text import byte_size, duration, harmless
from metav.zoo.cache_folder import CachedRun, CacheFolder, read_cache_folder, remove_runs
from metav.zoo.folder_format import zoo_state

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
MOST_SHOWN = 30
"""Models that are listed one by one for people; JSON holds all."""


class Age(click.ParamType[float]):
    """A span of time on the command line, in seconds: 45m, 12h, 30d, 2w."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds that a text stands for."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is no age; expected a number and m, h, d or w, such as 12h or 30d", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


@click.group("cache")
def cache_group() -> None:
    """List or delete trained models that were kept with --cache FOLDER or cache=.

    There is no folder by default: a cache is where you put it.

    \b
    Examples:
      metav cache list zoo
      metav cache clear zoo --older-than 30d --dry-run
    """


@cache_group.command("list")
@click.argument("folder", metavar="FOLDER")
@click.option("--all", "every", is_flag=True, help=f"List every model, not only the {MOST_SHOWN} newest.")
@json_option
def cache_list_command(folder: str, every: bool, as_json: bool) -> int:
    """Show the models in a cache folder: what they belong to, size, age."""
    held = read_cache_folder(folder)
    for line in _listed(held, None if every else MOST_SHOWN):
        tell(line)
    if as_json:
        click.echo(readable_json(_described(held, held.runs)))
    return SUCCESS


@cache_group.command("clear")
@click.argument("folder", metavar="FOLDER")
@click.option("--older-than", type=Age(), metavar="AGE", help="Only what was trained longer ago: 45m, 12h, 30d, 2w.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def cache_clear_command(folder: str, older_than: float | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Delete trained models from a cache folder; they would have to be trained again.

    Only files go that metav wrote, as their names and heads tell. Anything else stays, and so do links, which are never
    followed, and the plan of a zoo (zoo.json), whose parts can be trained again. Do not clear the cache of a zoo that
    is being trained.
    """
    held = read_cache_folder(folder)
    chosen = tuple(run for run in held.runs if older_than is None or run.age > older_than)
    for line in _summary(held, chosen):
        tell(line)
    if chosen and not dry_run:
        if not yes:
            click.confirm(f"Delete {_amount(chosen)}?", abort=True, err=True)
        chosen = tuple(remove_runs(chosen))
        tell(f"deleted {_amount(chosen)}")
    else:
        tell(f"would delete {_amount(chosen)}" if chosen else "nothing to delete")
    if as_json:
        click.echo(readable_json({**_described(held, chosen), "deleted": not dry_run}))
    return SUCCESS


def _described(held: CacheFolder, runs: tuple[CachedRun, ...]) -> dict[str, Any]:
    return {
        "folder": str(held.folder),
        "bytes": sum(run.size for run in runs),
        "models": [run.to_dict() for run in runs],
        "zoos": [{"plan": str(path), **zoo_state(path.parent).to_dict()} for path in held.plans],
        "left_alone": [str(path) for path in held.foreign],
    }


def _listed(held: CacheFolder, most: int | None) -> list[str]:
    lines = _summary(held, held.runs)
    shown = held.runs[::-1][:most]
    rows = [("age", "size", "models", "metric", "what")]
    rows += [
        (duration(run.age), byte_size(run.size), str(run.models), _metric(run.metric), _name(run)) for run in shown
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    if shown:
        lines += ["  ".join([*map(str.rjust, row[:4], widths), row[4]]) for row in rows]
    if len(shown) < len(held.runs):
        lines.append(f"... and {len(held.runs) - len(shown)} older ones (--all lists them)")
    return lines


def _summary(held: CacheFolder, runs: tuple[CachedRun, ...]) -> list[str]:
    """Return how many models belong to which owner's model, which zoos are planned, and what is none of metav's."""
    lines = [f"{harmless(held.folder)}: {_amount(runs)}"]
    owners: dict[str, list[CachedRun]] = defaultdict(list)
    for run in runs:
        owners[_owner(run)].append(run)
    lines += [f"  {owner}: {_amount(tuple(own))}" for owner, own in owners.items()]
    for path in held.plans:
        state = zoo_state(path.parent)
        plan = harmless(path.relative_to(held.folder), limit=80)
        lines.append(f"  {plan} is the plan of a zoo, of which {state.trained} of {state.planned} models are there")
    if held.foreign:
        names = ", ".join(harmless(path.name, limit=80) for path in held.foreign[:3])
        more = f" and {len(held.foreign) - 3} more" if len(held.foreign) > 3 else ""
        lines.append(f"  left alone, as metav did not write them or they are links: {names}{more}")
    return lines


def _owner(run: CachedRun) -> str:
    if run.owner is None:
        return "of an owner's model that the files do not state"
    return harmless(f"of the owner's model {run.model} {run.owner}, {run.task}", limit=200)


def _name(run: CachedRun) -> str:
    return harmless(run.run or f"{run.path.stem[:12]}...", limit=200)


def _metric(metric: float | None) -> str:
    return "-" if metric is None else f"{metric:.3g}"


def _amount(runs: tuple[CachedRun, ...]) -> str:
    count = "1 training run" if len(runs) == 1 else f"{len(runs)} training runs"
    return f"{count}, {byte_size(sum(run.size for run in runs))}"
