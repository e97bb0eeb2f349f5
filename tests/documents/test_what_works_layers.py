"""docs/what_works_layers.md: each row of its table is tried, as an owner's model and as a suspect.

python tests/documents/test_what_works_layers.py    prints the table anew
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "what_works_layers.md"
if __name__ == "__main__":
    sys.path.insert(0, str(DOCUMENT.parents[1] / "tests" / "helpers"))

from layer_cases import CASES, examples, trained  # noqa: E402

import metav  # noqa: E402
from metav.errors import MetavError  # noqa: E402

UNREADABLE = {"failed", "not_numeric", "ragged", "wrong_rows", "wrong_outputs", "not_finite", "noisy", "constant"}
OPTIONS = metav.OptimizationOptions(steps=2, repeats=1, refit_steps=10, verifier="local", sampled=2)
HEAD = ("model", "as the owner's", "as a suspect")


@functools.cache
def task():
    return metav.Classification(*examples(), epochs=1, batch_size=16, learning_rate=1e-2, validation=0.0)


def fingerprint_of(owner):
    """A fingerprint from a zoo with every family that fits, and the warnings that were given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sizes = {"positives": 14, "negatives": 5, "snapshots": 0, "free_negatives": False, "architectures": []}
        zoo = metav.build_zoo(owner, task(), **sizes)
        fp = metav.fingerprint(owner, task(), zoo=zoo, queries=6, options=OPTIONS, target_fpr=0.3)
    return fp, [str(entry.message) for entry in caught]


@functools.cache
def reference():
    return fingerprint_of(trained("fully connected network"))[0]


def told(text: str) -> str:
    """The part of a message that names the culprit, as a cell of a table."""
    return re.split(r"[;\n]", text, maxsplit=1)[0].replace("|", "\\|")


def as_owner(model) -> str:
    try:
        fp, messages = fingerprint_of(model)
    except MetavError as error:
        return f"refused: {told(str(error))}"
    verdict = metav.verify(fp, model)
    assert verdict.score == pytest.approx(fp.check["owner_score"], abs=1e-4), verdict
    left_out = [message for message in messages if message.startswith("left out")]
    names = re.findall(r"\w+_\w+", " ".join(re.sub(r"\(.*?\)", "", message) for message in left_out))
    return f"works, without {', '.join(names)}" if names else "works"


def as_suspect(model) -> str:
    verdict = metav.verify(reference(), model)
    if verdict.reason in UNREADABLE:
        return f"inconclusive: {told(verdict.message)}"
    assert verdict.competence is None or verdict.logit is not None or verdict.reason == "not_competent"
    return "works"


def row(name: str) -> tuple[str, str, str]:
    return name, as_owner(trained(name)), as_suspect(trained(name, seed=1))


def table_of(text: str) -> dict[str, tuple[str, ...]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]
    return {entry[0]: entry for entry in cells if entry != HEAD}


def test_the_table_has_the_rows_that_are_tried():
    assert list(table_of(DOCUMENT.read_text(encoding="utf-8"))) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_row_says_what_happens(name):
    assert table_of(DOCUMENT.read_text(encoding="utf-8"))[name] == row(name)


if __name__ == "__main__":
    print(f"| {' | '.join(HEAD)} |\n|---|---|---|")
    for case in sys.argv[1:] or CASES:
        print(f"| {' | '.join(row(case))} |", flush=True)
