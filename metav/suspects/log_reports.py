"""A query log for people and other programs: what it holds, as a summary, as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.files import PathLike, path_text, write_atomically
from metav.support.json_values import plain
from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_plan import plan_asking
from metav.suspects.log_rows import COLUMNS, LogRow, decoded_answer
from metav.suspects.query_log import LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What a log holds.

    suspect, commitment: who was asked, and by which fingerprint.
    planned, answered: items of the run. sent, failed: queries, and attempts of batches.
    sessions: how often a process began to ask. statuses: rows by status of answers and failures.
    first, last: times of the first and last row. rows, head: of the chain.
    """

    suspect: str
    commitment: str
    planned: int
    answered: int
    sent: int
    failed: int
    sessions: int
    statuses: Mapping[str, int]
    first: str
    last: str
    rows: int
    head: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in fields(self)})
        return values

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in self.statuses.items()) or "none yet"
        lines = {
            "suspect": self.suspect,
            "fingerprint": self.commitment,
            "answered": f"{self.answered} of {self.planned}, decoys and repeats included",
            "sent": f"{self.sent} queries in {self.sessions} sessions; {self.failed} attempts failed",
            "status": statuses,
            "time": f"{self.first} to {self.last}",
            "chain": f"{self.rows} rows, whole",
            "head": self.head,
        }
        width = max(map(len, lines))
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines.items())


def summarise(rows: Sequence[LogRow]) -> LogSummary:
    """Return what the checked rows of a log hold; there is at least one."""
    state, plan = LogState.of(rows), rows[0].details["plan"]
    statuses = Counter(str(row.status) for row in rows if row.event in ("answered", "failed"))
    return LogSummary(
        suspect=str(state.header["suspect"]),
        commitment=str(state.header["commitment"]),
        planned=plan["queries"] + plan["decoys"] + plan["repeats"],
        answered=len(state.answers),
        sent=state.sent,
        failed=state.failed,
        sessions=sum(row.event == "session" for row in rows),
        statuses=MappingProxyType(dict(statuses.most_common())),
        first=rows[0].time,
        last=rows[-1].time,
        rows=len(rows),
        head=rows[-1].hash,
    )


def check_queries(rows: Sequence[LogRow], fp: Fingerprint, name: str) -> None:
    """Raise InputError where the queries of a log are not those of a fingerprint, in the stated order."""
    plan, header = rows[0].details["plan"], rows[0].details
    if header["commitment"] != fp.commitment:
        raise InputError(f"{name} is the log of the fingerprint {header['commitment']}, this one is {fp.commitment}")
    names = ("shuffle", "decoys", "repeats", "seed")
    expected = plan_asking(fp, AskingOptions(**{entry: plan[entry] for entry in names}))
    wrong = [
        row.number
        for row in rows
        if row.item is not None and row.query != expected.digests[int(expected.sources[row.item])]
    ]
    if wrong or expected.header(AskingOptions(seed=plan["seed"]))["digest"] != plan["digest"]:
        places = f", first in row {wrong[0]}" if wrong else ""
        raise InputError(f"{name} holds queries that are not those of the fingerprint{places}; get an intact copy")


def export_log(rows: Sequence[LogRow], path: PathLike) -> None:
    """Write the rows of a log to a .csv or .jsonl file, at once or not at all; answers as lists of numbers.

    Raises InputError for another ending.
    """
    target = Path(path_text(path))
    writer = WRITERS.get(target.suffix.lower())
    if writer is None:
        raise InputError(f"{target} has an unknown ending; expected one of {', '.join(WRITERS)}")
    write_atomically(target, writer([_readable(row) for row in rows]).encode(), private=True)


def _readable(row: LogRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in COLUMNS}
    numbers = {name: None if values[name] is None else decoded_answer(values[name]) for name in ("answer", "input")}
    # the shortest text that gives the same float32
    texts = {
        name: None if row is None else [json.loads(str(number)) for number in row] for name, row in numbers.items()
    }
    return values | texts | {"detail": row.details}


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (row[name] for name in COLUMNS)
        writer.writerow(json.dumps(cell, sort_keys=True) if isinstance(cell, list | dict) else cell for cell in cells)
    return text.getvalue()


def _as_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows)


WRITERS: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], str]] = MappingProxyType(
    {".csv": _as_csv, ".jsonl": _as_json_lines}
)
"""How a log is written to a file of an ending."""
