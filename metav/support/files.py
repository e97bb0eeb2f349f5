"""The one atomic write: whoever looks sees the old file or the new one, never a part of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]

PART = ".part"
"""Ending of a file that is still being written; its name starts with a dot."""
STALE_SECONDS = 3600.0
"""Age from which on a half-written file is taken for one of a process that no longer runs."""


def write_atomically(
    path: PathLike, content: bytes | Callable[[BinaryIO], object], *, private: bool = False, exclusive: bool = False
) -> None:
    """Write a file whole or not at all, and leave nothing else behind.

    content: the bytes, or a function that writes them to an open binary file.
    private: whether only its owner may read the file.
    exclusive: whether an existing file is kept instead of replaced.

    Raises OSError where it cannot be written, FileExistsError where `exclusive` finds a file.
    """
    target = Path(os.path.abspath(os.fspath(path)))
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{PART}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, 0o600 if private else 0o666), "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, target)  # unlike a rename, fails where another process was first
        else:
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def file_digest(path: PathLike) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes; OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_stale_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder, but not what another process is writing now."""
    for pattern in (f".*{PART}", ".*.tmp"):  # .tmp: of metav 0.1.0
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
