"""Files that the commands write: checked before long work, written at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.support.files import write_atomically


def check_target(path: Path, *, overwrite: bool) -> None:
    """InputError, before long work, for a file that cannot be written or would be lost."""
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {folder} is no folder that you may write to; make it, or choose another"
        )
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name, or pass --force to overwrite it")


def write_queries(queries: NDArray[np.float32], path: Path) -> None:
    """Write queries (N, ...) to an .npy or .npz file, at once or not at all; InputError for another ending."""
    writers: dict[str, Callable[[Any], None]] = {
        ".npy": lambda file: np.save(file, queries, allow_pickle=False),
        ".npz": lambda file: np.savez(file, queries=queries),
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"{path} has an unknown ending; expected {' or '.join(writers)}")
    write_atomically(path, writers[path.suffix.lower()])
