"""Keys and passwords: they come from the environment or a netrc file, and no message, repr or file shows them."""

from __future__ import annotations

import base64
import ipaddress
import json
import netrc
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from metav.errors import InputError
from metav.support.text import harmless

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
PLACEHOLDERS = frozenset(f"{name}{form}" for name in ("QUERY", "QUERIES") for form in ("", "_PNG", "_NPY"))
"""Names after a $ that stand for the queries in a template, and for nothing in the environment."""
_SECRET_NAME = re.compile(r"auth|cookie|key|token|secret|password|credential|signature", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SHORTEST = 4
"""Shorter values are no secrets, and taking them out would leave holes in every message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The headers and the address of a request with what only the environment knows, and what must not be shown.

    url, headers, texts: as they are sent; texts by what they were. None stands in the repr.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    def hidden(self, text: object) -> str:
        """Return a text with every secret in it replaced, on one line and harmless to show."""
        shown = str(text)
        for secret in self._secrets:
            shown = shown.replace(secret, "***")
        return harmless(shown, limit=400)


def find_credentials(url: str, headers: Mapping[str, str], texts: Iterable[str] = ()) -> Credentials:
    """Return what is sent: $NAME and ${NAME} from the environment, else what the netrc file has for the host.

    url, headers, texts: with $NAME for everything that is secret.

    Raises InputError for a variable that is not set, a secret that is written out, and for credentials that would be
    sent without TLS to another machine.
    """
    secrets: list[str] = []
    for name, value in headers.items():
        _check_header(name, value)
    sent = {name: _expanded(value, secrets) for name, value in headers.items()}
    whole = _expanded(url, secrets)
    further = {text: _expanded(text, secrets) for text in texts}
    if not any(name.lower() == "authorization" for name in sent):
        sent |= _from_netrc(urlsplit(whole).hostname or "", secrets)
    if secrets and not is_protected(whole):
        raise InputError(
            f"{shown_address(url)} is asked without TLS, and credentials would be sent in the clear; use https://"
        )
    for value in sent.values():
        if not value.isprintable() or not value.isascii():
            raise InputError(
                "a header's value holds characters that HTTP does not allow; check the variable it is from"
            )
    longest_first = tuple(sorted(set(secrets), key=len, reverse=True))
    return Credentials(url=whole, headers=sent, texts=further, _secrets=longest_first)


def without_secrets(body: Any) -> Any:
    """Return a copy of a body to be stored, without what its name says is a key or password and is written out."""
    if isinstance(body, Mapping):
        return {
            name: "***" if _is_written_out(str(name), value) else without_secrets(value) for name, value in body.items()
        }
    return [without_secrets(value) for value in body] if isinstance(body, list) else body


def is_protected(url: str) -> bool:
    """Return whether nobody between here and an address can read along: TLS, or this machine itself."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def checked_address(url: str) -> str:
    """Return an address that can be asked; InputError on one that is none, or that holds a password."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or any(not character.isprintable() or character == " " for character in url):
        raise InputError(f"{shown_address(url)} is no address; expected https://host/path")
    if "@" in parts.netloc:
        raise InputError(
            f"{shown_address(url)} holds a user name or password; put it into the environment or a netrc file, and "
            "leave it out of the address"
        )
    return url


def shown_address(url: str) -> str:
    """Return an address fit to be shown and stored: without user, password and query."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    return harmless(re.sub(r"//[^/]*@", "//***@", bare), limit=300)


def _is_written_out(name: str, value: object) -> bool:
    return isinstance(value, str) and bool(_SECRET_NAME.search(name)) and not _VARIABLE.search(value)


def _check_header(name: str, value: object) -> None:
    if not _HEADER_NAME.fullmatch(name) or not isinstance(value, str):
        raise InputError(f"{harmless(repr(name), limit=80)} is no header with a text; expected {{name: text}}")
    if _is_written_out(name, value):
        raise InputError(
            f"the header {name} is written out; put its value into an environment variable and write $NAME instead "
            '(such as {"Authorization": "Bearer $API_TOKEN"})'
        )


def _expanded(text: str, secrets: list[str]) -> str:
    def value_of(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name in PLACEHOLDERS:
            return found.group()
        value = os.environ.get(name, "").strip()
        if not value:
            raise InputError(f"the environment variable {name} is not set; the suspect's configuration asks for it")
        if len(value) >= _SHORTEST:
            # as services echo it: plain, within an address, within JSON
            secrets.extend([value, quote(value, safe=""), json.dumps(value)[1:-1]])
        return value

    return _VARIABLE.sub(value_of, text)


def _from_netrc(host: str, secrets: list[str]) -> dict[str, str]:
    """Return the Authorization header for a host's entry in the netrc file, if both are there."""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not path.is_file():
        return {}
    try:
        # no default entry: it would hand one host's password to every other
        entry = netrc.netrc(path).hosts.get(host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        line = f" in line {error.lineno}" if isinstance(error, netrc.NetrcParseError) else ""
        raise InputError(f"the netrc file cannot be read{line}; mend it, or set NETRC to another file") from None
    if entry is None:
        return {}
    user, _, password = entry
    value = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    secrets += [value, password or ""] if len(password or "") >= _SHORTEST else [value]
    return {"Authorization": f"Basic {value}"}
