"""What a run of asking leaves behind: its record for the verdict, and what shows whether answers held still."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.fingerprints.fingerprint import Fingerprint
from metav.support.arrays import FloatArray
from metav.support.json_values import plain
from metav.suspects.base import Answers, AskedSuspect
from metav.suspects.log_rows import FORMAT, VERSION
from metav.suspects.transports import TransportSuspect


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingRecord:
    """What was asked, for the verdict.

    log: name of the file; None where no log was kept.
    head: hash of the log's last row: `metav log verify --head` checks a log against it.
    rows: of the log.
    planned, answered: items to be asked, repeats and decoys included, and those with an answer.
    sent: queries that were sent, over all attempts and sessions.
    failed: attempts of batches that failed.
    decoys, repeats: among the planned.
    shuffled: whether the order was drawn at random.
    cost: money; None where a query has no price.
    """

    log: str | None
    head: str
    rows: int
    planned: int
    answered: int
    sent: int
    failed: int
    decoys: int
    repeats: int
    shuffled: bool
    cost: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in fields(self)})
        return values

    def __str__(self) -> str:
        extra = f" ({self.decoys} decoys, {self.repeats} repeats)"
        cost = "" if self.cost is None else f", cost {self.cost:g}"
        kept = "" if self.log is None else f"; log {self.log}, {self.rows} rows, head {self.head}"
        return (
            f"{self.answered} of {self.planned} answered{extra}, {self.sent} sent, {self.failed} attempts failed"
            f"{cost}{kept}"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CarefulAnswers(Answers):
    """Answers with the record of how they came.

    record: of the run.
    pairs: places (r, 2) in the order of asking of the queries that `differences` are of.
    origins: (m,) queries that decoys were made from. decoys: answers to both neighbours of each, (m, 2, K).
    """

    record: AskingRecord
    pairs: NDArray[np.intp]
    origins: NDArray[np.intp]
    decoys: FloatArray


def header_of(suspect: AskedSuspect, fp: Fingerprint, plan: dict[str, Any], *, kept: bool) -> dict[str, Any]:
    """Return what the first row of a log says: enough to know a run by, and no credential.

    kept: whether the log is a file, for which the suspect's identity is worked out.
    """
    transport = suspect.transport if isinstance(suspect, TransportSuspect) else None
    return {
        "format": FORMAT,
        "version": VERSION,
        "commitment": fp.commitment,
        "suspect": without_credentials(suspect.description),
        "identity": without_credentials(suspect.identity) if kept else "",
        "configuration": None if transport is None else _without_secrets(transport.configuration),
        "outputs": fp.task.outputs,
        "plan": plan,
    }


def without_credentials(text: str) -> str:
    """Return a text with the user, password and query of addresses in it left out."""
    return re.sub(r"(\w+://)(?:[^\s/@]*@)?([^\s?]*)(?:\?\S*)?", r"\1\2", text)


def _without_secrets(configuration: Mapping[str, Any]) -> Any:
    """Return a transport's configuration with the names of headers alone: a user may write a credential into one."""
    headers = configuration.get("headers")
    return _texts(dict(configuration) | ({"headers": sorted(headers)} if headers else {}))


def _texts(value: Any) -> Any:
    """Return a plain value with its fractions as texts: canonical JSON has one form of those alone."""
    value = plain(value)
    if isinstance(value, dict):
        return {name: _texts(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_texts(entry) for entry in value]
    return str(value) if isinstance(value, float) else value
