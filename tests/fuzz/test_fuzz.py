"""The seeds of the binding's fuzzer and a few thousand mutations of them; tests/README.md says how to run millions."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parent

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
