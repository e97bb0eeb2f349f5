"""The one atomic write: whoever looks sees the old file or the new one, never a part of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]
Content: TypeAlias = bytes | Callable[[BinaryIO], object]
"""What a file holds, or a function that writes it to an open binary file."""

PART = ".part"
"""Ending of a file that is still being written; its name starts with a dot."""
STALE_SECONDS = 3600.0
"""Age from which on a half-written file is taken for one of a process that no longer runs."""

_OPEN_FILES = Path("/proc/self/fd")


def write_atomically(path: PathLike, content: Content, *, private: bool = False, exclusive: bool = False) -> None:
    """Write a file whole or not at all, and leave nothing else behind.

    content: the bytes, or a function that writes them to an open binary file.
    private: whether only its owner may read the file.
    exclusive: whether an existing file is kept instead of replaced.

    Raises OSError where it cannot be written, FileExistsError where `exclusive` finds a file.
    """
    target = Path(os.path.abspath(os.fspath(path)))
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    mode = 0o600 if private else 0o666
    try:
        if not _write_without_name(target, temporary, content, mode, exclusive=exclusive):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
                _fill(file, content)
            if exclusive:
                os.link(temporary, target)  # unlike a rename, fails where another process was first
            else:
                os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_without_name(target: Path, temporary: Path, content: Content, mode: int, *, exclusive: bool) -> bool:
    """Write a file that has no name before it is whole, so that not even a killed process leaves a part of it.

    temporary: a name for the moment in which an existing file is replaced.

    Return False, having done nothing, where the system cannot.
    """
    if not hasattr(os, "O_TMPFILE") or not _OPEN_FILES.is_dir():
        return False
    try:
        opened = os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, mode)
    except OSError:  # not on this file system; what else is wrong, the named file tells
        return False
    with os.fdopen(opened, "wb") as file:
        _fill(file, content)
        try:
            _name(file, target)
        except FileExistsError:
            if exclusive:
                raise
            _name(file, temporary)
            os.replace(temporary, target)
    return True


def _name(file: BinaryIO, path: Path) -> None:
    folder = os.open(path.parent, os.O_PATH)
    try:
        # with a folder given, the link is followed to the open file; without one it would be linked itself
        os.link(_OPEN_FILES / str(file.fileno()), path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _fill(file: BinaryIO, content: Content) -> None:
    """Write content to an open file, down to the disk."""
    if callable(content):
        content(file)
    else:
        file.write(content)
    file.flush()
    os.fsync(file.fileno())


def remove_stale_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, but not what another process is writing now."""
    for pattern in (f".*{PART}", ".*.tmp"):  # .tmp: of metav 0.1.0
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
