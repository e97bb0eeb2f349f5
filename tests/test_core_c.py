"""Builds and runs the C tests of the core, without Python, under the address, leak and undefined sanitizers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "c"
CORE = Path(__file__).parents[1] / "csrc"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]


def find_compiler() -> str:
    """A C compiler, or a skip."""
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) on the path")
    if not CORE.is_dir():
        pytest.skip("the C sources are not here (tests run from an installed package)")
    return compiler


def build(compiler: str, sources: list[Path], program: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compiles the sources to a program."""
    command = [compiler, "-std=c11", *flags, "-o", str(program), *map(str, sources), "-lm", "-lpthread"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_core_passes_its_c_tests_under_sanitizers(tmp_path: Path) -> None:
    compiler = find_compiler()
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    if build(compiler, [probe], tmp_path / "probe", *SANITIZERS).returncode != 0:
        pytest.skip(f"{compiler} cannot link the sanitizers")
    sources = [TESTS / "test_core.c", *sorted(CORE.glob("mv_*.c"))]
    built = build(compiler, sources, tmp_path / "test_core", *SANITIZERS, *WARNINGS, "-DMV_TEST_ALLOCATIONS")
    assert built.returncode == 0, built.stderr
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    environment.pop("LD_PRELOAD", None)
    ran = subprocess.run(
        [tmp_path / "test_core"], capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1].endswith(" passed, 0 failed")


def test_the_public_header_stands_alone(tmp_path: Path) -> None:
    """metav.h compiles by itself, as C11 with all warnings and as the only include of a caller."""
    compiler = find_compiler()
    caller = tmp_path / "caller.c"
    caller.write_text(f'#include "{CORE / "metav.h"}"\nint main(void) {{ return MV_OK; }}\n')
    built = build(compiler, [caller], tmp_path / "caller", *WARNINGS, "-pedantic")
    assert built.returncode == 0, built.stderr


def test_the_core_does_not_know_python() -> None:
    if not CORE.is_dir():
        pytest.skip("the C sources are not here (tests run from an installed package)")
    for path in [*CORE.glob("*.c"), *CORE.glob("*.h")]:
        text = path.read_text()
        assert "Python.h" not in text, path
        if path.name != "mv_memory.c":
            assert not any(f" {name}(" in text for name in ("malloc", "calloc", "realloc", "free")), path
    for path in CORE.joinpath("python").glob("*.[ch]"):
        text = path.read_text()
        knows_arrays = "numpy/" in text or '"dlpack.h"' in text
        assert not knows_arrays or path.name in {"tensor.c", "module.c"}, path
