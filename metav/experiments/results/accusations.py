"""The page of accused honest models: how many of each kind and task, with exact intervals. No PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metav.errors import InputError
from metav.experiments.results.markdown import count_text, markdown
from metav.experiments.results.run_records import TOLD_NAMES
from metav.experiments.results.tables import versions_text
from metav.experiments.runs.records import write_text
from metav.statistics.intervals import Interval, exact_interval
from metav.verdicts.verdict import Decision

Record = Mapping[str, Any]
ALL = "all"
ABOUT = """\
How often honest models are accused. Each owner is trained by a plain PyTorch loop of its own. Its fingerprint is made
from metav's usual zoo, once with the owner's recipe told and once without, and judges honest models that no zoo holds:
by the owner's recipe with other seeds, by other recipes and loops, of other architectures, on other data, obfuscated,
and scikit-learn's. Accused are those with the verdict MATCH, of all that were asked; the 95 % intervals are exact
(Clopper-Pearson)."""


def accused(records: Sequence[Record]) -> Interval:
    """Return how many of the honest models of these records are accused, of all that were asked."""
    decisions = [entry["decision"] for record in records for entry in record["honest"]]
    return exact_interval(sum(decision == Decision.MATCH.value for decision in decisions), len(decisions))


def accusations_table(records: Sequence[Record], column: str, key: Callable[[Record, Record], str]) -> str:
    """Return one row a value of `key`, and one of all: accused honest models where the recipe is told and where not.

    column: what the values are.
    key: from a record and one of its honest models to a value.
    """
    told = list(dict.fromkeys(record["recipe"] for record in records))
    names = [*dict.fromkeys(key(record, entry) for record in records for entry in record["honest"]), ALL]
    rows = []
    for name in names:
        cells = []
        for recipe in told:
            chosen = [
                entry
                for record in records
                if record["recipe"] == recipe
                for entry in record["honest"]
                if name in (ALL, key(record, entry))
            ]
            matched = sum(entry["decision"] == Decision.MATCH.value for entry in chosen)
            undecided = sum(entry["decision"] == Decision.INCONCLUSIVE.value for entry in chosen)
            cells += [count_text(exact_interval(matched, len(chosen))), str(undecided)]
        rows.append((name, *cells))
    heads = [head for recipe in told for head in (f"accused, recipe {TOLD_NAMES.get(recipe, recipe)}", "undecided")]
    return markdown((column, *heads), rows)


def accusations_tables(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Return the title and the Markdown of each table."""
    owner = "{task}, owner {owner_seed} ({owner_recipe})"
    return [
        ("By kind of model", accusations_table(records, "kind", lambda _, entry: str(entry["family"]))),
        ("By owner", accusations_table(records, "owner", lambda record, _: owner.format_map(record))),
    ]


def accusations_lines(records: Sequence[Record]) -> list[str]:
    """Return lines for people: the exact interval of each kind and of all, for each thing that metav was told."""
    lines = []
    for recipe in dict.fromkeys(record["recipe"] for record in records):
        chosen = [record for record in records if record["recipe"] == recipe]
        for family in dict.fromkeys(entry["family"] for record in chosen for entry in record["honest"]):
            part = [
                {**record, "honest": [entry for entry in record["honest"] if entry["family"] == family]}
                for record in chosen
            ]
            lines.append(f"recipe {TOLD_NAMES.get(recipe, recipe)}, {family}: accused {accused(part)}")
        lines.append(f"recipe {TOLD_NAMES.get(recipe, recipe)}, all honest models: accused {accused(chosen)}")
    return lines


def publish_accusations(records: Sequence[Record], folder: Path) -> Path:
    """Write `accusations.md` into a folder and return its path.

    Raises InputError where there are no records, or the page cannot be written.
    """
    if not records:
        raise InputError("there are no accusations yet; run `metav reproduce accusations` first, with this --output")
    first = records[0]
    distinct = {(record["task"], entry["run"]) for record in records for entry in record["honest"]}
    text = [
        "# Results: accusations",
        "Written by `metav reproduce accusations --report --publish FOLDER` from the records of the runs.",
        ABOUT,
        f"- honest models, all different: {len(distinct)}\n"
        f"- scale: {first['scale']}\n"
        f"- device: {first['device']}\n"
        f"- versions: {versions_text(first)}",
        "Made by",
        f"    metav reproduce accusations --scale {first['scale']} --data FOLDER",
        *(f"## {title}\n\n{table}" for title, table in accusations_tables(records)),
    ]
    path = folder / "accusations.md"
    write_text(path, "\n\n".join(text) + "\n")
    return path
