"""The rows of a query log: their columns, their hashes, and the check that none was altered, removed or added."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metav.errors import QueryLogError
from metav.support.arrays import FloatArray
from metav.support.files import PathLike, path_text

FORMAT, VERSION = "metav query log", 1
FIRST_HASH = "0" * 64
"""What stands for the hash of the row before in the first row."""
COLUMNS = (
    "number",
    "time",
    "event",
    "item",
    "query",
    "attempt",
    "status",
    "answer",
    "input",
    "detail",
    "previous",
    "hash",
)
SCHEMA = (
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, time TEXT, event TEXT, item INTEGER, query TEXT, "
    "attempt INTEGER, status TEXT, answer BLOB, input BLOB, detail TEXT, previous TEXT, hash TEXT)"
)
EVENTS = frozenset({"run", "session", "sent", "answered", "failed", "batch_size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One row.

    number: from 0. time: in UTC, ISO 8601.
    event: "run" (the first row: what is asked), "session" (a process begins to ask), "sent" (a batch, before it
        leaves), "answered", "failed" (one query of a batch), "batch_size" (the suspect takes no more at once).
    item: number of the query in the order of asking; None for a row about no single one.
    query: keyed digest of the query, which only the fingerprint's salt can tell from a guess.
    attempt: from 1. status: of the answer, such as "200" or "timeout".
    answer: float32 numbers, little-endian. input: the query likewise, where it was to be kept.
    detail: canonical JSON of whatever else there is.
    previous, hash: SHA-256 of the row before and of this one, all other columns and `previous` included.
    """

    number: int
    time: str
    event: str
    item: int | None
    query: str | None
    attempt: int | None
    status: str | None
    answer: bytes | None
    input: bytes | None
    detail: str | None
    previous: str
    hash: str

    @property
    def details(self) -> dict[str, Any]:
        """The detail as a dictionary."""
        found: dict[str, Any] = {} if self.detail is None else json.loads(self.detail)
        return found


def hash_of(values: Mapping[str, Any]) -> str:
    """Return the hexadecimal SHA-256 over all columns of a row but its own hash; types count."""
    told = [values[name] for name in COLUMNS if name != "hash"]
    text = json.dumps([["bytes", entry.hex()] if isinstance(entry, bytes) else entry for entry in told])
    return hashlib.sha256(text.encode()).hexdigest()


def decoded_answer(stored: bytes) -> FloatArray:
    """Return the numbers of an answer as they were before they were stored."""
    return np.frombuffer(stored, "<f4").astype(np.float32)


def read_log(path: PathLike) -> list[LogRow]:
    """Return the checked rows of a log, which stays as it is.

    Raises QueryLogError for a file that is no log, or that was altered.
    """
    file = Path(path_text(path))
    if not file.is_file():
        raise QueryLogError(f"there is no file {file}; expected the log of a run, made by metav verify --log")
    rows = _rows_of(file)
    if not rows:
        raise QueryLogError(f"{file} holds no rows; expected the log of a run, made by metav verify --log")
    check_chain(rows, str(file))
    return rows


def _rows_of(file: Path) -> list[LogRow]:
    problem: Exception = QueryLogError(f"{file} cannot be opened; check that you may read it")
    # on a medium that cannot be written, SQLite reads only what it is told never to change
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{mode}", uri=True, timeout=0.2)) as connection:
                return read_rows(connection, str(file))
        except sqlite3.OperationalError as error:
            problem = QueryLogError(
                f"{file} cannot be read ({error}); it may be in use by a running process, or be no query log"
            )
            if "locked" in str(error):
                break
    raise problem


def read_rows(connection: sqlite3.Connection, name: str) -> list[LogRow]:
    """Return the rows of an open log, unchecked but for the types of its columns.

    Raises QueryLogError for a file that is no log.
    """
    try:
        tables = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        if not tables:
            return []
        if tables != [("table", "entries", SCHEMA)]:
            raise QueryLogError(
                f"{name} holds other tables than a query log's, or more; it is none, or it was altered: get an intact "
                "copy"
            )
        found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM entries ORDER BY number").fetchall()
    except sqlite3.OperationalError:
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise QueryLogError(f"{name} is damaged or no query log ({error}); get an intact copy") from error
    return [LogRow(**dict(zip(COLUMNS, values, strict=True))) for values in found]


def check_chain(rows: Sequence[LogRow], name: str) -> None:
    """Raise QueryLogError at the first row that was altered, removed, moved or added."""
    previous, answered = FIRST_HASH, set()
    for number, row in enumerate(rows):
        problem = _problem_of(row, number, previous)
        if problem is None and row.event == "answered":
            problem = "answers a query that was answered before" if row.item in answered else None
            answered.add(row.item)
        if problem is not None:
            raise QueryLogError(f"{name} was altered: row {number} {problem}; get an intact copy, or start a new log")
        previous = row.hash
    if rows and (rows[0].details.get("format"), rows[0].details.get("version")) != (FORMAT, VERSION):
        raise QueryLogError(f"{name} is of an unknown version; upgrade metav, or start a new log")


def _problem_of(row: LogRow, number: int, previous: str) -> str | None:
    if row.number != number:
        return f"is missing, number {row.number} stands in its place"
    if row.previous != previous:
        return "does not follow the row before"
    try:
        expected = hash_of({name: getattr(row, name) for name in COLUMNS})
    except TypeError:
        return "holds values of another kind"
    if row.hash != expected:
        return "does not have the hash that it states"
    return None if (row.event == "run") == (number == 0) and row.event in EVENTS else f"has the event {row.event!r}"


def check_head(rows: Sequence[LogRow], head: str, name: str) -> None:
    """Raise QueryLogError where a log does not end with the row whose hash a verdict states."""
    if rows[-1].hash == head:
        return
    places = [row.number for row in rows if row.hash == head]
    if places:
        raise QueryLogError(
            f"{name} goes on after the stated head: {len(rows) - 1 - places[0]} rows after row {places[0]} were added"
        )
    raise QueryLogError(
        f"{name} ends with {rows[-1].hash}, not with the stated head {head}: rows at its end were removed, or it is "
        "the log of another run"
    )
