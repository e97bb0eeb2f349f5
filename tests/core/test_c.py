"""Builds and runs the C tests of the core, without Python, under each sanitizer and valgrind."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "c"
FUZZ = Path(__file__).parents[1] / "fuzz"
CORE = Path(__file__).parents[2] / "csrc"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]
OPTIMISED = ["-O3", "-g", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# What each program is built with, what runs it, and its environment.
MODES: dict[str, tuple[list[str], list[str]]] = {
    "asan": (["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"], []),
    "tsan": (["-fsanitize=thread", "-O1", "-g"], []),
    "valgrind": (OPTIMISED, ["valgrind", "--quiet", "--leak-check=full", "--error-exitcode=9"]),
    "plain": (OPTIMISED, []),
}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
PROGRAMS = sorted(path.stem for path in TESTS.glob("test_*.c"))


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
    libraries = [] if "-c" in flags else ["-lm", "-lpthread"]
    command = [compiler, "-std=c11", *flags, "-o", str(program), *map(str, sources), *libraries]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def build_core(compiler: str, folder: Path, flags: list[str]) -> list[Path]:
    """The core's objects, compiled side by side."""
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    if build(compiler, [probe], folder / "probe", *flags).returncode != 0:
        pytest.skip(f"{compiler} cannot link the sanitizers")
    sources = sorted(CORE.glob("mv_*.c"))
    objects = [folder / f"{source.stem}.o" for source in sources]

    def compile_one(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
        return build(compiler, [source], target, "-c", *flags, *WARNINGS, "-DMV_TEST_ALLOCATIONS")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for built in pool.map(compile_one, sources, objects):
            assert built.returncode == 0, built.stderr
    return objects


def run(command: list[str]) -> str:
    """What a program prints that ends well."""
    environment = {**os.environ, **OPTIONS}
    environment.pop("LD_PRELOAD", None)
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def builds() -> dict[tuple[str, ...], list[Path]]:
    """Objects by flags: modes with the same flags share them."""
    return {}


@pytest.fixture(
    scope="module",
    # the processor that valgrind imitates is fifty times slower
    params=[pytest.param(mode, marks=pytest.mark.slow) if mode == "valgrind" else mode for mode in MODES],
)
def core(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    builds: dict[tuple[str, ...], list[Path]],
) -> tuple[str, list[Path]]:
    """A mode, and the core's objects compiled for it, once for all programs."""
    compiler = find_compiler()
    mode: str = request.param
    flags, runner = MODES[mode]
    if runner and shutil.which(runner[0]) is None:
        pytest.skip(f"{runner[0]} is not installed")
    if tuple(flags) not in builds:
        builds[tuple(flags)] = build_core(compiler, tmp_path_factory.mktemp(mode), flags)
    return mode, builds[tuple(flags)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_core_passes_its_c_tests(name: str, core: tuple[str, list[Path]], tmp_path: Path) -> None:
    mode, objects = core
    flags, runner = MODES[mode]
    sources = [TESTS / f"{name}.c", *objects]
    built = build(find_compiler(), sources, tmp_path / name, *flags, *WARNINGS, "-DMV_TEST_ALLOCATIONS")
    assert built.returncode == 0, built.stderr
    assert run([*runner, str(tmp_path / name)]).splitlines()[-1].endswith(" passed, 0 failed")


@pytest.mark.parametrize("core", ["asan"], indirect=True)
def test_the_seeds_of_the_cores_fuzzer_pass(core: tuple[str, list[Path]], tmp_path: Path) -> None:
    mode, objects = core
    flags, _ = MODES[mode]
    sources = [FUZZ / "fuzz_core.c", *objects]
    built = build(find_compiler(), sources, tmp_path / "fuzz_core", *flags, *WARNINGS, "-DMETAV_FUZZ_FILES")
    assert built.returncode == 0, built.stderr
    seeds = sorted((FUZZ / "corpus" / "core").iterdir())
    assert run([str(tmp_path / "fuzz_core"), *map(str, seeds)]).splitlines()[-1] == f"{len(seeds)} passed, 0 failed"


def test_both_compilers_find_nothing_to_warn_of(tmp_path: Path) -> None:
    """Core and C tests under clang; every other build here is gcc's."""
    clang = next((path for name in ("clang", "clang-19", "clang-14") if (path := shutil.which(name))), None)
    if clang is None:
        pytest.skip("clang is not installed")
    for path in [*CORE.glob("mv_*.c"), *TESTS.glob("test_*.c"), *TESTS.parent.glob("fuzz/*.c")]:
        built = build(clang, [path], tmp_path / "object", "-c", "-O2", *WARNINGS, "-DMV_TEST_ALLOCATIONS")
        assert built.returncode == 0, built.stderr


def test_the_public_header_stands_alone(tmp_path: Path) -> None:
    """metav.h compiles by itself, as C11 with all warnings and as the only include of a caller."""
    compiler = find_compiler()
    caller = tmp_path / "caller.c"
    caller.write_text(f'#include "{CORE / "metav.h"}"\nint main(void) {{ return MV_OK; }}\n')
    built = build(compiler, [caller], tmp_path / "caller", *WARNINGS, "-pedantic")
    assert built.returncode == 0, built.stderr
