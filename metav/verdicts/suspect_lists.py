"""Lists of suspects: files, folders, patterns, and lists in YAML or JSON."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metav.errors import InputError, MissingDependencyError
from metav.support.files import file_digest
from metav.support.json_values import readable_json
from metav.suspects.http.addresses import is_address
from metav.suspects.registry import SUSPECT_KINDS

LIST_KEY = "suspects"
"""Key of the list in a file of suspects, which tells it from a service's template."""
_KEYS = frozenset({"name", "suspect", "weights", "trained", "options"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectEntry:
    """One suspect of a list.

    name: in tables, unique in its list.
    source: a path, an address or pkg.module:build.
    weights, trained: of pkg.module:build, as on the command line.
    options: how it is asked, as `open_suspect` takes them.
    """

    name: str
    source: str
    weights: str | None = None
    trained: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> str:
        """Return a digest that changes with the suspect's file, weights and options."""
        files = [name for name in (self.source, self.weights) if name is not None and os.path.isfile(name)]
        parts = [self.source, str(self.trained), readable_json(dict(self.options)), *map(file_digest, files)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectList:
    """Suspects to be judged, and files that lay among them and are none.

    entries: of different names. skipped: paths.
    """

    entries: tuple[SuspectEntry, ...]
    skipped: tuple[str, ...] = ()


def read_suspects(sources: Iterable[str]) -> SuspectList:
    """Return the suspects that files, folders, patterns (*.onnx), addresses, pkg.module:build and lists stand for.

    A list is a .yaml, .yml or .json file with the key "suspects": paths, or objects with "suspect" and, if wanted,
    "name", "weights", "trained" and "options"; its paths start from its own folder.

    Raises InputError where nothing is found, a list cannot be read, or two suspects have one name.
    """
    entries: list[SuspectEntry] = []
    skipped: list[str] = []
    for source in sources:
        found, left = _of_source(source)
        entries += found
        skipped += left
    if not entries:
        more = f"; {len(skipped)} files of other kinds were found" if skipped else ""
        raise InputError(f"there are no suspects in {', '.join(sources) or 'nothing'}{more}; expected {_known()}")
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"two suspects are called {twice[0]!r}; give each a name of its own in a list of suspects")
    return SuspectList(entries=tuple(entries), skipped=tuple(skipped))


def _of_source(source: str) -> tuple[list[SuspectEntry], list[str]]:
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file, path))
        known = [file for file in files if file.suffix.lower() in _endings()]
        return [SuspectEntry(name=str(file.relative_to(path)), source=str(file)) for file in known], [
            str(file) for file in files if file not in set(known)
        ]
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml", ".json"):
        content = _content(path)
        if isinstance(content, Mapping) and LIST_KEY in content:
            return [_entry(one, path) for one in _listed(content[LIST_KEY], path)], []
    if not path.exists() and any(mark in source for mark in "*?["):
        files = [Path(name) for name in sorted(glob.glob(source, recursive=True))]
        if not files:
            raise InputError(f"no file matches {source}; check the pattern")
        return [SuspectEntry(name=str(file), source=str(file)) for file in files], []
    if not path.exists() and not path.suffix and not is_address(source) and ":" not in source:
        raise InputError(f"there is no folder and no file {source}; check the path")
    return [SuspectEntry(name=source, source=source)], []


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _endings() -> set[str]:
    return {ending for kind in SUSPECT_KINDS for ending in kind.endings}


def _known() -> str:
    return f"files that end in {', '.join(sorted(_endings()))}, or a list of suspects"


def _content(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        try:
            import yaml
        except ImportError as error:
            raise MissingDependencyError(
                f"{path} is YAML, which needs PyYAML; pip install pyyaml, or write the list as JSON"
            ) from error
        return yaml.safe_load(text)
    except MissingDependencyError:
        raise
    # of a file that may as well be a suspect of its own kind, whose reader says more
    except Exception as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}); expected YAML or JSON") from error


def _listed(found: Any, path: Path) -> list[Any]:
    if not isinstance(found, list) or not found:
        raise InputError(f'"{LIST_KEY}" in {path} must be a list of at least one suspect, got {type(found).__name__}')
    return found


def _entry(one: Any, path: Path) -> SuspectEntry:
    values = {"suspect": one} if isinstance(one, str) else one
    if not isinstance(values, Mapping) or not isinstance(values.get("suspect"), str) or set(values) - _KEYS:
        raise InputError(
            f'{one!r} in {path} is no suspect; expected a path, or an object with "suspect" and, if wanted, '
            f"{', '.join(sorted(_KEYS - {'suspect'}))}"
        )
    source = _from(path.parent, values["suspect"])
    weights = None if values.get("weights") is None else _from(path.parent, str(values["weights"]))
    return SuspectEntry(
        name=str(values.get("name", values["suspect"])),
        source=source,
        weights=weights,
        trained=bool(values.get("trained", False)),
        options=_options(values.get("options"), path),
    )


def _options(value: Any, path: Path) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f'"options" in {path} must be an object of names and values, got {value!r}')
    return dict(value or {})


def _from(folder: Path, text: str) -> str:
    """Return a path from a folder where a file lies there, else the text as it is: an address, or pkg.module:build."""
    return str(folder / text) if (folder / text).exists() else text
