"""Results on disk: one JSON file a run, written at once or not at all, with what it was made with. No PyTorch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import metav
from metav.documents import canonical_json, plain, readable_json
from metav.errors import InputError

FORMAT = 2
"""Raised whenever the same settings stand for other results."""


def versions() -> dict[str, str]:
    """Versions of everything that results depend on, and the kind of processor."""
    found = {"metav": metav.__version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in ("numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def settings_key(settings: dict[str, Any]) -> str:
    """SHA-256 over settings: runs with the same key give the same results."""
    return hashlib.sha256(canonical_json(plain({"format": FORMAT, **settings}))).hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write one JSON file, whole or not at all; folders are made. InputError where that cannot be."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(readable_json(record) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error}); choose another folder with --output.") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file; empty where there is none, or one that cannot be read: it is then made again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """All run records below a folder, in the order of their paths; InputError where there is none."""
    runs = [record for path in _json_files(folder) if "regime" in (record := read_record(path))]
    if not runs:
        raise InputError(f"there are no results in {folder}; run `metav reproduce` first, with the same --output.")
    return runs


def read_materials(folder: Path) -> list[dict[str, Any]]:
    """All records of what was built, one an owner."""
    return [record for path in _json_files(folder) if path.name == "materials.json" and (record := read_record(path))]


def _json_files(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.json"))
