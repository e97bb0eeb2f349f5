"""Every allocation of every entry point failing once, and every block given back, in processes of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A malloc that fails on request."""
    if sys.platform != "linux":
        pytest.skip("replaces malloc by LD_PRELOAD, as only Linux can")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("another library already replaces malloc (a sanitizer)")
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) on the path")
    library = tmp_path_factory.mktemp("shim") / "failing_malloc.so"
    source = HERE.parent / "c" / "failing_malloc.c"
    command = [compiler, "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", str(library), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        pytest.skip(f"{compiler} cannot build a replacement of glibc's malloc: {built.stderr[-200:]}")
    return library


def run(mode: str, **variables: str) -> list[str]:
    """The lines that allocations.py printed."""
    paths = [str(HERE.parent / "helpers"), os.environ.get("PYTHONPATH", "")]
    variables |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    environment = {**os.environ, **variables}
    command = [sys.executable, str(HERE / "allocations.py"), mode]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout.splitlines()


def test_every_call_survives_every_failing_malloc(shim: Path) -> None:
    """The n-th malloc of a call fails, for every n: MemoryError or the right result, and a handle that still works."""
    lines = run("fail", LD_PRELOAD=str(shim), PYTHONMALLOC="malloc")
    assert len(lines) == 46


def test_every_call_survives_an_interpreter_without_memory() -> None:
    """The n-th allocation of the interpreter and all later ones fail, for every n."""
    pytest.importorskip("torch", reason="needs torch, which is not installed here")
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    assert len(run("testcapi")) == 46


def test_no_call_leaks(shim: Path) -> None:
    """As many blocks are alive after many calls as before, those that are refused included."""
    assert len(run("leak", LD_PRELOAD=str(shim), PYTHONMALLOC="malloc")) == 23
