"""Arrays that may be larger than memory: their values lie in a file, mapped, and are read as they are used."""

from __future__ import annotations

import math
import mmap
import os
import platform
import re
import shutil
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from metav.errors import InputError
from metav.support.files import NAMES_OF_OPEN_FILES, nameless_file
from metav.support.text import byte_size

LIMIT_VARIABLE = "METAV_MEMORY_LIMIT"
"""The environment variable that sets how many bytes one array of a task may take in memory."""
USUAL_LIMIT = 2 * 2**30
"""Bytes that it may take where the variable is not set."""
PART_BYTES = 32 * 2**20
"""Bytes that are worked on at once, at most, of an array above the limit."""
FOLDER_VARIABLES = ("TMPDIR", "TEMP", "TMP")
"""Environment variables that name the folder of temporary files, the first that is set counting."""
LARGE_FILES = "/var/tmp"
"""Where temporary files go that may be large: /tmp is memory on many systems."""

_HAS_PROC = NAMES_OF_OPEN_FILES.is_dir()
"""Whether other processes find an open file by the number it has in this one."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if platform.machine() in ("x86_64", "aarch64") else 0)
"""For private maps larger than memory, which Linux refuses otherwise; Python names it from 3.13 on."""


def memory_limit() -> int:
    """Return how many bytes one array of a task may take in memory: METAV_MEMORY_LIMIT, such as "512 MiB", or 2 GiB.

    Raises InputError where the variable holds something else.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return USUAL_LIMIT
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]?)(?:i?B)?", text, flags=re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise InputError(
            f"{LIMIT_VARIABLE} must be a number of bytes, such as 4000000000, 512 MiB or 8 GiB, got {text!r}"
        )
    return size


def temporary_folder() -> Path:
    """Return the folder for arrays above the limit: the one TMPDIR names, else /var/tmp, else the working folder."""
    named = [os.environ.get(variable) for variable in FOLDER_VARIABLES]
    for folder in (*named, LARGE_FILES):
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK):
            return Path(folder)
    return Path.cwd()


def check_room(name: str, size: int) -> None:
    """Raise InputError where the folder for arrays above the limit has no room for one of `size` bytes.

    name: what the array holds, for the message.
    """
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise _no_room(name, size, folder, free)


def _no_room(name: str, size: int, folder: Path, free: int) -> InputError:
    return InputError(
        f"{name} take {byte_size(size)}, more than the {byte_size(memory_limit())} that are kept in memory, and "
        f"{folder} has {byte_size(free)} left for them; set TMPDIR to a folder with more room, {LIMIT_VARIABLE} to "
        "what memory can hold, or pass a part that stands for all of them, such as "
        "torch.utils.data.Subset(..., range(10000))"
    )


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """Where the values of an array lie, for another process.

    path: of the file, while the process that has the array runs.
    offset: of the first value, in bytes.
    dtype, shape: of the array; it is in C order.
    """

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def opened(self) -> StoredArray:
        """Return the array; OSError where the file is gone."""
        file = open(self.path, "rb")  # noqa: SIM115 (closed with the array)
        return StoredArray(file, None if _HAS_PROC else self.path, self.offset, self.dtype, self.shape)


class StoredArray:
    """An array whose values lie in a file; a change of them stays in this process and is not written.

    file: that holds it, open; it is closed with the array.
    path: by which other processes find the file; None for the open file itself.
    offset, dtype, shape: see `ArrayPlace`.
    values: the array, mapped.
    """

    def __init__(self, file: BinaryIO, path: str | None, offset: int, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self.file, self.path, self.offset, self.dtype, self.shape = file, path, offset, np.dtype(dtype), shape
        self.values = self._mapped(is_shared=False)
        weakref.finalize(self, file.close)

    @property
    def place(self) -> ArrayPlace:
        """Where other processes find the values."""
        path = f"/proc/{os.getpid()}/fd/{self.file.fileno()}" if self.path is None else self.path
        return ArrayPlace(path, self.offset, self.dtype.str, self.shape)

    def shared(self) -> NDArray[Any]:
        """Return the array mapped so that changes are written to the file, which has to be open for writing."""
        return self._mapped(is_shared=True)

    def _mapped(self, *, is_shared: bool) -> NDArray[Any]:
        begin = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        length = self.offset - begin + math.prod(self.shape) * self.dtype.itemsize
        if sys.platform == "win32":
            access = mmap.ACCESS_WRITE if is_shared else mmap.ACCESS_COPY
            mapped = mmap.mmap(self.file.fileno(), length, access=access, offset=begin)
        else:
            kind = mmap.MAP_SHARED if is_shared else mmap.MAP_PRIVATE | _NO_RESERVE
            both = mmap.PROT_READ | mmap.PROT_WRITE
            mapped = mmap.mmap(self.file.fileno(), length, flags=kind, prot=both, offset=begin)
        return np.ndarray(self.shape, self.dtype, buffer=mapped, offset=self.offset - begin)


class RowWriter:
    """Writes rows, one part after the other, into a file of its own, which ends with the array or the process.

    name: what they are, for messages.
    dtype: of the values.
    shape: of one row.
    """

    def __init__(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape, self.count = name, np.dtype(dtype), shape, 0
        self._file, self._path = nameless_file(temporary_folder())

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows (n, *shape) behind those before; InputError where there is no room for them."""
        content = np.ascontiguousarray(rows, dtype=self.dtype)
        try:
            self._file.write(content.reshape(-1).view(np.uint8).data)
        except OSError as error:
            free = shutil.disk_usage(temporary_folder()).free
            size = (self.count + len(content)) * math.prod(self.shape) * self.dtype.itemsize
            raise _no_room(self.name, size, temporary_folder(), free) from error
        self.count += len(content)

    def finished(self) -> StoredArray:
        """Return all rows, (n, *shape); nothing can be written any more."""
        self._file.flush()
        path = None if self._path is None else str(self._path)
        stored = StoredArray(self._file, path, 0, self.dtype, (self.count, *self.shape))
        if self._path is not None:
            weakref.finalize(stored, _remove, self._path)
        return stored


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # mapped still, on Windows: removed by the next one that writes there
        return


def where_it_lies(array: NDArray[Any]) -> ArrayPlace | None:
    """Return where the values of an array lie that is a part of a file; None where it is not so.

    That is a `numpy.memmap`, or rows of one, in C order and native bytes, whose changes go to the file.
    """
    source = _outermost_map(array)
    if source is None or source.mode == "c" or not array.flags.c_contiguous or not array.dtype.isnative:
        return None
    offset = source.offset + _address(array) - _address(source)
    place = ArrayPlace(os.path.abspath(str(source.filename)), offset, array.dtype.str, array.shape)
    try:
        if os.path.getsize(place.path) < offset + array.nbytes:
            return None
        values = place.opened().values
    except OSError:
        return None
    # another file may have taken the name since
    is_same = all(np.array_equal(values[rows], array[rows]) for rows in (slice(0, 1), slice(-1, None)))
    return place if is_same else None


def _outermost_map(array: Any) -> np.memmap[Any, Any] | None:
    found = None
    while isinstance(array, np.ndarray):
        found = array if isinstance(array, np.memmap) and array.filename is not None else found
        array = array.base
    return found


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
