"""How one batch of queries reaches a suspect behind a service: sent once, answered or not, and nothing decided.

A transport knows a protocol and its limits (TLS, redirects, size and time of one answer). It never retries, waits,
counts or logs: that is for whoever calls it, who finds what is needed in `Reply` and `TransportError`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from metav.errors import TransportError
from metav.support.arrays import FloatArray
from metav.support.closing import Closing
from metav.suspects.base import Answers, AskedSuspect, Check

__all__ = ["Reply", "Transport", "TransportError", "TransportSuspect"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reply:
    """A service's answer to one batch.

    values: (n, ...), an array or nested lists of numbers, not checked yet (`as_responses` does it).
    status: of HTTP. request_sha256, response_sha256: of the bodies as sent and received, in hexadecimal digits.
    """

    values: Any
    status: int
    request_sha256: str
    response_sha256: str


class Transport(Closing, ABC):
    """A way to send one batch of queries: a subclass speaks one protocol. May be used by several threads at once.

    description: one line that names the suspect in a verdict. endpoint: the address that is asked.
    configuration: everything that determines a request but the queries, ready for JSON. None of them holds credentials.
    """

    description: str
    endpoint: str
    configuration: Mapping[str, Any]

    @abstractmethod
    def answer_batch(self, queries: FloatArray) -> Reply:
        """Send queries (n, ...) float32 once and return the reply; the queries are not changed.

        Raises TransportError where no answer came, or none that can be read.
        """

    @property
    def largest_batch(self) -> int | None:
        """Most queries that one request may hold; None for any number. May ask the service for its specification.

        Raises TransportError where it has to ask and gets no answer.
        """
        return None

    def close(self) -> None:
        """Release connections; nothing happens on a second call. A transport that is used again opens new ones."""


@final
class TransportSuspect(AskedSuspect):
    """The suspect behind a transport, asked without any policy: one attempt a batch, the first failure ends it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.description = transport.description

    def _answer(self, queries: FloatArray, batch_size: int, check: Check) -> Answers:
        with self.transport:
            largest = self.transport.largest_batch
            return super()._answer(queries, batch_size if largest is None else min(largest, batch_size), check)

    def _ask(self, batch: FloatArray) -> Any:
        return self.transport.answer_batch(batch).values


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a body in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
