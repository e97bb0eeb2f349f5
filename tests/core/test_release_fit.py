"""The extension refuses Python files of another version and a NumPy that does not fit; its stub says what it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import metav
from metav import _core

OLD_NUMPY = """
import ctypes
from numpy._core import _multiarray_umath
table = (ctypes.c_void_p * 400)()
numbers = {0: 0x1000009, 211: 0x10}  # of the interface and its features, as of NumPy 1.26
calls = {at: ctypes.CFUNCTYPE(ctypes.c_uint)(lambda number=number: number) for at, number in numbers.items()}
for at, call in calls.items():
    table[at] = ctypes.cast(call, ctypes.c_void_p).value
capsule = ctypes.pythonapi.PyCapsule_New
capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_multiarray_umath._ARRAY_API = capsule(ctypes.addressof(table), None, None)
"""
NO_INTERFACE = "from numpy._core import _multiarray_umath; _multiarray_umath._ARRAY_API = None"


def importing(before: str) -> subprocess.CompletedProcess[str]:
    code = f"""
{before}
try:
    from metav import _core
except ImportError as error:
    print(error, "|", error.__cause__)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_extension_has_the_version_of_the_package():
    assert _core.__version__ == metav.__version__


def test_files_of_another_version_are_refused_with_both_versions_and_what_to_do():
    done = importing("import metav; metav.__version__ = '0.1.0'")
    version = metav.__version__
    assert f"the Python files of metav are of version 0.1.0, its C core of {version}; install it anew" in done.stdout
    assert "pip install --force-reinstall metav-fingerprint" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("before", "cause"),
    [(OLD_NUMPY, "running NumPy has C-API version 0x10"), (NO_INTERFACE, "_ARRAY_API is not")],
)
def test_a_numpy_that_does_not_fit_is_named_with_what_to_do_and_its_own_words(before, cause):
    done = importing(before)
    import numpy

    text, _, own = done.stdout.partition(" | ")
    assert f"needs NumPy 2.0 or later with the C interface of 2.x, found {numpy.__version__}; pip install" in text
    assert cause in own
    assert done.stderr == ""


@pytest.mark.slow
def test_the_stub_says_what_the_extension_has():
    pytest.importorskip("mypy")
    project = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "mypy.stubtest",
        "metav._core",
        "--mypy-config-file",
        str(project / "pyproject.toml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
