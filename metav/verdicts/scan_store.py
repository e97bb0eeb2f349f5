"""The results of a scan in one SQLite file: a row per suspect, written as it is judged, so that a scan can go on."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metav.errors import InputError
from metav.statistics.corrections import holm
from metav.support.closing import Closing
from metav.support.files import PathLike, path_text, write_atomically
from metav.verdicts.verdict import Verdict

COLUMNS = (
    "name",
    "source",
    "identity",
    "decision",
    "score",
    "p_value",
    "p_holm",
    "logit",
    "threshold",
    "reason",
    "message",
    "form",
    "access",
    "noise",
    "seconds",
    "verdict",
)
"""Of a row; `verdict` is its JSON text, `p_holm` the p-value corrected for all suspects of the scan (Holm)."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS results (name TEXT PRIMARY KEY, source TEXT, identity TEXT, decision TEXT, score REAL, "
    "p_value REAL, p_holm REAL, logit REAL, threshold REAL, reason TEXT, message TEXT, form TEXT, access TEXT, "
    "noise REAL, seconds REAL, verdict TEXT)"
)


class ScanStore(Closing):
    """The results of one scan.

    path: of the file, made if it is missing.
    commitment: of the fingerprint, the only one whose results it takes.

    Raises InputError for a file that is no scan's, of another fingerprint, or in use by another scan.
    """

    def __init__(self, path: PathLike, commitment: str) -> None:
        self.path = path = Path(path_text(path))
        if not self.path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {self.path.parent}; make it first")
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=0.2)
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if tables - {"results", "scan"}:
                raise InputError(f"{path} is no file of a scan; choose another")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("BEGIN EXCLUSIVE")
            self._connection.execute(_SCHEMA)
            self._connection.execute("CREATE TABLE IF NOT EXISTS scan (commitment TEXT)")
            known = self._connection.execute("SELECT commitment FROM scan").fetchall()
            if not known:
                self._connection.execute("INSERT INTO scan VALUES (?)", (commitment,))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise InputError(
                f"{path} cannot be used for a scan ({error}); wait for whoever uses it, or choose another file"
            ) from error
        if known and known[0][0] != commitment:
            self.close()
            raise InputError(f"{path} holds results of another fingerprint, {known[0][0]}; choose another file")

    def known(self) -> dict[str, str]:
        """Return the identity of each suspect, by name, that was judged."""
        return dict(self._connection.execute("SELECT name, identity FROM results"))

    def add(self, name: str, source: str, identity: str, verdict: Verdict, seconds: float) -> None:
        """Add or replace a result; it is there for good once this returns."""
        told = verdict.to_dict()
        values = {"name": name, "source": source, "identity": identity, "seconds": round(seconds, 4), "p_holm": None}
        values |= {column: told[column] for column in COLUMNS if column in told}
        values["verdict"] = json.dumps(told, sort_keys=True)
        marks = ", ".join("?" * len(COLUMNS))
        self._connection.execute(
            f"INSERT OR REPLACE INTO results VALUES ({marks})", [values[column] for column in COLUMNS]
        )

    def finish(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the rows of these suspects in order, their p-values corrected together, which the file then holds."""
        found = self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM results").fetchall()
        by_name = {values[0]: dict(zip(COLUMNS, values, strict=True)) for values in found}
        rows = [by_name[name] for name in names]
        scored = [row for row in rows if row["p_value"] is not None]
        for row, corrected in zip(scored, holm([row["p_value"] for row in scored]), strict=True):
            row["p_holm"] = corrected
        self._connection.execute("BEGIN")
        self._connection.execute("UPDATE results SET p_holm = NULL")
        self._connection.executemany(
            "UPDATE results SET p_holm = ? WHERE name = ?", [(row["p_holm"], row["name"]) for row in scored]
        )
        self._connection.execute("COMMIT")
        return rows

    def close(self) -> None:
        """Leave one plain file behind."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()


def write_table(rows: Iterable[Mapping[str, Any]], path: PathLike) -> None:
    """Write rows as CSV, all columns but the whole verdicts, at once or not at all."""
    columns = [column for column in COLUMNS if column != "verdict"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in rows)
    write_atomically(path, text.getvalue().encode())
