"""What a cache folder holds, read from the heads of its files alone; and how models are taken out of it again."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metav.errors import CacheError, ZooError
from metav.support.files import PathLike, path_text
from metav.support.json_values import plain
from metav.zoo.folder_format import LENGTH_BYTES, PLAN_FILE, head_length, key_of, read_plan, read_record

LARGEST_HEAD = 64 * 2**20
"""Bytes of a file's head above which it is none of metav's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRun:
    """One training run in a cache: a finished model, with its snapshots.

    path: of its file.
    size: of it, in bytes.
    age: seconds since it was written.
    models: it and its snapshots.
    metric: of the finished model, in the task's unit.
    run, family, owner, model, task: what it belongs to: its name in the zoo, its family, the start of the digest of the
        owner's weights, the owner's class, the kind of task; None where an earlier version wrote it, or an experiment.
    """

    path: Path
    size: int
    age: float
    models: int
    metric: float | None
    run: str | None
    family: str | None
    owner: str | None
    model: str | None
    task: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        result: dict[str, Any] = plain(values | {"path": str(self.path), "age": round(self.age, 1)})
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFolder:
    """What was found in a cache folder and in the folders directly below it.

    folder: at the end of all links.
    runs: the oldest first.
    plans: files that say which models of a zoo a folder is to hold.
    foreign: files that metav did not write or whose head cannot be read, and all links; nothing touches them.
    """

    folder: Path
    runs: tuple[CachedRun, ...]
    plans: tuple[Path, ...]
    foreign: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of all runs."""
        return sum(run.size for run in self.runs)


def read_cache_folder(folder: PathLike) -> CacheFolder:
    """Return what a cache folder holds. Raises CacheError where it is no folder or cannot be read."""
    root = Path(os.path.realpath(path_text(folder, "cache")))
    runs, plans, foreign = [], [], []
    now = time.time()
    try:
        for path in _files(root):
            run = _read_run(path, now)
            if run is not None:
                runs.append(run)
            elif _is_plan(path):
                plans.append(path)
            else:
                foreign.append(path)
    except OSError as error:
        raise CacheError(
            f"{root} cannot be read ({error.strerror or error}); name a folder of trained models"
        ) from error
    runs.sort(key=lambda run: (-run.age, run.path))
    return CacheFolder(folder=root, runs=tuple(runs), plans=tuple(plans), foreign=tuple(sorted(foreign)))


def remove_runs(runs: Iterable[CachedRun]) -> list[CachedRun]:
    """Delete the files of some runs, and return those that were there.

    Each file is looked at again: what has become a link, or another's file, stays. Raises CacheError where one cannot
    be deleted.
    """
    removed = []
    for run in runs:
        try:
            if _read_run(run.path, time.time()) is None:
                continue
            run.path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CacheError(f"{run.path} cannot be deleted ({error.strerror or error}); fix its rights") from error
        removed.append(run)
    return removed


def _files(root: Path) -> Iterator[Path]:
    """Yield all that is no folder in a folder and in those directly below it, links included."""
    for entry in sorted(os.scandir(root), key=lambda found: found.name):
        if not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
            continue
        with os.scandir(entry.path) as below:
            yield from sorted(Path(found.path) for found in below if not found.is_dir(follow_symlinks=False))


def _read_run(path: Path, now: float) -> CachedRun | None:
    """Return the run in a file; None for what metav did not write, as far as its name and head tell, and for a link."""
    key = key_of(path.name)
    if key is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or path.is_symlink():
            return None
        length = head_length(file.read(LENGTH_BYTES))
        head = file.read(length) if 0 < length <= min(LARGEST_HEAD, status.st_size) else b""
    try:
        record = read_record(head)
    except ValueError:
        return None  # another's
    if record.get("key") != key:
        return None
    about = record.get("about") if isinstance(record.get("about"), dict) else {}
    metrics, fractions = record.get("metrics"), record.get("fractions")
    last = metrics[-1] if isinstance(metrics, list) and metrics else None
    return CachedRun(
        path=path,
        size=status.st_size,
        age=max(0.0, now - status.st_mtime),
        models=len(fractions) if isinstance(fractions, list) else 1,
        metric=float(last) if isinstance(last, int | float) else None,
        **{name: _text(about, name) for name in ("run", "family", "owner", "model", "task")},
    )


def _is_plan(path: Path) -> bool:
    """Return whether a file is a plan that metav wrote, as far as its name and content tell; a link is none."""
    if path.name != PLAN_FILE or not stat.S_ISREG(path.lstat().st_mode):
        return False
    try:
        return read_plan(path.parent) is not None
    except ZooError:  # another's file of that name
        return False


def _text(about: Any, name: str) -> str | None:
    value = about.get(name)
    return value if isinstance(value, str) else None
