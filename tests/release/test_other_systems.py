"""The core for systems that are not at hand: compiled by clang for each, and run where such a program runs here."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "csrc"
FLAGS = ["-std=c11", "-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
ZIG = [sys.executable, "-m", "ziglang", "cc"]
TARGETS = ("aarch64-macos", "x86_64-macos", "x86_64-windows-gnu", "x86_64-linux-musl", "aarch64-linux-musl")

if not CORE.is_dir():
    pytest.skip("the C sources are not here (tests run from an installed package)", allow_module_level=True)

needs_zig = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="needs a clang for other systems: pip install ziglang"
)


def compiled(command: list[str], *arguments: str) -> None:
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def passes(program: Path) -> None:
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" passed, 0 failed")


@pytest.mark.slow
@needs_zig
@pytest.mark.parametrize("target", TARGETS)
def test_the_core_compiles_without_warnings(target, tmp_path):
    for source in sorted(CORE.glob("mv_*.c")):
        compiled(ZIG, "-target", target, *FLAGS, *WARNINGS, "-c", str(source), "-o", str(tmp_path / "object.o"))


@pytest.mark.slow
@needs_zig
@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="runs on Linux on x86-64")
def test_the_core_passes_its_tests_with_musl(tmp_path):
    sources = [str(ROOT / "tests" / "c" / "test_core.c"), *map(str, sorted(CORE.glob("mv_*.c")))]
    program = tmp_path / "test_core"
    target = ["-target", "x86_64-linux-musl", "-static", "-DMV_TEST_ALLOCATIONS"]
    compiled(ZIG, *target, *FLAGS, *WARNINGS, *sources, "-o", str(program))
    passes(program)


@pytest.mark.slow
def test_the_plain_kernels_that_msvc_gets_pass_the_tests_of_the_core(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) on the path")
    sources = [str(ROOT / "tests" / "c" / "test_core.c"), *map(str, sorted(CORE.glob("mv_*.c")))]
    program = tmp_path / "test_core"
    plain = ["-DMV_WITHOUT_VECTORS", "-DMV_TEST_ALLOCATIONS", "-Wno-unused-variable"]
    compiled([compiler], *FLAGS, *WARNINGS, *plain, *sources, "-o", str(program), "-lm", "-lpthread")
    passes(program)
