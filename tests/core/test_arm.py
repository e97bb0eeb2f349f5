"""The NEON kernels, built with a cross compiler and run in user emulation."""

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "c"
CORE = Path(__file__).parents[2] / "csrc"
COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = "qemu-aarch64"
FLAGS = ["-std=c11", "-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-static"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
# the emulator cannot fork a process with threads
DEFINITIONS = ["-DMV_TEST_ALLOCATIONS", "-DMV_TEST_WITHOUT_FORK"]


def test_the_core_passes_its_c_tests_on_arm(tmp_path: Path) -> None:
    missing = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    if not CORE.is_dir():
        pytest.skip("the C sources are not here (tests run from an installed package)")
    program = tmp_path / "test_core"
    sources = [str(TESTS / "test_core.c"), *map(str, sorted(CORE.glob("mv_*.c")))]
    command = [COMPILER, *FLAGS, *WARNINGS, *DEFINITIONS, "-o", str(program), *sources, "-lm", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([EMULATOR, str(program)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].endswith(" passed, 0 failed")
