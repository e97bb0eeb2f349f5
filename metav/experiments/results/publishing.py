"""Writes the page of one task's results: all tables of all scales, and what they were made with. No PyTorch.

The owners of a scale stand together, the development owner apart, and so do runs on another device or with other
versions: such runs are parts of a page, each with the commands that make it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from metav.errors import InputError
from metav.experiments.results.figures import PUBLISHED, write_figures
from metav.experiments.results.run_records import Record
from metav.experiments.results.tables import titled_tables, versions_text
from metav.experiments.runs.records import read_prepared, read_runs, write_text
from metav.experiments.runs.regime_groups import REGIME_GROUPS, no_scheme
from metav.experiments.scenarios.registry import EXPERIMENT_TASKS
from metav.experiments.scenarios.scales import SCALES

DEVELOPMENT_OWNER = 0
"""The owner whose test suspects were looked at while the method was improved: its figures are no blind test's."""

SCALES_TOLD: Mapping[str, str] = MappingProxyType({"smoke": "Its rates mean nothing: it shows that everything runs."})
"""What a reader must know of a scale."""

HOW_TO_READ = """\
Owners are trained by plain PyTorch loops, none of them metav's; "told" says whether metav was told the owner's recipe
(`recipe=`) or not. Found are derived suspects with the verdict MATCH, accused are honest ones with it, each of all
that were asked. Suspects with the verdict INCONCLUSIVE are neither, and are counted in columns of their own.
The rates of one owner's seeds are averaged (found rounded down, accused up) and added over owners, so that the exact
95 % interval (Clopper-Pearson) behind each counts every suspect once. Every other scheme has a threshold of its own, by
metav's rule from the scores of the same independent calibration models, which it did not learn from (on the scores or
their log-odds, whichever finds more). AUC, ARUC and the
TPR at 1 % and 5 % FPR, both read off the suspects' own ROC curve, are means over runs, with the standard deviation over
runs behind ±; who got no verdict or score ranks lowest there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a page: runs that were made alike.

    title: which scale and owners.
    facts: lines that say what it was made with.
    commands: that make it again.
    tables: (title, Markdown).
    pictures: names of files beside the page.
    """

    title: str
    facts: tuple[str, ...]
    commands: tuple[str, ...]
    tables: tuple[tuple[str, str], ...]
    pictures: tuple[str, ...] = ()


def publish(task: str, output: Path, folder: Path) -> Path:
    """Write `<task>.md` into a folder, from the records of all scales and owners below `output`; return its path.

    Raises InputError where there are no results of the task, or the page cannot be written.
    """
    parts: list[Part] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error}); choose another folder with --publish") from error
    for scale in reversed(SCALES):
        results = output / f"{task}-{scale}"
        if results.is_dir():
            parts += _parts(read_runs(results), read_prepared(results), folder)
    if not parts:
        raise InputError(f"there are no results of {task} in {output}; run `metav reproduce` first, with this --output")
    origin = f"Written by `metav reproduce {task} --report --publish FOLDER` from the records of the runs."
    path = folder / f"{task}.md"
    write_text(path, page(task, [origin], parts))
    return path


def page(task: str, origin: Sequence[str], parts: Sequence[Part]) -> str:
    """Return a page as Markdown.

    origin: paragraphs that say where its tables come from.
    """
    texts = [f"# Results: {task}", *origin, HOW_TO_READ]
    for part in parts:
        texts += [
            f"## {part.title}",
            "\n".join(f"- {fact}" for fact in part.facts),
            "Made by",
            "\n".join(f"    {command}" for command in part.commands),
            *(["\n".join(f"![{name}]({name})" for name in part.pictures)] if part.pictures else []),
            *(f"### {title}\n\n{table}" for title, table in part.tables),
        ]
    return "\n\n".join(texts) + "\n"


