"""Answers in JSON, read within limits, and the numbers in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metav.suspects.http.connection import Connection, Received

_LISTED = 10


def read_json(received: Received, connection: Connection, *, length: int | None = None) -> Any:
    """Return the JSON of an answer (of its first `length` bytes); TransportError("unreadable") for anything else."""
    try:
        return json.loads(received.content[:length])
    # text that is no JSON or no UTF-8, numbers of thousands of digits, lists in lists without end
    except (ValueError, RecursionError) as error:
        kind = connection.hidden(received.headers.get("content-type", "unknown"))[:60]
        raise received.fault(
            f"{connection.address} answered with no JSON ({type(error).__name__}; content type {kind}): "
            f"{connection.excerpt(received.content)}"
        ) from None


def columns(rows: Sequence[Any]) -> Any:
    """Return rows that are objects of numbers, as tables come in JSON, as lists in the first row's order.

    Rows of anything else come back as they are.
    """
    first = rows[0] if rows else None
    if not isinstance(first, Mapping) or not all(
        isinstance(row, Mapping) and row.keys() == first.keys() for row in rows
    ):
        return rows
    return [[row[name] for name in first] for row in rows]


def listed(names: Sequence[object], connection: Connection) -> str:
    """Return names from a service as a message lists them."""
    shown = [connection.hidden(name)[:60] for name in names[:_LISTED]]
    return ", ".join(shown) + (", ..." if len(names) > _LISTED else "") or "none"
