"""The structure of the package: its stations in the order of the data's way, and who imports whom.

    python tests/structure.py             stations, their modules and lines, what each imports from, levels
    python tests/structure.py --arrows    every import between stations, module by module

`ORDER` is the import rule: a station imports only from those above it, and nobody but the facade looks down. The script
ends with 1 where that does not hold. CONTRIBUTING.md quotes the order; tests/test_structure.py holds both to it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "metav"

ORDER: Mapping[str, str] = {
    "errors": "one class per thing a user can act on",
    "_core": "types of the extension",
    "support": "random numbers, progress, files (the one atomic write), argument checks, arrays, JSON, HTML tables",
    "statistics": "exact intervals, p-values, tolerance limits, ROC and ARUC, calibration",
    "verifiers": "members in the core, the meta-verifier, views and forms of answers",
    "models": "running and training a model, its identity, architectures, ensembles",
    "tasks": "what a model does: kinds, base, classification, regression, generation; recipes",
    "obfuscations": "the table, and one file per way of working (tuning, rewriting, students)",
    "zoo": "plan, training, cache, the zoo itself",
    "optimization": "options, the joint optimisation, queries (natural, boundary, pool), candidates",
    "fingerprints": "the artefact, its file, its commitment",
    "fingerprinting": "the one call that joins all stations so far",
    "estimation": "what a fingerprint will cost, before it is made",
    "suspects": "how a suspect is asked: a registry, one file per kind",
    "verdicts": "form, access, competence, score, decision; evaluation",
    "reports": "plots, pages",
    "integrations": "training pipelines, one file per framework",
    "baselines": "the schemes it is compared with",
    "experiments": "scenarios, attacks, suspects, runs, results",
    "cli": "one file per command",
    "selftest": "tests that need nothing but what is installed",
    "metav": "the facade: the public names, lazily, and nothing else",
}
"""Stations, from the first to the last, with what lives there."""

WITHOUT_TORCH = (
    "errors",
    "support",
    "statistics",
    "verifiers",
    "fingerprints",
    "suspects",
    "verdicts",
    "reports",
    "cli",
)
"""Stations that import no PyTorch at module level: a fingerprint is read, and a verdict made, without it."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """One import: from a module to another, and the line it stands in."""

    source: str
    target: str
    line: int


def station_of(module: str) -> str:
    """Return the station of a module such as "metav.zoo.plan"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


@cache
def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return every module of the package with its file; the extension counts by its types."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def arrows(package: Path = PACKAGE) -> tuple[Arrow, ...]:
    """Return every import of one module of the package by another, those inside functions included."""
    known = modules(package)
    found = []
    for module, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found += [Arrow(module, target, node.lineno) for target in _targets(node, module, path, known)]
    return tuple(arrow for arrow in found if arrow.source != arrow.target)


def _targets(node: ast.AST, module: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules that an import statement names: for `from metav.zoo import plan` it is metav.zoo.plan."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == "metav":
                yield _nearest(alias.name, known)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
        if base.partition(".")[0] == "metav":
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in known else _nearest(base, known)


def _nearest(name: str, known: Mapping[str, Path]) -> str:
    while name not in known and "." in name:
        name = name.rpartition(".")[0]
    return name


def upward(found: tuple[Arrow, ...]) -> list[Arrow]:
    """Return the arrows against the order: to a station below, or to the facade."""
    place = {station: number for number, station in enumerate(ORDER)}
    return [
        arrow
        for arrow in found
        if station_of(arrow.source) != "metav" and place[station_of(arrow.target)] > place[station_of(arrow.source)]
    ]


def circles(found: tuple[Arrow, ...]) -> list[list[str]]:
    """Return circles of modules, one for each import that closes one; packages stand for what they import."""
    followed: dict[str, set[str]] = {}
    for arrow in found:
        if station_of(arrow.source) != "metav":
            followed.setdefault(arrow.source, set()).add(arrow.target)
    closed: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            closed.append([*way[way.index(module) :], module])
        elif module not in done:
            for target in sorted(followed.get(module, ())):
                visit(target, [*way, module])
            done.add(module)

    for module in sorted(followed):
        visit(module, [])
    return closed


def levels(found: tuple[Arrow, ...]) -> dict[str, int]:
    """Return the level of each module: 1 + the highest level of those that it imports; nothing where circles are."""
    if circles(found):
        return {}
    followed: dict[str, set[str]] = {}
    for arrow in found:
        followed.setdefault(arrow.source, set()).add(arrow.target)

    @cache
    def level(module: str) -> int:
        return 1 + max((level(target) for target in followed.get(module, ())), default=0)

    return {module: level(module) for module in modules()}


def report() -> str:
    """Return the stations as a table, with their sizes, levels and arrows."""
    found, height = arrows(), levels(arrows())
    rows = []
    for station in ORDER:
        own = {name: path for name, path in modules().items() if station_of(name) == station}
        if not own:
            rows.append(f"{station:<15}     (nothing yet)")
            continue
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in own.values())
        reached = sorted({height.get(name, 0) for name in own})
        span = f"{reached[0]}-{reached[-1]}" if len(reached) > 1 else str(reached[0])
        used = {station_of(arrow.target) for arrow in found if station_of(arrow.source) == station} - {station}
        sources = ", ".join(name for name in ORDER if name in used) or "-"
        rows.append(f"{station:<15} {len(own):>3} modules {lines:>6} lines  levels {span:<6} imports {sources}")
    between = [arrow for arrow in found if station_of(arrow.source) != station_of(arrow.target)]
    rows.append("")
    rows.append(
        f"{len(modules())} modules, {max(height.values(), default=0)} levels, {len(between)} arrows between stations"
    )
    rows.append(f"upwards: {len(upward(found))}, circles: {len(circles(found))}")
    return "\n".join(rows)


def main() -> int:
    """Print the structure; 1 where an arrow points upwards or in a circle."""
    if "--arrows" in sys.argv:
        for arrow in arrows():
            if station_of(arrow.source) != station_of(arrow.target):
                print(f"{arrow.source} -> {arrow.target}  (line {arrow.line})")
    print(report())
    for arrow in upward(arrows()):
        print(f"upwards: {arrow.source} imports {arrow.target} in line {arrow.line}")
    for circle in circles(arrows()):
        print("circle: " + " -> ".join(circle))
    return 1 if upward(arrows()) or circles(arrows()) else 0


if __name__ == "__main__":
    sys.exit(main())
