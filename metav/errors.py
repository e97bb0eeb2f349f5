"""Every error that metav raises on purpose: one class per thing that a user can act on."""

from __future__ import annotations


class MetavError(Exception):
    """Base of all errors of metav."""


class InputError(MetavError, ValueError):
    """Data, shapes or options that cannot be used; the message says what was expected."""


class ModelError(MetavError, ValueError):
    """A model, or a callable that builds one, whose outputs do not fit the task."""


class ObfuscationError(MetavError, ValueError):
    """An ownership obfuscation that makes no sense for this model or task."""


class ZooError(MetavError, ValueError):
    """A zoo of surrogate models that cannot serve: no negatives, no positives, or too few models for its shares."""


class CacheError(MetavError, OSError):
    """A cache folder that cannot be read or written."""


class ArtefactError(MetavError, ValueError):
    """A fingerprint file that is missing, truncated, altered or of an unknown version."""


class SuspectError(MetavError):
    """A suspect that failed, or answered in a way that cannot be scored; becomes an INCONCLUSIVE verdict.

    reason: a short code for programs, such as "failed" or "not_finite".
    message: the same for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TransportError(SuspectError):
    """A service that gave no answer to a batch of queries, or none that can be read.

    reason: "unreachable" (no connection, or it broke), "timeout", "tls", "refused" (a status that is no success),
        "redirected" (to another address), "too_large" or "unreadable" (the answer).
    status: of HTTP; None where no answer came.
    retry_after: seconds that the service asks to wait; None where it names none.
    retriable: whether the same batch may be answered later: for connections, time limits and status 408, 425, 429, 5xx.
    request_sha256, response_sha256: of the bodies as sent and received, in hexadecimal digits; None without one.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        retriable: bool = False,
        request_sha256: str | None = None,
        response_sha256: str | None = None,
    ) -> None:
        super().__init__(reason, message)
        self.status = status
        self.retry_after = retry_after
        self.retriable = retriable
        self.request_sha256 = request_sha256
        self.response_sha256 = response_sha256


class QueryLogError(MetavError, ValueError):
    """A query log that cannot be used: no log, altered, of another run, or in use by another process."""


class MissingDependencyError(MetavError, ImportError):
    """An optional library that this call needs; the message says how to install it."""
