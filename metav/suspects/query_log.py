"""The log of a run: what was sent, when, and what came back, in one SQLite file whose rows are chained by hashes.

It is custody (each row holds the hash of the row before, and the verdict states the last one), the state from which a
killed run goes on, and the count that a budget is held to. A batch's answers are written whole or not at all.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from metav.errors import QueryLogError
from metav.support.arrays import FloatArray
from metav.support.closing import Closing
from metav.support.files import PathLike, path_text
from metav.support.json_values import canonical_json
from metav.suspects.log_rows import (
    COLUMNS,
    FIRST_HASH,
    SCHEMA,
    LogRow,
    check_chain,
    decoded_answer,
    hash_of,
    read_rows,
)

REFUSED = frozenset({"401", "403", "404", "405", "413", "415", "429", "503"})
"""Status of a batch that the service says it did not work on: it counts for no budget."""

SYNCHRONOUS = {True: "FULL", False: "NORMAL"}
"""SQLite's guarantees, by whether answers have a price: they survive a power cut, for one sync a batch, or at least the
end of the process; the file is whole in both cases."""


@dataclass(slots=True)
class LogState:
    """What the rows of a log amount to, kept up to date as rows are added.

    header: of the first row; empty before there is one.
    answers: of each item that was answered, (outputs,) float32.
    sent: queries that were sent, in all attempts, but for those that were refused.
    failed: attempts of batches that failed.
    batch_size: the most that the suspect took, where that is known.
    """

    header: Mapping[str, Any]
    answers: dict[int, FloatArray]
    sent: int = 0
    failed: int = 0
    batch_size: int | None = None

    @classmethod
    def of(cls, rows: Iterable[LogRow]) -> Self:
        """Return what some rows amount to."""
        state = cls(header={}, answers={})
        for row in rows:
            state.take(row)
        return state

    def take(self, row: LogRow) -> None:
        """Count one more row."""
        match row.event:
            case "run":
                self.header = row.details
            case "sent":
                self.sent += len(row.details["items"])
            case "answered":
                if row.item is not None and row.answer is not None:
                    self.answers[row.item] = decoded_answer(row.answer)
            case "failed":
                self.sent -= row.status in REFUSED
                self.failed += bool(row.details.get("first"))
            case "batch_size":
                self.batch_size = int(row.details["size"])


class QueryLog(Closing):
    """The log of one run, open for writing by this process alone.

    path: of the file, made if it is missing, for its owner's eyes only; None keeps the rows in memory.
    priced: whether an answer costs more than the time to work it out again.

    Raises QueryLogError for a file that is no log, was altered, or is written by another process.
    """

    def __init__(self, path: PathLike | None, *, priced: bool = True) -> None:
        self.path, self._priced = None if path is None else Path(path_text(path)), priced
        rows: list[LogRow] = []
        if self.path is not None:
            _prepare(self.path)
        self._connection = _connected(self.path, priced)
        try:
            rows = read_rows(self._connection, str(self.path)) if self.path is not None else []
            check_chain(rows, str(self.path))
            if not rows:
                self._connection.execute(SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS", 1))
        except BaseException:
            self._connection.close()
            raise
        self.rows = len(rows)
        self.head = rows[-1].hash if rows else FIRST_HASH
        self.state = LogState.of(rows)

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, all or none of them; each a mapping of columns but for number, time and hashes."""
        rows, head, now = [], self.head, datetime.now(UTC).isoformat(timespec="microseconds")
        for number, entry in enumerate(entries, start=self.rows):
            values: dict[str, Any] = (
                dict.fromkeys(COLUMNS) | dict(entry) | {"number": number, "time": now, "previous": head}
            )
            values["detail"] = None if values["detail"] is None else canonical_json(values["detail"]).decode()
            head = values["hash"] = hash_of(values)
            rows.append(LogRow(**values))
        marks = ", ".join("?" * len(COLUMNS))
        with _reported(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    f"INSERT INTO entries VALUES ({marks})",
                    [tuple(getattr(row, name) for name in COLUMNS) for row in rows],
                )
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
        self.head, self.rows = head, self.rows + len(rows)
        for row in rows:
            self.state.take(row)

    def answered(
        self, items: list[int], digests: list[str], responses: FloatArray, inputs: FloatArray | None, **columns: Any
    ) -> None:
        """Add the answers (n, outputs) to items; columns: attempt, status, detail."""
        kept = [None] * len(items) if inputs is None else [np.asarray(row, "<f4").tobytes() for row in inputs]
        self.append(
            {
                "event": "answered",
                "item": item,
                "query": digest,
                "answer": np.asarray(response, "<f4").tobytes(),
                "input": stored,
                **columns,
            }
            for item, digest, response, stored in zip(items, digests, responses, kept, strict=True)
        )

    def failed(self, items: list[int], digests: list[str], *, detail: Mapping[str, Any], **columns: Any) -> None:
        """Add a failed attempt on items; columns: attempt, status."""
        self.append(
            {"event": "failed", "item": item, "query": digest, "detail": {**detail, "first": number == 0}, **columns}
            for number, (item, digest) in enumerate(zip(items, digests, strict=True))
        )

    def close(self) -> None:
        """Leave one plain file behind; nothing happens on a second call."""
        with suppress(sqlite3.Error):
            if not self._priced:
                self._connection.execute("PRAGMA synchronous=OFF")  # one sync at the end instead of several
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()
        if self.path is not None and not self._priced:
            with suppress(OSError):
                _sync(self.path)
        # left by whoever looked at the log of a killed run; this connection, which was alone, had no use for it
        if self.path is not None and not os.path.exists(f"{self.path}-wal"):
            with suppress(OSError):
                os.unlink(f"{self.path}-shm")


class _reported:
    """Turns SQLite's errors on a log into one that says what to do."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, sqlite3.Error):
            raise QueryLogError(
                f"{self.path} cannot be written ({error}); free space on the disk, or choose another file"
            ) from error


def _prepare(path: Path) -> None:
    """Make the file for its owner alone; refuse what is no log before SQLite touches it."""
    if not path.parent.is_dir():
        raise QueryLogError(f"{path} cannot be written: there is no folder {path.parent}; make it, or choose another")
    try:
        if path.exists():
            with path.open("rb") as file:
                start = file.read(16)
            if start and start != b"SQLite format 3\0":
                raise QueryLogError(f"{path} is no query log; choose another file for the log")
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise QueryLogError(f"{path} cannot be written ({error}); choose another file for the log") from error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _connected(path: Path | None, priced: bool) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            ":memory:" if path is None else path, isolation_level=None, timeout=0.2, check_same_thread=False
        )
        # exclusive: a second process must not ask the same queries; the write-ahead log costs one sync a batch
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if path is not None:
            if not path.stat().st_size:
                connection.execute("PRAGMA synchronous=OFF")  # there is nothing to lose yet
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[priced]}")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise QueryLogError(
            f"{path} cannot be opened as a query log ({error}); it may be in use by another process: wait for that, or "
            "choose another file"
        ) from error
    return connection
