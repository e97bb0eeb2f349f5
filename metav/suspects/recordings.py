"""Answers that somebody recorded earlier as a suspect: an array, or a .npy, .npz, .csv or .json file."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np

from metav.errors import InputError, SuspectError
from metav.support.arrays import FloatArray
from metav.support.model_answers import OutputChoice
from metav.support.model_interface import ModelInterface
from metav.suspects.base import Answers, Check, Suspect

ANSWERS = "answers"
"""Name of the array in an .npz file, or of the list in a .json object."""
LARGEST_FILE = 2**30
"""Bytes of a file of answers, and of what it unpacks to."""


@final
class RecordedSuspect(Suspect):
    """Answers that were recorded earlier, one row per query in the fingerprint's order.

    answers: an array (N, ...), a mapping that holds one, or the path of a file: .npy; .npz with one array, one named
        "answers", or several of which one fits; .csv with one line per query, a heading allowed; .json with a list, or
        an object with the key "answers". Nothing is unpickled.

    output: which part of a mapping or archive counts; None for the one that fits.

    Raises InputError on a file that cannot be read.
    """

    def __init__(self, answers: Any, *, output: OutputChoice | None = None) -> None:
        self.interface = ModelInterface(output=output)
        if isinstance(answers, str | os.PathLike):
            path = Path(answers)
            self.answers = _read(path)
            self.description = f"recorded answers {path.name}"
        else:
            self.answers = answers
            self.description = "recorded answers"

    def _answer(self, queries: FloatArray, batch_size: int, check: Check) -> Answers:
        return Answers(responses=check(self.answers, rows=len(queries)), differences=None)


def _read(path: Path) -> Any:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no file of recorded answers; expected one of {', '.join(READERS)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected recorded answers, one row per query: check the path")
    size = _unpacked_size(path) if path.suffix.lower() == ".npz" else path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(f"{path} holds more than {LARGEST_FILE} bytes; expected one row of numbers per query")
    try:
        return reader(path)
    except (InputError, SuspectError):
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
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if not names:
            raise InputError(f'{path} holds no array; expected one, or one named "{ANSWERS}"')
        if ANSWERS in names or len(names) == 1:
            return archive[ANSWERS if ANSWERS in names else names[0]]
        return {name: archive[name] for name in names}


def _read_csv(path: Path) -> list[list[float]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if line]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append([float(cell) for cell in line])
        except ValueError as error:
            if number == 1:
                continue  # a heading
            raise SuspectError("not_numeric", f"line {number} of {path} holds no numbers: {error}") from error
    return rows


def _read_json(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        if ANSWERS not in content:
            raise InputError(f'{path} holds an object without the key "{ANSWERS}"; put the list of answers there')
        return content[ANSWERS]
    return content


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".json": _read_json,
}
