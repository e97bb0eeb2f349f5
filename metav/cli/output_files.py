"""Files that the commands write: checked before long work, written at once or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError
from metav.support.files import write_atomically, write_target


def check_target(path: Path, *, overwrite: bool, endings: tuple[str, ...] | None = None) -> None:
    """InputError, before long work, for a file that cannot be written, would be lost, or has another ending."""
    if endings is not None and path.suffix.lower() not in endings:
        raise InputError(
            f"{path} has another ending than {' or '.join(endings)}; call it {path.name + endings[0]}, for example"
        )
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {folder} is no folder that you may write to; make it, or choose another"
        )
    try:
        write_target(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); name a file") from error
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name, or pass --force to overwrite it")


QUERY_WRITERS: Mapping[str, Callable[[BinaryIO, NDArray[np.float32]], None]] = {
    ".npy": lambda file, queries: np.save(file, queries, allow_pickle=False),
    ".npz": lambda file, queries: np.savez(file, queries=queries),
}
"""How queries are written, by the ending of the file."""


def write_queries(queries: NDArray[np.float32], path: Path) -> None:
    """Write queries (N, ...) to a file of one of QUERY_WRITERS, at once or not at all; InputError where that fails."""
    write = QUERY_WRITERS[path.suffix.lower()]
    try:
        write_atomically(path, lambda file: write(file, queries))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); choose another file") from error
