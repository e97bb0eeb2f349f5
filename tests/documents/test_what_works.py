"""docs/what_works.md: each row of its tables is tried.

python tests/documents/test_what_works.py    prints the tables anew
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "what_works.md"
if __name__ == "__main__":
    sys.path.insert(0, str(DOCUMENT.parents[1] / "tests" / "helpers"))

from output_cases import CASES, SECTIONS, Case  # noqa: E402

NEEDS = {"pandas": ("pandas", "frame"), "transformers": ("ViTFor", "BertFor", "text classifier")}
SLOW = NEEDS["transformers"]
HEAD = ("you have", "you write", "what happens")


def row(case: Case) -> tuple[str, str, str]:
    result = case.trial()
    happens = result if result == "works" else f"refused: {result}"
    return case.has, case.write, happens.replace("|", "\\|").replace("\n", " ")


def tables_of(text: str) -> dict[str, list[tuple[str, ...]]]:
    """The rows of each section's table."""
    found: dict[str, list[tuple[str, ...]]] = {}
    section = ""
    for line in text.splitlines():
        section = line[3:] if line.startswith("## ") else section
        if line.startswith("| ") and section in SECTIONS:
            cells = tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found.setdefault(section, []).append(cells)
    return {section: rows[1:] for section, rows in found.items()}


def documented() -> dict[str, list[tuple[str, ...]]]:
    return tables_of(DOCUMENT.read_text(encoding="utf-8"))


def test_the_tables_have_the_rows_that_are_tried():
    assert len(CASES) == sum(map(len, SECTIONS.values()))
    assert {section: [(case.has, case.write) for case in cases] for section, cases in SECTIONS.items()} == {
        section: [entry[:2] for entry in rows] for section, rows in documented().items()
    }


@pytest.mark.parametrize(
    "name",
    # importing transformers alone takes seconds
    [pytest.param(name, marks=[pytest.mark.slow] * any(text in name for text in SLOW)) for name in CASES],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_row_says_what_happens(name):
    for library, texts in NEEDS.items():
        if any(text in name for text in texts):
            pytest.importorskip(library)
    assert {entry[0]: entry for rows in documented().values() for entry in rows}[name] == row(CASES[name])


def printed() -> str:
    parts = []
    for section, cases in SECTIONS.items():
        lines = [f"## {section}", "", f"| {' | '.join(HEAD)} |", "|---|---|---|"]
        parts.append("\n".join([*lines, *(f"| {' | '.join(row(case))} |" for case in cases)]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(printed())
