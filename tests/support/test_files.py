"""The one atomic write: whole or not at all, through links, with the mode that was there, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metav.errors import InputError
from metav.support import files
from metav.support.files import path_text, write_atomically

KILLED = """
import os, signal, sys
from metav.support import files
if sys.argv[2] == "named":
    files._write_unnamed = lambda *_: False
def content(file):
    file.write(b"secret" * 10_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(sys.argv[1], content, private=True)
"""


@pytest.fixture(params=["unnamed", "named"])
def way(request, monkeypatch):
    """Both ways of writing: a system may know only the second."""
    if request.param == "named":
        monkeypatch.setattr(files, "_write_unnamed", lambda *_: False)
    return request.param


def killed_while_writing(path: Path, way: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), way], timeout=60)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_file_is_made_or_replaced_and_nothing_else_is_there(before, way, tmp_path):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_write_that_fails_leaves_what_was_there(before, way, tmp_path):
    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert os.listdir(tmp_path) == ([] if before is None else ["file"])
    assert before is None or path.read_bytes() == before


def test_an_exclusive_write_keeps_the_file_of_another(way, tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"second", exclusive=True)

    def meanwhile(file):
        (tmp_path / "other").write_bytes(b"first")
        file.write(b"second")

    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "other", meanwhile, exclusive=True)
    assert [(tmp_path / name).read_bytes() for name in sorted(os.listdir(tmp_path))] == [b"first", b"first"]


def test_a_file_that_appears_while_another_is_written_is_replaced(way, tmp_path):
    def meanwhile(file):
        (tmp_path / "file").write_bytes(b"first")
        file.write(b"second")

    write_atomically(tmp_path / "file", meanwhile)
    assert (tmp_path / "file").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
@pytest.mark.parametrize("private", [True, False])
def test_a_file_keeps_its_mode(mode, private, way, tmp_path):
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    write_atomically(path, b"new", private=private)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_the_process_and_a_private_one_is_for_its_owner_only(way, tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "plain", b"")
        write_atomically(tmp_path / "private", b"", private=True)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "private")]
    assert modes == [0o640, 0o600]


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed_to_their_file(exists, way, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if exists:
        (folder / "file").write_bytes(b"old")
    (tmp_path / "second").symlink_to("elsewhere/file")
    (tmp_path / "first").symlink_to("second")
    write_atomically(tmp_path / "first", b"new")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert not (folder / "file").is_symlink()
    assert (folder / "file").read_bytes() == b"new"


def test_devices_pipes_sockets_folders_and_circles_are_refused_and_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        before = sorted(os.listdir(tmp_path))
        for name, reason in {
            "pipe": "a pipe, not a regular file",
            "socket": "a socket, not a regular file",
            "folder": "a folder, not a regular file",
            "null": "a device, not a regular file",
            "circle": "symbolic links",
            "file/below": "Not a directory",
            "missing/file": "No such file",
        }.items():
            with pytest.raises(OSError, match=reason):
                write_atomically(tmp_path / name, b"new")
        assert sorted(os.listdir(tmp_path)) == before
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system knows no files without a name")
def test_a_killed_process_leaves_nothing(tmp_path):
    killed_while_writing(tmp_path / "owner.metav", "unnamed")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    killed_while_writing(tmp_path / "owner.metav", "named")
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".metav-")
    assert stat.S_IMODE((tmp_path / left).stat().st_mode) == 0o600
    write_atomically(tmp_path / "another", b"new")
    assert os.listdir(tmp_path) == ["another"]


def test_what_a_running_process_writes_and_what_is_the_users_own_stays(tmp_path):
    machine = files._machine()
    old = time.time() - 2 * files.STALE_SECONDS
    kept = [
        f".metav-{machine}-{os.getpid()}-0123abcd.part",  # runs
        ".metav-00000000-999999999-0123abcd.part",  # of another machine, and new
        ".metav-new.part",
        ".film.part",
        "film.part",
    ]
    gone = [".metav-00000000-999999999-0000abcd.part", ".metav-x_8f2k.part", ".owner.metav.31-0123abcd.part"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    for name in (*gone, ".film.part", "film.part"):
        os.utime(tmp_path / name, (old, old))
    write_atomically(tmp_path / "file", b"")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "file"])


def test_a_name_may_be_as_long_as_the_system_allows(way, tmp_path):
    name = "n" * 255
    for content in (b"one", b"two"):
        write_atomically(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content


class BytesPath:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return os.fsencode(self.path)


@pytest.mark.parametrize("kind", [str, Path, os.fsencode, BytesPath])
def test_paths_of_all_kinds_name_the_same_file(kind, tmp_path):
    write_atomically(kind(tmp_path / "file"), b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert path_text(kind("some/file")) == "some/file"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a\0b", "holds a NUL character"),
        (b"a\0b", "holds a NUL character"),
        ("", "is empty"),
        (b"", "is empty"),
        (3, "must be a text or a path, got int"),
        (None, "must be a text or a path, got NoneType"),
        (bytearray(b"file"), "must be a text or a path, got bytearray"),
    ],
)
def test_what_is_no_path_is_refused_by_its_name(path, message):
    with pytest.raises(InputError, match=f"report {message}"):
        path_text(path, "report")
