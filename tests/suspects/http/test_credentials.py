"""Keys and passwords: from the environment or a netrc file, sent to their service alone, shown nowhere."""

from __future__ import annotations

import base64
import json
import os
import traceback
from urllib.parse import quote

import numpy as np
import pytest

from metav.errors import InputError, TransportError
from metav.suspects.http.credentials import find_credentials

pytest.importorskip("httpx2", reason='needs the extra "http"')
pytest.importorskip("fastapi", reason="needs fastapi and uvicorn for services on loopback")

from small_services import json_app, response, serving, speaking

from metav.suspects import open_suspect
from metav.suspects.http.connection import Connection

SECRET = "s3cr3t-t0ken"


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SMALL_TOKEN", SECRET)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def test_a_secret_stands_in_no_message_repr_or_configuration():
    def echo(connection):
        connection.sendall(response(f"you sent {SECRET}".encode(), status=f"400 {SECRET}"))

    with speaking(echo) as url:
        suspect = open_suspect(f"{url}/invocations?key=$SMALL_TOKEN", headers={"X-Api-Key": "$SMALL_TOKEN"})
        transport = suspect.transport
        with transport, pytest.raises(TransportError) as raised:
            transport.answer_batch(np.zeros((1, 2), np.float32))
    shown = "".join(traceback.format_exception(raised.value))
    shown += repr(transport) + repr(transport.__dict__) + repr(transport._connection._credentials)
    shown += suspect.description + transport.endpoint + json.dumps(dict(transport.configuration))
    assert "you sent ***" in str(raised.value)
    assert SECRET not in shown


def test_a_redirect_to_elsewhere_does_not_show_it_either():
    def away(connection):
        connection.sendall(response(b"", status="302 Found", Location=f"https://example.org/{SECRET}?a={SECRET}"))

    with speaking(away) as url:
        connection = Connection(url, headers={"Authorization": "Bearer $SMALL_TOKEN"})
        with pytest.raises(TransportError, match=r"to https://example.org/\*\*\*;"):
            connection.send("POST", b"{}")
        connection.close()


@pytest.mark.parametrize(
    "name", ["Authorization", "authorization", "X-API-Key", "Cookie", "Ocp-Apim-Subscription-Key", "X-Auth-Token"]
)
def test_a_secret_that_is_written_out_is_refused(name):
    with pytest.raises(InputError, match=r"is written out; put its value into an environment variable") as raised:
        find_credentials("https://host/", {name: SECRET})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", ["http://example.org/", "http://10.0.0.1/", "http://127.0.0.1.example.org/"])
def test_credentials_are_not_sent_in_the_clear_to_another_machine(url, tmp_path):
    with pytest.raises(InputError, match="credentials would be sent in the clear; use https://"):
        find_credentials(url, {"Authorization": "Bearer $SMALL_TOKEN"})
    (tmp_path / "netrc").write_text(f"machine {url[7:-1]} login me password {SECRET}\n")
    with pytest.raises(InputError, match="credentials would be sent in the clear"):
        find_credentials(url, {})


@pytest.mark.parametrize("url", ["https://example.org/", "http://127.0.0.1:80/", "http://localhost/", "http://[::1]/"])
def test_credentials_are_sent_over_tls_or_within_this_machine(url):
    found = find_credentials(url, {"Authorization": "Bearer $SMALL_TOKEN"})
    assert found.headers == {"Authorization": f"Bearer {SECRET}"}


def test_a_netrc_entry_is_sent_to_its_host_alone(tmp_path):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\ndefault login any password other\n")
    found = find_credentials("http://127.0.0.1:80/", {})
    assert found.headers == {"Authorization": "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()}
    assert found.hidden(f"{SECRET} {found.headers['Authorization']}") == "*** Basic ***"
    assert find_credentials("https://example.org/", {}).headers == {}
    stated = find_credentials("http://127.0.0.1/", {"authorization": "Bearer $SMALL_TOKEN"})
    assert stated.headers == {"authorization": f"Bearer {SECRET}"}


def test_a_broken_netrc_file_is_told_without_its_content(tmp_path):
    (tmp_path / "netrc").write_text(f"machine h login me\n{SECRET} {SECRET}\n")
    with pytest.raises(InputError, match="the netrc file cannot be read in line 2") as raised:
        find_credentials("https://h/", {})
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_what_is_sent_is_what_the_environment_holds():
    seen = []
    with serving(json_app(lambda body, headers: seen.append(dict(headers)) or [1])) as url:
        connection = Connection(f"{url}/ask", headers={"x-key": "${SMALL_TOKEN}!", "x-kind": "plain"})
        connection.send("POST", b"{}")
        connection.close()
    assert (seen[0]["x-key"], seen[0]["x-kind"]) == (f"{SECRET}!", "plain")
    assert seen[0]["user-agent"].startswith("metav/")


def test_a_variable_that_breaks_headers_is_refused(monkeypatch):
    monkeypatch.setenv("SMALL_TOKEN", "abcdef\r\nx: y")
    with pytest.raises(InputError, match="holds characters that HTTP does not allow"):
        find_credentials("https://h/", {"Authorization": "$SMALL_TOKEN"})


def test_an_address_from_the_environment_is_checked_like_any(monkeypatch):
    monkeypatch.setenv("SMALL_TOKEN", "x@evil.org/")
    with pytest.raises(InputError, match="holds a user name or password"):
        Connection("https://$SMALL_TOKEN")


def test_a_secret_is_taken_out_in_whatever_form_it_is_echoed(monkeypatch):
    secret = 'a/b+"c" d=%\u00e9'
    monkeypatch.setenv("SMALL_TOKEN", secret)
    found = find_credentials("https://h/", {}, ["$SMALL_TOKEN"])
    for echoed in (secret, quote(secret, safe=""), json.dumps({"a": secret}), json.dumps(secret)):
        assert "***" in found.hidden(f"you sent {echoed}")
        assert "b" not in found.hidden(f"you sent {echoed}")


def test_no_part_of_a_secret_stands_at_the_end_of_an_excerpt(monkeypatch):
    monkeypatch.setenv("SMALL_TOKEN", "xyz" * 70)
    body = (os.environ["SMALL_TOKEN"] * 100).encode()
    with speaking(lambda connection: connection.sendall(response(body, status="400 No"))) as url:
        connection = Connection(url, headers={"x-key": "$SMALL_TOKEN"})
        with pytest.raises(TransportError) as raised:
            connection.send("POST", b"{}")
        connection.close()
    assert "xyz" not in str(raised.value)


def test_a_key_that_is_written_out_in_a_body_is_not_stored(tmp_path):
    body = {"q": "$QUERIES", "deep": [{"api_key": "abc123", "token": "$SMALL_TOKEN", "max_tokens": 5}]}
    (tmp_path / "s.yaml").write_text(json.dumps({"url": "https://host/x", "body": body, "answer": "$"}))
    transport = open_suspect(tmp_path / "s.yaml").transport
    expected = {"q": "$QUERIES", "deep": [{"api_key": "***", "token": "$SMALL_TOKEN", "max_tokens": 5}]}
    assert transport.configuration["body"] == expected
