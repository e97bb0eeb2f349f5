"""Recorded answers that name their queries by number, in any order: what comes back of `metav queries export`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, final

import numpy as np

from metav.errors import InputError, SuspectError
from metav.support.arrays import FloatArray
from metav.support.files import PathLike, path_text
from metav.suspects.base import Answers, Check, Suspect
from metav.suspects.csv_tables import Cells, Line, delimiter_of, lines_of

QUERY, ANSWERS = "query", "answers"
"""Names of the numbers and of the answers: columns of a form, arrays of an .npz file, keys of a .json object."""

_Row: TypeAlias = tuple[int, Any]
"""A query's number, from 1, and its answer; None where the form was left blank."""


@final
class NumberedRecording(Suspect):
    """Answers that somebody recorded, each with the number of its query, from 1; in any order.

    path: of a .csv file whose first column is the number; of an .npz file with the arrays "query" and "answers"; of a
        .json file with an object of these two lists. Nothing is unpickled.

    Queries without an answer, or with two, make `answer` raise SuspectError, which tells them.

    Raises InputError on a file that cannot be read.
    """

    def __init__(self, path: PathLike) -> None:
        file = Path(path_text(path))
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            raise InputError(f"{file} is no file of numbered answers; expected one of {', '.join(_READERS)}")
        if not file.is_file():
            raise InputError(f"there is no file {file}; expected the filled form of metav queries export")
        try:
            self.rows = reader(file)
        except InputError:
            raise
        # damaged files make NumPy, zipfile, csv and json raise many kinds of errors; NumPy also refuses pickles
        except Exception as error:
            raise InputError(
                f"{file} cannot be read ({type(error).__name__}: {error}); expected the filled form of metav queries "
                "export"
            ) from error
        self.description = f"recorded answers {file.name}"

    def _answer(self, queries: FloatArray, batch_size: int, check: Check) -> Answers:
        count = len(queries)
        found = {number: answer for number, answer in self.rows if answer is not None}
        unknown = sorted({number for number, _ in self.rows if not 1 <= number <= count})
        if unknown:
            raise SuspectError(
                "wrong_rows", f"there are answers to queries {spans(unknown)}, expected numbers from 1 to {count}"
            )
        times = Counter(number for number, answer in self.rows if answer is not None)
        twice = sorted(number for number, filled in times.items() if filled > 1)
        if twice:
            raise SuspectError(
                "wrong_rows", f"queries {spans(twice)} are answered more than once; leave one answer each"
            )
        missing = [number for number in range(1, count + 1) if number not in found]
        if missing:
            raise SuspectError(
                "missing_rows",
                f"queries {spans(missing)} have no answer ({len(missing)} of {count}); ask these, and add them to the "
                "form",
            )
        answers = [found[number] for number in range(1, count + 1)]
        return Answers(responses=check(answers, rows=count), differences=None)


def spans(numbers: Iterable[int]) -> str:
    """Return sorted numbers as text, neighbours joined: 1, 4-7, 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[1]}" for part in parts)


def _read_csv(path: Path) -> list[_Row]:
    text = path.read_text(encoding="utf-8-sig")
    delimiter = delimiter_of(text)
    lines = [line for line in lines_of(text, delimiter) if any(line.cells)]
    if lines and not lines[0].cells[0].isdigit():
        lines = lines[1:]  # the heading
    found: list[tuple[int, Line]] = []
    for line in lines:
        first, *cells = line.cells
        if not first.isdigit():
            raise InputError(
                f"line {line.number} of {path} starts with {first!r}, expected the number of a query, from 1"
            )
        while cells and not cells[-1]:
            cells.pop()
        found.append((int(first), replace(line, cells=cells)))
    read = Cells.of([line for _, line in found], decimal_comma=delimiter in ("\t", ";"))
    return [
        (
            query,
            [read.number(path, line.number, column, cell) for column, cell in enumerate(line.cells, start=2)] or None,
        )
        for query, line in found
    ]


def _read_npz(path: Path) -> list[_Row]:
    with np.load(path, allow_pickle=False) as archive:
        return _paired(path, {name: archive[name] for name in archive.files})


def _read_json(path: Path) -> list[_Row]:
    return _paired(path, json.loads(path.read_text(encoding="utf-8")))


def _paired(path: Path, content: Any) -> list[_Row]:
    if not isinstance(content, Mapping) or not {QUERY, ANSWERS} <= set(content):
        raise InputError(
            f'{path} lacks "{QUERY}" or "{ANSWERS}"; expected numbers of queries, from 1, and their answers'
        )
    numbers = np.asarray(content[QUERY])
    if numbers.dtype.kind not in "iu" or numbers.shape != (len(content[ANSWERS]),):
        raise InputError(f'"{QUERY}" in {path} must hold one whole number per answer, got shape {numbers.shape}')
    return list(zip(numbers.tolist(), content[ANSWERS], strict=True))


_READERS: Mapping[str, Callable[[Path], list[_Row]]] = MappingProxyType(
    {".csv": _read_csv, ".npz": _read_npz, ".json": _read_json}
)
