"""What went wrong with one batch, and what follows from it: again, in smaller batches, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metav.errors import MetavError, SuspectError, TransportError

UNREADABLE = frozenset({"unreadable", "not_numeric", "ragged", "wrong_rows", "wrong_outputs", "not_finite"})
"""Reasons of answers that came and cannot be read."""
_TOO_LARGE = frozenset({400, 413, 422})
"""Status that services give to more queries than they take at once."""
_OVERLOADED = frozenset({500, 502, 504})
"""Status of a service that may have failed on the size of a batch."""
_TOO_EARLY = 202
"""Status of a service that took the queries and has no answer yet."""
_DEFECTS = (TypeError, AttributeError, NameError, LookupError, ArithmeticError, AssertionError, MetavError)
"""What a function raises for a fault of its own that will come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A batch without an answer that can be used.

    error: what the verdict tells of it.
    status: for the log: of HTTP, or a reason code. It holds no text of the service's, which may hold a credential.
    retriable: whether the same batch may be answered later.
    unreadable: whether an answer came.
    retry_after: seconds that the service asks to wait, or None.
    smaller: whether fewer queries at once may be answered: "at once", "after another try", or "" for neither.
    detail: for the log.
    """

    error: SuspectError
    status: str
    retriable: bool
    unreadable: bool
    retry_after: float | None
    smaller: str
    detail: dict[str, Any]


def fault_of(error: Exception, shape: tuple[int, ...]) -> Fault:
    """Return what an exception on a batch of a shape means."""
    response = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None)
    status = status if isinstance(status, int) else None
    late = isinstance(error, TimeoutError) or getattr(error, "reason", None) == "timeout"
    told = error if isinstance(error, SuspectError) else _failed(error, shape)
    unreadable = told.reason in UNREADABLE and status != _TOO_EARLY
    retriable = getattr(error, "retriable", None)
    if retriable is None:
        retriable = not isinstance(error, _DEFECTS) and (status is None or status in (408, 425, 429) or status >= 500)
    smaller = ""
    if status in _TOO_LARGE or told.reason in ("too_large", "wrong_rows"):
        smaller = "at once"
    elif status in _OVERLOADED or late:
        smaller = "after another try"
    hashes = {name: getattr(error, name, None) for name in ("request_sha256", "response_sha256")}
    kind = {"error": type(error).__name__, "reason": told.reason}
    wait = getattr(error, "retry_after", None)
    return Fault(
        error=told,
        status=_status_text(status, late, told),
        retriable=bool(retriable) or status == _TOO_EARLY,
        unreadable=unreadable,
        retry_after=wait,
        smaller=smaller,
        detail=kind
        | {name: value for name, value in hashes.items() if value is not None}
        | ({} if wait is None else {"retry_after": str(wait)}),
    )


def _status_text(status: int | None, late: bool, told: SuspectError) -> str:
    if status is not None:
        # an answer that came well and cannot be read is no refusal
        return str(status) if told.reason not in UNREADABLE else f"{status} {told.reason}"
    return "timeout" if late else told.reason


def _failed(error: Exception, shape: tuple[int, ...]) -> SuspectError:
    if isinstance(error, TransportError):
        return error
    return SuspectError("failed", f"the suspect failed on queries of shape {shape}: {type(error).__name__}: {error}")
