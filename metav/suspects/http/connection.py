"""One request to a service within limits: TLS, no other host, one deadline for all of it, a largest answer."""

from __future__ import annotations

import asyncio
import email.utils
import math
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from metav.errors import TransportError
from metav.support.arguments import seconds
from metav.support.dependencies import require
from metav.support.text import byte_size
from metav.support.versions import version_of
from metav.suspects.http.credentials import checked_address, find_credentials, shown_address
from metav.suspects.http.event_loop import EventLoop
from metav.suspects.transports import sha256

DEFAULT_TIMEOUT = 60.0
"""Seconds for one request, from the connection to the last byte of its answer."""
LARGEST_ANSWER = 16 * 2**20
"""Bytes of one answer."""
MOST_REDIRECTS = 3
_RETRIABLE = (408, 425, 429)
_KEPT_METHOD = (307, 308)
_EXCERPT = 160
_LONGEST_WAIT = 366 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An answer with a status of success.

    content: as it came. headers: with names in lower case. request_sha256: of the body that was sent.
    """

    content: bytes
    status: int
    headers: Mapping[str, str]
    request_sha256: str

    def fault(self, message: str) -> TransportError:
        """Return the error for an answer that came and cannot be read."""
        return TransportError(
            "unreadable",
            message,
            status=self.status,
            request_sha256=self.request_sha256,
            response_sha256=sha256(self.content),
        )


class Connection:
    """Sends single requests; nothing is sent twice. May be used by several threads at once.

    url: with $NAME for what the environment holds.
    headers: the same.
    texts: further texts with $NAME, such as those of a body; `expanded` returns them.
    timeout: seconds for one request, all of it.

    Raises InputError on an address or headers that cannot be used, MissingDependencyError without the extra "http".
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        texts: Iterable[str] = (),
        timeout: float | None = None,
    ) -> None:
        require("a suspect behind an address", "httpx2", extra="http")
        self.timeout = DEFAULT_TIMEOUT if timeout is None else seconds("timeout", timeout)
        self.address = shown_address(checked_address(url))
        self._credentials = find_credentials(url, headers or {}, texts)
        checked_address(self._credentials.url)
        self._lock = threading.Lock()
        self._open: tuple[EventLoop, Any] | None = None

    def __repr__(self) -> str:
        return f"Connection({self.address!r})"

    @property
    def url(self) -> str:
        """The address with its secrets: to derive others from, never to show."""
        return self._credentials.url

    def expanded(self, text: str) -> str:
        """Return one of `texts` with its secrets: to send, never to show."""
        return self._credentials.texts[text]

    def hidden(self, text: object) -> str:
        """Return a text from the service without secrets, on one line and harmless to show."""
        return self._credentials.hidden(text)

    def excerpt(self, content: bytes) -> str:
        """Return how an answer begins, without secrets: those are taken out first, or one that is cut would be left."""
        return self.hidden(content.decode("utf-8", "replace"))[:_EXCERPT]

    def send(
        self, method: str, content: bytes = b"", *, headers: Mapping[str, str] | None = None, url: str | None = None
    ) -> Received:
        """Send one request and return the answer.

        url: another address of the same service; None for its own.

        Raises TransportError where none came within the limits, or one without success.
        """
        digest = sha256(content)
        deadline = time.monotonic() + self.timeout
        target = url or self.url
        for _ in range(MOST_REDIRECTS + 1):
            received = self._sent(method, target, content, headers or {}, digest, deadline)
            if not 300 <= received.status < 400:
                break
            target = self._redirected(received, target)
        else:
            raise _fault("redirected", f"{self.address} redirects in a circle", received)
        if not 200 <= received.status < 300:
            raise self._refused(received)
        return received

    def close(self) -> None:
        """Close what is open; the next request opens it again."""
        with self._lock:
            opened, self._open = self._open, None
        if opened is not None:
            loop, client = opened
            loop.finish(client.aclose())

    def _opened(self) -> tuple[EventLoop, Any]:
        """Return a running event loop, and a client in it."""
        import httpx2

        with self._lock:
            if self._open is None:
                # without TLS no certificate is looked at, and loading those of all authorities takes its time
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if urlsplit(self.url).scheme == "http" else True
                client = httpx2.AsyncClient(timeout=None, follow_redirects=False, verify=context)
                self._open = EventLoop(), client
            return self._open

    def _sent(
        self, method: str, url: str, content: bytes, headers: Mapping[str, str], digest: str, deadline: float
    ) -> Received:
        import httpx2

        loop, client = self._opened()
        try:
            return loop.run(self._exchange(client, method, url, content, headers, digest, deadline))
        except TimeoutError:
            raise TransportError(
                "timeout",
                f"{self.address} took more than {self.timeout:g} seconds for one request; give it more time "
                "(timeout), or ask less at once (batch_size)",
                retriable=True,
                request_sha256=digest,
            ) from None
        except httpx2.HTTPError as error:
            raise self._unreachable(error, digest) from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise TransportError("unreachable", f"{self.address} is no address: {self.hidden(error)}") from None

    async def _exchange(
        self,
        client: Any,
        method: str,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        digest: str,
        deadline: float,
    ) -> Received:
        async with asyncio.timeout(deadline - time.monotonic()):
            sent = {
                "user-agent": f"metav/{version_of()}",
                "accept-encoding": "identity",  # what is never unpacked cannot be a bomb
                "accept": "application/json",
                **({"content-type": "application/json"} if content else {}),
                **{name.lower(): value for name, value in {**self._credentials.headers, **headers}.items()},
            }
            async with client.stream(method, url, headers=sent, content=content or None) as response:
                received = {name.lower(): value for name, value in response.headers.items()}
                return Received(
                    content=await self._content(response, received, digest),
                    status=response.status_code,
                    headers=received,
                    request_sha256=digest,
                )

    async def _content(self, response: Any, headers: Mapping[str, str], digest: str) -> bytes:
        status = response.status_code
        if headers.get("content-encoding", "identity").lower() != "identity":
            message = f"{self.address} sent a compressed answer, which was not asked for; it is not unpacked"
            raise TransportError("unreadable", message, status=status, request_sha256=digest)
        pieces, size = [], 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > LARGEST_ANSWER:
                message = (
                    f"{self.address} sends more than {byte_size(LARGEST_ANSWER)} at once; ask less at once (batch_size)"
                )
                raise TransportError("too_large", message, status=status, request_sha256=digest)
            pieces.append(piece)
        return b"".join(pieces)

    def _redirected(self, received: Received, url: str) -> str:
        """Return where a redirect leads: on the same server, with the same method; TransportError else."""
        location = received.headers.get("location", "")
        try:
            target = urljoin(url, location)
            same = _origin(target) == _origin(url)
        except ValueError:
            target, same = location, False
        if same and received.status in _KEPT_METHOD:
            return target
        message = (
            f"{self.address} redirects (status {received.status}) to {self.hidden(shown_address(target))}; queries "
            "are sent to no other address than the one that was given: give that one if it is right"
        )
        raise _fault("redirected", message, received)

    def _refused(self, received: Received) -> TransportError:
        status = received.status
        text = self.excerpt(received.content)
        hints = {
            401: "; it wants credentials: name an environment variable in a header, or add the host to a netrc file",
            403: "; it wants other credentials",
            404: "; check the address",
            413: "; ask less at once (batch_size)",
            429: "; it limits how often it is asked",
        }
        message = f"{self.address} answered with status {status}{hints.get(status, '')}"
        return TransportError(
            "refused",
            f"{message}: {text}" if text else message,
            status=status,
            retry_after=retry_after(received.headers.get("retry-after")),
            retriable=status in _RETRIABLE or status >= 500,
            request_sha256=received.request_sha256,
            response_sha256=sha256(received.content),
        )

    def _unreachable(self, error: Exception, digest: str) -> TransportError:
        text = self.hidden(error) or type(error).__name__
        if _is_about_tls(error):
            message = f"{self.address} could not prove who it is ({text}); its certificate or TLS is not accepted"
            return TransportError("tls", message, request_sha256=digest)
        message = f"{self.address} cannot be reached, or broke off ({text}); check the address and the network"
        return TransportError("unreachable", message, retriable=True, request_sha256=digest)


def _is_about_tls(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is one of TLS and no connection that just ended."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where it names none that can be kept."""
    if value is None:
        return None
    try:
        wait = float(value) if value.strip().isdecimal() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(wait, 0.0) if math.isfinite(wait) and wait <= _LONGEST_WAIT else None


def _until(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _fault(reason: str, message: str, received: Received) -> TransportError:
    return TransportError(
        reason,
        message,
        status=received.status,
        request_sha256=received.request_sha256,
        response_sha256=sha256(received.content),
    )