def _parts(runs: Sequence[Record], prepared: Sequence[Record], folder: Path) -> Iterator[Part]:
    groups: dict[tuple[bool, str, str], list[Record]] = {}
    for run in runs:
        key = (run["owner_seed"] == DEVELOPMENT_OWNER, run["device"], versions_text(run))
        groups.setdefault(key, []).append(run)
    in_order = sorted(groups.items(), key=lambda item: item[0])
    for number, ((is_development, device, versions), group) in enumerate(in_order, start=1):
        owners = sorted({run["owner_seed"] for run in group})
        built = [record for record in prepared if record.get("settings", {}).get("owner_seed") in owners]
        scale = group[0]["scale"]
        facts = [
            f"owners: {_listed(owners)}" + (", the development owner: not a blind test" if is_development else ""),
            f"seeds of the fingerprints: {_listed(sorted({run['seed'] for run in group}))}",
            f"runs: {len(group)}",
            f"owners' recipes: {_recipes(group)}",
            f"device: {device}",
            f"versions: {versions}",
            *([f"scale: {SCALES_TOLD[scale]}"] if scale in SCALES_TOLD else []),
        ]
        title = f"Scale {scale}, {_named(owners)}"
        prefix = f"{group[0]['task']}-{scale}-{number}-"
        pictures = write_figures(folder, group, built, names=PUBLISHED, prefix=prefix) if not is_development else []
        yield Part(
            title=title,
            facts=tuple(facts),
            commands=tuple(commands_of(group)),
            tables=tuple(titled_tables(group, built)),
            pictures=tuple(path.name for path in pictures),
        )


def commands_of(runs: Sequence[Record]) -> list[str]:
    """Return the commands that make these runs again, one for each owner, set of seeds and choice of other schemes."""
    seeds: dict[tuple[str, str], dict[str, list[int]]] = {}
    for run in runs:
        seeds.setdefault(_options(run), {}).setdefault(run["regime"], []).append(run["seed"])
    commands = []
    for (start, schemes), by_regime in seeds.items():
        alike: dict[tuple[int, ...], list[str]] = {}
        for regime, found in by_regime.items():
            alike.setdefault(tuple(sorted(set(found))), []).append(regime)
        for values, regimes in alike.items():
            chosen = f"--seeds {_listed(values, ',')} --regimes {','.join(sorted(regimes, key=_place))}"
            commands.append(f"{start} {chosen} {schemes}".rstrip())
    return sorted(commands)


def _options(run: Record) -> tuple[str, str]:
    """Return the command of a run without its regime and seed, and its option about other schemes."""
    data = " --data FOLDER" if EXPERIMENT_TASKS[run["task"]].needs_data else ""
    device = "" if run["device"] == "cpu" else f" --device {run['device']}"
    start = f"metav reproduce {run['task']}{data} --scale {run['scale']} --owner {run['owner_seed']}{device}"
    by_default = run["scale"] != "smoke"
    # a group without schemes beside it is made alike by either option
    beside = by_default if REGIME_GROUPS[run["group"]].beside is no_scheme else bool(run["baselines"])
    if beside == by_default:
        return start, ""
    return start, "--baselines" if beside else "--no-baselines"


def _recipes(runs: Sequence[Record]) -> str:
    found = {run["owner_seed"]: run.get("owner_recipe", "not recorded") for run in runs if run["group"] != "base"}
    return "; ".join(f"{owner}: {name}" for owner, name in sorted(found.items())) or "those of a public base"


def _place(regime: str) -> tuple[int, int, str]:
    group, _, detail = regime.partition(":")
    return list(REGIME_GROUPS).index(group), int(detail) if detail.isdigit() else 0, detail


def _named(owners: Sequence[int]) -> str:
    if DEVELOPMENT_OWNER in owners:
        return "development owner"
    return f"{'owner' if len(owners) == 1 else 'owners'} {_listed(owners)}"


def _listed(values: Sequence[int], separator: str = ", ") -> str:
    return separator.join(map(str, values))
