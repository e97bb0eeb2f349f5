"""One request within limits: what hostile and broken services do to it, on loopback."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate

import pytest

from metav.errors import InputError, TransportError
from metav.suspects.http import connection as connections

pytest.importorskip("httpx2", reason='needs the extra "http"')

from small_services import response, speaking

from metav.suspects.http.connection import Connection, retry_after


def fails(url, *, timeout=20.0, content=b"{}", **options):
    """The error of one request."""
    connection = Connection(url, timeout=timeout, **options)
    try:
        with pytest.raises(TransportError) as raised:
            connection.send("POST", content)
    finally:
        connection.close()
    error = raised.value
    assert all(character.isprintable() for character in str(error))
    assert len(str(error)) < 1000
    assert error.request_sha256 == connections.sha256(content)
    return error


@contextmanager
def answering(*pieces, pause=0.0):
    """A service that writes these pieces, whatever it is asked, each after a pause."""

    def handle(connection):
        for piece in pieces:
            time.sleep(pause)
            connection.sendall(piece)

    with speaking(handle) as address:
        yield address


def test_an_answer_comes_with_its_status_headers_and_digests():
    with answering(response(b"[1]", X_Kind="a")) as url:
        connection = Connection(url)
        received = connection.send("POST", b"[0]")
        connection.close()
    assert (received.content, received.status, received.headers["x-kind"]) == (b"[1]", 200, "a")
    assert received.request_sha256 == connections.sha256(b"[0]")


def test_a_connection_is_used_again_after_it_was_closed():
    with answering(response(b"[1]")) as url:
        connection = Connection(url)
        for _ in range(2):
            assert connection.send("POST", b"{}").content == b"[1]"
            connection.close()
            connection.close()


def test_several_threads_may_ask_at_once():
    def handle(connection):
        time.sleep(0.05)
        connection.sendall(response(b"[1]"))

    answers = []
    with speaking(handle) as url:
        connection = Connection(url)
        threads = [
            threading.Thread(target=lambda: answers.append(connection.send("POST", b"{}").content)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        connection.close()
    assert answers == [b"[1]"] * 8


# Statuses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retriable"),
    [
        *[(status, False) for status in (400, 401, 403, 404, 413, 422)],
        *[(status, True) for status in (408, 425, 429, 500, 502, 503, 504)],
    ],
)
def test_a_status_without_success_is_told_and_whether_to_ask_again(status, retriable):
    with answering(response(b"no <b>way</b>\x1b[2J", status=f"{status} Nope", Retry_After="7")) as url:
        error = fails(url)
    assert (error.reason, error.status, error.retriable, error.retry_after) == ("refused", status, retriable, 7.0)
    assert f"answered with status {status}" in str(error)
    assert str(error).endswith(r"no <b>way</b>\x1b[2J")
    assert error.response_sha256 is not None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("120", 120), (None, None), ("soon", None), ("-5", None), ("1e3", None), ("9" * 400, None), ("", None)],
)
def test_the_wait_that_a_service_asks_for_is_read_or_left(value, seconds):
    assert retry_after(value) == seconds


def test_the_wait_may_be_a_date():
    assert retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=3)
    assert retry_after(formatdate(time.time() - 100, usegmt=True)) == 0
    assert retry_after("Wed, 21 Oct 9999 07:28:00 GMT") is None


# No answer -----------------------------------------------------------------------------------------------------------


def test_a_closed_port_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    error = fails(url)
    assert (error.reason, error.retriable, error.status) == ("unreachable", True, None)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[1"], id="half an answer"),
        pytest.param([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"], id="a broken chunk"),
        pytest.param([b"SSH-2.0-server\r\n"], id="another protocol"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000], id="endless headers"),
        pytest.param([b"\x00" * 1000], id="binary"),
    ],
)
def test_broken_answers_are_unreachable_and_may_be_asked_again(pieces):
    with answering(*pieces) as url:
        error = fails(url)
    assert (error.reason, error.retriable) == ("unreachable", True)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"H", b"T", b"T", b"P"] * 20, id="the status line"),
        pytest.param([b"HTTP/1.1 200 OK\r\n", *[b"x-a: b\r\n"] * 40], id="the headers"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", *[b" "] * 40], id="the body"),
    ],
)
def test_an_answer_that_drips_ends_with_the_deadline(pieces):
    """Each read succeeds in time; only a limit of the whole request ends it."""
    with answering(*pieces, pause=0.1) as url:
        before = time.monotonic()
        error = fails(url, timeout=0.5)
        assert time.monotonic() - before < 3  # the pieces take four seconds or more
    assert (error.reason, error.retriable) == ("timeout", True)
    assert "more than 0.5 seconds for one request" in str(error)


def test_a_body_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "LARGEST_ANSWER", 10_000)
    sent = 0

    def handle(connection):
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 2**30:
            connection.sendall(b"x" * 4096)
            sent += 4096

    with speaking(handle) as url:
        error = fails(url)
    assert (error.reason, error.retriable) == ("too_large", False)
    assert "sends more than 9.8 KiB" in str(error)
    assert sent < 2**27


def test_compressed_answers_are_not_unpacked():
    bomb = gzip.compress(bytes(10**7))
    assert len(bomb) < 20_000
    with answering(response(bomb, Content_Encoding="gzip")) as url:
        error = fails(url)
    assert error.reason == "unreadable"
    assert "compressed answer, which was not asked for" in str(error)


# Elsewhere -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:1/", "//example.org/x", "https://127.0.0.1/", "http://[", "file:///etc"]
)
def test_redirects_to_another_place_are_refused(status, location):
    with answering(response(b"", status=f"{status} Moved", Location=location)) as url:
        error = fails(url)
    assert (error.reason, error.status, error.retriable) == ("redirected", status, False)
    assert "to no other address than the one that was given" in str(error)


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirects_that_change_the_method_are_refused(status):
    with answering(response(b"", status=f"{status} Moved", Location="/elsewhere")) as url:
        assert fails(url).reason == "redirected"


def test_redirects_on_the_same_server_are_followed_and_circles_are_left():
    count = 0

    def handle(connection):
        nonlocal count
        count += 1
        status = "200 OK" if count == 3 else "307 Moved"
        connection.sendall(response(b"[1]", status=status, Location="/again"))

    with speaking(handle) as url:
        connection = Connection(url)
        assert connection.send("POST", b"{}").content == b"[1]"
        connection.close()
        error = fails(url)
    assert "redirects in a circle" in str(error)
    assert count == 3 + 4


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/x",
        "http://",
        "https:///x",
        "host/x",
        "http://host:0x/",
        "http://host:99999/",
        "http://a b/",
        "http://host/\x1b[2J",
        "http://host/\u202e",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match="is no address; expected https://host/path") as raised:
        Connection(url)
    assert str(raised.value).isprintable()


# TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl, which makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True
    )
    return folder


@contextmanager
def answering_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:  # it was closed
                return
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                received = connection.recv(65536)
                while received and not received.endswith(b"{}"):  # closed with bytes unread, the answer may be lost
                    received += connection.recv(65536) or b"{}"
                connection.sendall(response(b"[1]"))

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_service_must_prove_who_it_is(certificate, monkeypatch):
    with answering_tls(certificate) as url:
        error = fails(url)
        assert (error.reason, error.retriable) == ("tls", False)
        assert "could not prove who it is" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        connection = Connection(url)
        assert connection.send("POST", b"{}").content == b"[1]"
        connection.close()


def test_a_service_that_speaks_no_tls_is_no_reason_to_do_without():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(response(b"[1]"))

        thread = threading.Thread(target=answer)
        thread.start()
        error = fails(f"https://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(20)
    assert (error.reason, error.retriable) == ("tls", False)


def test_a_name_that_the_certificate_does_not_hold_is_refused(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    with answering_tls(certificate) as url:
        assert fails(url.replace("127.0.0.1", "localhost")).reason == "tls"


# Within a running event loop -----------------------------------------------------------------------------------------


def test_a_notebooks_event_loop_is_no_hindrance():
    import asyncio

    async def cell():
        with answering(response(json.dumps([1]).encode())) as url:
            connection = Connection(url)
            content = connection.send("POST", b"{}").content
            connection.close()
        return content

    assert asyncio.run(cell()) == b"[1]"


def test_a_program_that_closes_nothing_ends():
    code = """
import sys
from metav.suspects.http.connection import Connection
print(Connection(sys.argv[1]).send("POST", b"{}").content)
"""
    with answering(response(b"[1]")) as url:
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "b'[1]'\n"), done.stderr
