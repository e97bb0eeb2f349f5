"""Tables of numbers as text, as programs and spreadsheets write them: which cells are answers, and what each says."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metav.errors import InputError

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
"""What is read as a number; `float` takes more, such as 1_875."""
_DELIMITERS = "\t;,"
SURE = 3
"""Numbers 0, 1, 2, ... in a row from which on they are a heading or an index, and no answers in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a file.

    number: counted from 1.
    cells: without blanks around them.
    """

    number: int
    cells: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The numbers of a file.

    rows: line by line, a heading of text left out.
    is_headed: whether the first row may be a heading of class numbers.
    firsts: the first cell of each row, as it was written.
    """

    rows: list[list[float]]
    is_headed: bool
    firsts: list[str]

    def readings(self, count: int) -> Iterator[list[list[float]]]:
        """Yield what the answers to `count` queries may be, the likeliest first."""
        rows, width = self.rows, len(self.rows[0])
        start = int(self.is_headed and len(rows) > 1 and (len(rows) == count + 1 or width >= SURE))
        found = [rows[start:]]
        if width > 1 and _is_counted(self.firsts[start:]):
            without = [row[1:] for row in rows[start:]]
            found = [without, *found] if len(without) >= SURE else [*found, without]
        yield from found


def read_table(path: Path) -> Table:
    """Return the numbers of a text file, one line per query.

    Tabs, semicolons, commas or blanks part the cells: whichever the lines below the first have. Beside tabs and
    semicolons, a comma is a decimal one. Understood are a heading, an index column, delimiters behind the last cell,
    lines that start with # and percent signs.

    Raises InputError, with row and column, for a cell that is no number, and for rows of different lengths.
    """
    text = path.read_text(encoding="utf-8-sig")
    delimiter = delimiter_of(text)
    lines = _without_empty_columns(lines_of(text, delimiter))
    if not lines:
        raise InputError(f"{path} holds no answers; expected one line of numbers per query")
    body = lines[1:] if _is_heading(lines) else lines
    for line in body:
        if len(line.cells) != len(body[0].cells):
            raise InputError(
                f"row {line.number} of {path} has {len(line.cells)} columns, expected {len(body[0].cells)} as in row "
                f"{body[0].number}; record one row of as many numbers per query"
            )
    is_headed = body is lines and len(lines) > 1 and _is_counted(lines[0].cells)
    read = Cells.of(body[is_headed:], decimal_comma=delimiter in ("\t", ";"))
    return Table(
        rows=[
            [read.number(path, line.number, column, cell) for column, cell in enumerate(line.cells, start=1)]
            if line is not lines[0] or not is_headed
            else [float(cell) for cell in line.cells]
            for line in body
        ],
        is_headed=is_headed,
        firsts=[line.cells[0] for line in body],
    )


def delimiter_of(text: str) -> str | None:
    """Return what parts the cells; None for blanks, or where there is one cell per line."""
    plain = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for part in (plain[1:], plain):  # a heading may hold anything
        for delimiter in _DELIMITERS:
            if any(delimiter in line for line in part):
                return delimiter
    return None


def lines_of(text: str, delimiter: str | None) -> list[Line]:
    """Return the lines that hold anything, without comments."""
    if delimiter is None:
        found = enumerate((line.split() for line in text.splitlines()), start=1)
        lines = [Line(number=number, cells=cells) for number, cells in found]
    else:
        reader = csv.reader(text.splitlines(), delimiter=delimiter)
        lines = [Line(number=reader.line_num, cells=[cell.strip() for cell in cells]) for cells in reader]
    lines = [line for line in lines if line.cells and not line.cells[0].startswith("#")]
    while lines and not any(lines[-1].cells):  # a spreadsheet's empty rows below
        lines.pop()
    return lines


def _without_empty_columns(lines: list[Line]) -> list[Line]:
    """Return lines without the empty cells that a delimiter behind the last one makes, where all lines have it."""
    below = lines[1:] or lines
    while below and all(len(line.cells) > 1 and not line.cells[-1] for line in below):
        width = len(below[0].cells)
        lines = [replace(line, cells=line.cells[: max(width - 1, len(line.cells) - 1)]) for line in lines]
        below = lines[1:] or lines
    return lines


def _is_heading(lines: Sequence[Line]) -> bool:
    """Return whether the first line names the columns: a single text among numbers is a fault, not a heading."""
    first = lines[0].cells
    if len(lines) == 1:
        return False
    numbers = [_NUMBER.fullmatch(_bare(cell)) is not None for cell in first]
    if not any(numbers):
        return any(first)
    # a name, or none, above the index, and class numbers; R writes no cell there
    return (not numbers[0] and _is_counted(first[1:], least=1)) or (
        len(first) + 1 == len(lines[1].cells) and _is_counted(first)
    )


def _is_counted(cells: Sequence[str], *, least: int = 2) -> bool:
    """Return whether cells, at least so many, count from 0 or 1, each as a whole number."""
    counts = ([str(start + place) for place in range(len(cells))] for start in (0, 1))
    return len(cells) >= least and list(cells) in counts


def _bare(cell: str) -> str:
    return cell.removesuffix("%").rstrip().replace(",", ".")


@dataclass(frozen=True, slots=True)
class Cells:
    """How the cells of a file are written: with decimal commas, in percent."""

    takes_comma: bool
    has_comma: bool
    has_percent: bool

    @classmethod
    def of(cls, lines: Sequence[Line], *, decimal_comma: bool) -> Cells:
        """Return how the cells of some lines are written; decimal_comma: whether a comma may be one."""
        cells = [cell for line in lines for cell in line.cells]
        return cls(
            takes_comma=decimal_comma,
            has_comma=decimal_comma and any("," in cell for cell in cells),
            has_percent=any(cell.endswith("%") for cell in cells),
        )

    def number(self, path: Path, row: int, column: int, cell: str) -> float:
        """Return what a cell says; InputError, with row and column, where it is no number."""
        bare, expected = _bare(cell), ""
        if cell.count(",") > self.takes_comma or not _NUMBER.fullmatch(bare):
            expected = "a number such as 0.125"
        elif self.has_comma and "." in cell:
            expected = "a decimal comma as in other cells"
        elif self.has_percent and not cell.endswith("%") and float(bare) != 0:
            expected = "a percent sign as in other cells"
        if expected:
            raise InputError(
                f"row {row}, column {column} of {path} holds {cell[:40]!r}, expected {expected}; record it again"
            )
        return float(bare) / 100 if self.has_percent else float(bare)
