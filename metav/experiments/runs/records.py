"""Results on disk: one JSON file a run, written at once or not at all, with what it was made with. No PyTorch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metav.errors import InputError
from metav.support.files import write_atomically
from metav.support.json_values import canonical_json, plain, readable_json
from metav.support.versions import version_of

FORMAT = 3
"""Raised whenever the same settings stand for other results."""


def versions() -> dict[str, str]:
    """Return the versions of everything that results depend on, and the kind of processor."""
    found = {"metav": version_of(), "python": platform.python_version(), "machine": platform.machine()}
    return found | {name: version_of(name) for name in ("numpy", "torch")}


def settings_key(settings: dict[str, Any]) -> str:
    """Return the SHA-256 over settings: runs with the same key give the same results."""
    return hashlib.sha256(canonical_json(plain({"format": FORMAT, **settings}))).hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write one JSON file, whole or not at all; folders are made. Raises InputError where that cannot be."""
    write_text(path, readable_json(record) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write one text file, whole or not at all; folders are made. Raises InputError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); choose another folder with --output") from error


def read_record(path: Path) -> dict[str, Any]:
    """Return the record in a file; an empty one where it is absent or cannot be read: it is then made again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Return all run records below a folder, in the order of their paths. Raises InputError where there is none."""
    runs = [record for path in _json_files(folder) if "regime" in (record := read_record(path))]
    if not runs:
        raise InputError(f"there are no results in {folder}; run `metav reproduce` first, with the same --output")
    return runs


def read_prepared(folder: Path) -> list[dict[str, Any]]:
    """Return all records of what was built, one an owner."""
    return [record for path in _json_files(folder) if path.name == "materials.json" and (record := read_record(path))]


def _json_files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.json"))
