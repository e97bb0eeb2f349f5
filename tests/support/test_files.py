"""The one atomic write: whole or not at all, with nothing left beside it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from metav.support import files
from metav.support.files import write_atomically


@pytest.fixture(params=["without a name", "with a name"])
def way(request, monkeypatch):
    """Both ways to write: a file that has no name before it is whole, and one with another name."""
    if request.param == "with a name":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")


def test_a_new_file_and_one_that_replaces_another_are_whole(way, tmp_path):
    path = tmp_path / "file"
    for content in (b"first", b"", b"third"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    write_atomically(path, lambda file: file.write(b"from a function"), private=True)
    assert path.read_bytes() == b"from a function"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_existing_file_is_kept_where_that_is_asked(way, tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(way, tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"first")

    def fail(file):
        file.write(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, fail)
    with pytest.raises(OSError, match="No such file"):
        write_atomically(tmp_path / "no folder" / "file", b"content")
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="this system has no files without a name")
def test_a_process_killed_while_it_writes_leaves_nothing(tmp_path):
    code = f"""
import os, signal
from metav.support.files import write_atomically
def kill(file):
    file.write(b"half" * 10_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically({str(tmp_path / "file")!r}, kill)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_a_system_whose_file_system_has_no_such_files_writes_all_the_same(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, flags, *rest, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError("not supported")
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(files.os, "open", refuse)
    write_atomically(tmp_path / "file", b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
