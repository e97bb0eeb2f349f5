"""Paths as users give them, and the one atomic write: whoever looks sees the old file or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from metav.errors import InputError

PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Content: TypeAlias = bytes | Callable[[BinaryIO], object]

PART = ".part"
"""Ending of a file that is still being written; its name starts with a dot."""
STALE_SECONDS = 3600.0
"""Age from which on a half-written file is taken for one of a process that no longer runs."""
NAMES_OF_OPEN_FILES = Path("/proc/self/fd")
"""Where a system has it, the folder of this process's open files, by number."""

_OWN_PART = re.compile(r"\.metav-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.part")
"""Name of a half-written file: of the machine, of the process, and a random number."""
_EARLIER_PART = re.compile(r"\.metav-.+\.part|\..+\.[0-9]+-[0-9a-f]{8}\.part")
"""Names that earlier versions gave them."""


def path_text(path: object, name: str = "path") -> str:
    """Return a path, given as text, bytes or an object with `__fspath__`, as text.

    name: of the argument, for the message.

    Raises InputError for anything else, for an empty path, and for one with a NUL character.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise InputError(f"{name} must be a text or a path, got {type(path).__name__}; name a file")
    text = os.fsdecode(path)
    if not text:
        raise InputError(f"{name} is empty; name a file")
    if "\0" in text:
        raise InputError(f"{name} holds a NUL character, got {text!r}; no file can have such a name, choose another")
    return text


def write_target(path: PathLike) -> Path:
    """Return the file that a write to a path makes or replaces, at the end of all links.

    Raises OSError for what cannot be replaced by a file: a folder, device, pipe or socket.
    """
    target = Path(os.path.realpath(path_text(path)))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        found = kinds.get(stat.S_IFMT(mode), "a device")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"it is {found}, not a regular file")
    return target


def write_atomically(path: PathLike, content: Content, *, private: bool = False, exclusive: bool = False) -> None:
    """Write a file whole or not at all, and leave nothing else behind.

    path: links are followed; a file that is there keeps its mode.
    content: the bytes, or a function that writes them to an open binary file.
    private: whether only its owner may read a new file.
    exclusive: whether an existing file is kept instead of replaced.

    A process that is killed leaves nothing either where the system knows files without a name; elsewhere the next
    write into the folder removes what it left.

    Raises OSError where it cannot be written, also for a device, pipe or socket, and FileExistsError where `exclusive`
    finds a file.
    """
    target = write_target(path)
    if exclusive and target.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    _remove_left_parts(target.parent)
    mode = 0o600 if private else 0o666
    if not _write_unnamed(target, content, mode, exclusive):
        _write_named(target, content, mode, exclusive)


def remove_stale_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder of metav's own, unless it is new."""
    for pattern in (f".*{PART}", ".*.tmp"):  # .tmp: of metav 0.1.0
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if _is_stale(path):
                    path.unlink()


def nameless_file(folder: Path) -> tuple[BinaryIO, Path | None]:
    """Return a new file, open for writing and reading, that its owner alone may read and that ends with this process.

    The path is None where it has no name: nothing is left however the process ends, and other processes find it as
    /proc/PID/fd/N. Elsewhere whoever made it removes it, and the next one in the folder what killed processes left.

    Raises OSError where there can be none.
    """
    if NAMES_OF_OPEN_FILES.is_dir():
        return cast("BinaryIO", tempfile.TemporaryFile(dir=folder, buffering=0)), None
    _remove_left_parts(folder)
    path = folder / _part_name()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o600), "w+b"), path


def _write_unnamed(target: Path, content: Content, mode: int, exclusive: bool) -> bool:
    """Write through a file that gets its name when it is whole; False where the system cannot."""
    descriptors = NAMES_OF_OPEN_FILES
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not descriptors.is_dir():
        return False
    try:
        descriptor = os.open(target.parent, flag | os.O_WRONLY, mode)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):  # of the file system, or an old kernel
            return False
        raise
    with os.fdopen(descriptor, "wb") as file:
        _fill(file, content, target)
        # a descriptor makes os.link follow the link in /proc
        link = functools.partial(os.link, descriptors / str(descriptor), src_dir_fd=descriptor, follow_symlinks=True)
        try:
            link(target)
        except FileExistsError:
            if exclusive:
                raise
        except OSError:  # no names for such files here
            return False
        else:
            return True
        temporary = target.with_name(_part_name())
        try:
            link(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _write_named(target: Path, content: Content, mode: int, exclusive: bool) -> None:
    temporary = target.with_name(_part_name())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            _fill(file, content, target)
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


def _fill(file: BinaryIO, content: Content, target: Path) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content)
    file.flush()
    with contextlib.suppress(FileNotFoundError):
        _keep_mode(file.fileno(), target.stat())
    os.fsync(file.fileno())


def _keep_mode(descriptor: int, before: os.stat_result) -> None:
    """Give a new file the mode of the one that it replaces, and its group where that is allowed."""
    if not hasattr(os, "fchmod"):
        return
    mode, after = stat.S_IMODE(before.st_mode), os.fstat(descriptor)
    if before.st_gid != after.st_gid:
        try:
            os.fchown(descriptor, -1, before.st_gid)
        except OSError:  # what the old group may do, another may not
            mode &= ~0o070
    os.fchmod(descriptor, mode)


def _part_name() -> str:
    return f".metav-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{PART}"


@functools.cache
def _machine() -> str:
    """Return a short name of where process numbers mean the same as here."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()}|{space}".encode()).hexdigest()[:8]


def _remove_left_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder of the user's: files of metav's own names alone."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".") and entry.name.endswith(PART)]
        for name in names:
            own = _OWN_PART.fullmatch(name)
            ended = own is not None and own[1] == _machine() and not _runs(int(own[2]))
            with contextlib.suppress(OSError):
                if ended or ((own or _EARLIER_PART.fullmatch(name)) and _is_stale(folder / name)):
                    (folder / name).unlink()


def _runs(process: int) -> bool:
    if os.name != "posix":  # os.kill would end the process; the age decides
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_SECONDS
