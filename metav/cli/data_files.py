"""A user's data on the command line: the arrays of an .npz file as a task. Nothing is ever unpickled."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.tasks.kinds import TASK_KINDS, TaskKind

if TYPE_CHECKING:
    from metav.tasks.base import Task


def load_task(path: str, kind: str, options: Mapping[str, Any]) -> Task:
    """Return the task on the arrays of an .npz file.

    path: of the file; which arrays it must hold stands in the row of the kind of task.
    kind: of the task, by name.
    options: of its class; None stands for the default.

    Raises InputError for a file that cannot be read or lacks an array, and for options that the kind does not take.
    """
    row = TASK_KINDS[kind]
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(inspect.signature(row.load_class()).parameters))
    if unknown:
        raise InputError(f"{' and '.join(unknown)} {'do' if len(unknown) > 1 else 'does'} not go with --task {kind}")
    arrays = _read_arrays(path, row)
    task: Task = row.load_class()(*(arrays[role] for role in row.arrays), **given)
    return task


def _read_arrays(path: str, kind: TaskKind) -> dict[str, NDArray[Any]]:
    wanted = kind.arrays
    expected = " and ".join(f'"{name}"' for name in wanted)
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}; expected an .npz file with the arrays {expected}")
    if not _is_numpys(path):
        raise InputError(
            f"{path} is no .npz file; expected one with the arrays {expected}: read yours in Python, and write them "
            f'with numpy.savez("data.npz", {", ".join(f"{role}={role}" for role in wanted)})'
        )
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} holds one array without a name; expected an .npz file with the arrays {expected}")
        with archive:
            return {role: archive[_name_in(archive.files, role, names, path)] for role, names in wanted.items()}
    except InputError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected an .npz file of plain arrays {expected}, written by numpy.savez"
        ) from error


def _is_numpys(path: str) -> bool:
    """Whether a file begins as an .npz or .npy file does; one that cannot be read may."""
    try:
        with open(path, "rb") as file:
            return file.read(2) in (b"PK", b"\x93N")
    except OSError:
        return True


def _name_in(found: list[str], role: str, names: tuple[str, ...], path: str) -> str:
    matching = [name for name in found if name.lower() in names]
    if len(matching) != 1:
        problem = f"has several arrays that may be the {role}" if matching else f"has no array of {role}"
        raise InputError(
            f"{path} {problem}: it holds {', '.join(found) or 'nothing'}; expected one named {' or '.join(names)}"
        )
    return matching[0]
