"""Answers that somebody recorded earlier as a suspect: an array, or a file of numbers."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np

from metav.errors import InputError, SuspectError
from metav.support.arrays import FloatArray
from metav.support.files import path_text
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface
from metav.support.text import byte_size
from metav.suspects.base import Answers, Check, Suspect
from metav.suspects.csv_tables import Table, read_table

ANSWERS = "answers"
"""Name of the array in an .npz file, or of the list in a .json object."""
LARGEST_FILE = 2**30
"""Bytes of a file of answers, and of what it unpacks to."""


@final
class RecordedSuspect(Suspect):
    """Answers that were recorded earlier, one row per query in the fingerprint's order.

    answers: an array (N, ...), a mapping that holds one, or the path of a file: .npy; .npz with one array, one named
        "answers", or several of which one fits; .csv or .tsv with one line per query (see `read_table`); .json with a
        list, or an object with the key "answers"; .jsonl with one answer per line. Nothing is unpickled.
    output: which part of a mapping or archive counts; None for the one that fits.

    Raises InputError on a file that cannot be read, with row and column where it is text.
    """

    def __init__(self, answers: Any, *, output: OutputChoice | None = None) -> None:
        self.interface = ModelInterface(output=output)
        if isinstance(answers, str | os.PathLike):
            path = Path(path_text(answers))
            self.answers = _read(path)
            self.description = f"recorded answers {path.name}"
        else:
            self.answers = answers
            self.description = "recorded answers"

    def _answer(self, queries: FloatArray, batch_size: int, check: Check) -> Answers:
        return Answers(responses=self._checked(len(queries), check), differences=None)

    def _checked(self, count: int, check: Check) -> FloatArray:
        if not isinstance(self.answers, Table):
            return check(self.answers, rows=count)
        refused = []
        for rows in self.answers.readings(count):
            try:
                return check(rows, rows=count)
            except SuspectError as error:
                refused.append((len(rows[0]), error))
        # what is said is said of all columns
        raise max(refused, key=lambda each: each[0])[1]


def _read(path: Path) -> Any:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no file of recorded answers; expected one of {', '.join(READERS)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected recorded answers, one row per query: check the path")
    size = _unpacked_size(path) if path.suffix.lower() == ".npz" else path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(f"{path} holds more than {byte_size(LARGEST_FILE)}; expected one row of numbers per query")
    try:
        return reader(path)
    except InputError:
        raise
    # damaged files make NumPy, zipfile, csv and json raise many kinds of errors; NumPy also refuses pickles
    except Exception as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected plain numbers in a {path.suffix} file, "
            "one row per query: record the answers again"
        ) from error


def _unpacked_size(path: Path) -> int:
    """Return the bytes that an archive says it unpacks to, which is also what it can be read to; 0 where it is none."""
    if not zipfile.is_zipfile(path):
        return 0
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return 0  # the reader says what is wrong with it


def _read_npy(path: Path) -> Any:
    return _checked_array(path, np.load(path, allow_pickle=False))


def _read_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if not names:
            raise InputError(f'{path} holds no array; expected one, or one named "{ANSWERS}"')
        if ANSWERS in names or len(names) == 1:
            return _checked_array(path, archive[ANSWERS if ANSWERS in names else names[0]])
        return {name: archive[name] for name in names}


def _checked_array(path: Path, array: Any) -> Any:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path} holds {array.dtype}, expected real numbers; record the answers again as numbers")
    return array


def _read_json(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        if ANSWERS not in content:
            raise InputError(f'{path} holds an object without the key "{ANSWERS}"; put the list of answers there')
        content = content[ANSWERS]
    return _checked_rows(path, content)


def _read_json_lines(path: Path) -> Any:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"row {number} of {path} is no JSON ({error}); record one answer per line") from error
        rows.append(row[ANSWERS] if isinstance(row, dict) and ANSWERS in row else row)
    return _checked_rows(path, rows)


def _checked_rows(path: Path, rows: Any) -> Any:
    """Return the answers of a JSON file; InputError, with row and column, for an entry that is no number."""
    if not isinstance(rows, list):
        raise InputError(f"{path} holds a {type(rows).__name__}, expected a list of answers, one per query")
    for number, row in enumerate(rows, start=1):
        entries = _flat(row)
        for place, entry in enumerate(entries, start=1):
            if not isinstance(entry, int | float) or (isinstance(entry, int) and abs(entry) > sys.float_info.max):
                raise InputError(
                    f"row {number}, column {place} of {path} holds {json.dumps(entry)[:40]}, expected a number such as "
                    "0.125; record it again"
                )
        if len(entries) != len(_flat(rows[0])):
            raise InputError(
                f"row {number} of {path} has {len(entries)} numbers, expected {len(_flat(rows[0]))} as in row 1; "
                "record one row of as many numbers per query"
            )
    return rows


def _flat(row: Any) -> list[Any]:
    return [entry for part in row for entry in _flat(part)] if isinstance(row, list) else [row]


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": read_table,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".tsv": read_table,
}
