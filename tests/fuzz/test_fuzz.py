"""The fuzzers' seed corpora and a few thousand mutations of them; tests/README.md says how to run millions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parent
CORE = Path(__file__).parents[2] / "csrc"

sys.path.insert(0, str(FUZZ))

import cases  # noqa: E402
import fuzz_binding  # noqa: E402


@pytest.mark.parametrize("path", sorted((FUZZ / "corpus" / "binding").iterdir()), ids=lambda path: path.name)
def test_a_seed_of_the_binding_obeys_the_laws(path: Path) -> None:
    outcome = cases.run_case(path.read_bytes())
    assert outcome == "done" or not path.name.startswith("honest")


def test_mutated_seeds_obey_the_laws_and_reach_every_outcome() -> None:
    outcomes = fuzz_binding.run_random(3000, seed=1)
    assert set(outcomes) >= {"done", "BufferError", "TypeError", "ValueError"}


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=48))
def test_any_bytes_obey_the_laws(data: bytes) -> None:
    """As above, but a failure is made small."""
    cases.run_case(data)


def test_the_seeds_of_the_core_run_under_sanitizers(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (gcc or cc) on the path")
    program = tmp_path / "fuzz_core"
    flags = ["-std=c11", "-O1", "-g", "-DMETAV_FUZZ_FILES", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [FUZZ / "fuzz_core.c", *sorted(CORE.glob("mv_*.c"))]
    command = [compiler, *flags, "-o", str(program), *map(str, sources), "-lm", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"{compiler} cannot link the sanitizers")
    assert built.returncode == 0, built.stderr
    seeds = sorted((FUZZ / "corpus" / "core").iterdir())
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    ran = subprocess.run([program, *seeds], capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == f"{len(seeds)} passed, 0 failed"
