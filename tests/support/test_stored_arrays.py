"""Arrays in files: the limit as users write it, where the files lie, and what becomes of them without /proc."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metav.errors import InputError
from metav.support import files, stored_arrays
from metav.support.stored_arrays import RowWriter, memory_limit, temporary_folder


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 2**31), ("4000", 4000), ("512 MiB", 2**29), ("1.5GiB", 3 * 2**29), ("8g", 2**33), ("2 tb", 2**41)],
)
def test_the_limit_is_a_number_of_bytes_or_has_a_unit(text, size, monkeypatch):
    monkeypatch.setenv("METAV_MEMORY_LIMIT", text)
    assert memory_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "0", "4 miles", "GiB", "1e9"])
def test_another_limit_is_refused(text, monkeypatch):
    monkeypatch.setenv("METAV_MEMORY_LIMIT", text)
    with pytest.raises(InputError, match=r"METAV_MEMORY_LIMIT must be a number of bytes, such as .* got"):
        memory_limit()


def test_the_folder_is_the_one_that_tmpdir_names(tmp_path, monkeypatch):
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    assert temporary_folder() in (Path("/var/tmp"), Path.cwd())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert temporary_folder() == tmp_path


@pytest.mark.skipif(os.name != "posix", reason="files that are mapped cannot be removed elsewhere")
def test_without_proc_files_have_names_are_private_and_go_with_the_array(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(files, "NAMES_OF_OPEN_FILES", tmp_path / "nowhere")
    monkeypatch.setattr(stored_arrays, "_HAS_PROC", False)
    # left by a process of this machine that has ended
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / f".metav-{files._machine()}-{ended.stdout.strip()}-0123abcd.part"
    left.write_bytes(b"x")
    writer = RowWriter("rows", np.float32, (3,))
    writer.append(np.arange(6.0).reshape(2, 3))
    writer.append(np.ones((1, 3)))
    stored = writer.finished()
    (name,) = os.listdir(tmp_path)
    assert not left.exists()
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert stored.place.opened().values.tolist() == [[0, 1, 2], [3, 4, 5], [1, 1, 1]]
    values = stored.values
    del stored, writer
    gc.collect()
    assert os.listdir(tmp_path) == []
    assert values[1].tolist() == [3, 4, 5]


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    writer = RowWriter("images", np.float32, (2,))

    class Full:
        def write(self, content: object) -> int:
            raise OSError(28, "No space left on device")

    writer._file = Full()
    with pytest.raises(InputError, match=r"images take 16 B.* left for them; set TMPDIR to a folder"):
        writer.append(np.zeros((2, 2)))
