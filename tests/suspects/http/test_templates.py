"""Templates: any service that takes JSON, described in a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from page_code import ROOT, blocks_of
from small_fingerprints import numbers

from metav.errors import InputError, SuspectError, TransportError
from metav.suspects import open_suspect

pytest.importorskip("httpx2", reason='needs the extra "http"')
pytest.importorskip("fastapi", reason="needs fastapi and uvicorn for services on loopback")

from small_services import from_npy, from_png, json_app, response, serving, speaking

NAMES = ["cat", "dog", "emu"]
QUERIES = np.random.default_rng(0).integers(0, 256, (5, 1, 2, 3)).astype(np.float32) / 255
WEIGHTS = numbers(6, 3, seed=1)


def linear(queries):
    return np.asarray(queries, np.float32).reshape(-1, 6) @ WEIGHTS


ANSWERS = linear(QUERIES)


def write(path, address, **fields):
    """A template in YAML: JSON is YAML."""
    template = {"url": f"{address}/ask", "body": {"q": "$QUERIES"}, "answer": "$.scores", **fields}
    path.write_text(json.dumps({name: value for name, value in template.items() if value is not None}))
    return path


def ask(path, *, queries=QUERIES, outputs=3, labels=False, **options):
    return open_suspect(path, **options).answer(queries, outputs=outputs, labels=labels).responses


def by_score(row):
    return [{"label": NAMES[place], "score": float(row[place])} for place in np.argsort(-row)]


@pytest.mark.parametrize(
    ("body", "read"),
    [
        pytest.param({"q": "$QUERIES"}, lambda body: body["q"], id="lists"),
        pytest.param({"deep": [{"q": "$QUERIES"}, 3]}, lambda body: body["deep"][0]["q"], id="lists, deep"),
        pytest.param("$QUERIES", lambda body: body, id="lists, bare"),
        pytest.param({"q": "$QUERIES_NPY"}, lambda body: from_npy(body["q"]), id="npy"),
        pytest.param({"q": "$QUERIES_PNG"}, lambda body: [from_png(q) / 255 for q in body["q"]], id="png"),
        pytest.param({"q": "$QUERY"}, lambda body: body["q"], id="one list"),
        pytest.param({"q": "$QUERY_NPY"}, lambda body: from_npy(body["q"]), id="one npy"),
        pytest.param({"q": "$QUERY_PNG"}, lambda body: from_png(body["q"]) / 255, id="one png"),
        pytest.param(
            {"q": "data:image/png;base64,$QUERY_PNG"}, lambda body: from_png(body["q"][22:]) / 255, id="png in a text"
        ),
    ],
)
def test_queries_arrive_in_every_form(tmp_path, body, read):
    with serving(json_app(lambda body, _: {"scores": linear(read(body)).tolist()})) as url:
        assert ask(write(tmp_path / "s.yaml", url, body=body)) == pytest.approx(ANSWERS, abs=1e-6)


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize(
    ("reply", "fields"),
    [
        pytest.param(lambda rows: {"scores": rows.tolist()}, {}, id="one match for all"),
        pytest.param(
            lambda rows: {"p": [{"s": row.tolist()} for row in rows]}, {"answer": "$.p[*].s"}, id="one for each"
        ),
        pytest.param(
            lambda rows: [dict(zip(NAMES, map(float, row), strict=True)) for row in rows],
            {"answer": "$[*]", "labels": NAMES},
            id="scores by name",
        ),
        pytest.param(
            lambda rows: [by_score(row) for row in rows], {"answer": "$[*]", "labels": NAMES}, id="best first"
        ),
        pytest.param(
            lambda rows: {"r": [[{"n": e["label"], "p": e["score"]} for e in by_score(row)] for row in rows]},
            {"answer": "$.r", "labels": NAMES, "label_key": "n", "score_key": "p"},
            id="own keys",
        ),
    ],
)
def test_answers_are_found_in_every_form(tmp_path, one, reply, fields):
    body = {"q": "$QUERY" if one else "$QUERIES"}
    with serving(json_app(lambda body, _: reply(linear(body["q"])))) as url:
        path = write(tmp_path / "s.yaml", url, body=body, **fields)
        assert ask(path) == pytest.approx(ANSWERS, abs=1e-6)
        assert ask(path, queries=QUERIES[:1]) == pytest.approx(ANSWERS[:1], abs=1e-6)


def test_a_bare_row_answers_a_single_query(tmp_path):
    with serving(json_app(lambda body, _: {"scores": linear(body["q"])[0].tolist()})) as url:
        for body in ({"q": "$QUERY"}, {"q": "$QUERIES"}):
            path = write(tmp_path / "s.yaml", url, body=body, batch_size=1)
            assert ask(path) == pytest.approx(ANSWERS, abs=1e-6)
        path = write(tmp_path / "s.yaml", url, body={"q": "$QUERY"}, answer="$.scores[*]")
        assert ask(path) == pytest.approx(ANSWERS, abs=1e-6)


def test_the_best_classes_alone_leave_zeros(tmp_path):
    with serving(json_app(lambda body, _: [by_score(row)[:2] for row in linear(body["q"])])) as url:
        answers = ask(write(tmp_path / "s.yaml", url, answer="$", labels=NAMES))
    least = ANSWERS.argmin(axis=1)
    assert (answers[np.arange(5), least] == 0).all()
    assert (
        np.delete(answers.ravel(), np.arange(5) * 3 + least) == np.delete(ANSWERS.ravel(), np.arange(5) * 3 + least)
    ).all()


def test_names_of_classes_alone_are_class_numbers(tmp_path):
    with serving(json_app(lambda body, _: {"top": [NAMES[n] for n in linear(body["q"]).argmax(axis=1)]})) as url:
        answers = ask(write(tmp_path / "s.yaml", url, answer="$.top", labels=NAMES), labels=True)
    assert np.array_equal(answers, np.eye(3)[ANSWERS.argmax(axis=1)])


def test_toml_says_the_same(tmp_path):
    with serving(json_app(lambda body, _: {"scores": linear(body["q"]).tolist()})) as url:
        text = f'url = "{url}/ask"\nanswer = "$.scores"\nbatch_size = 2\n[body]\nq = "$QUERIES"\n'
        (tmp_path / "s.toml").write_text(text)
        assert ask(tmp_path / "s.toml") == pytest.approx(ANSWERS, abs=1e-6)


def test_images_go_out_with_three_channels_and_with_channels_last(tmp_path):
    queries = np.random.default_rng(1).integers(0, 256, (4, 3, 5, 2)).astype(np.float32) / 255
    seen = []

    def keep(body, _):
        seen.append(np.asarray(body["q"]) if isinstance(body["q"][0], list) else from_png(body["q"][0]) / 255)
        return {"scores": [[0.0, 1.0]]}

    with serving(json_app(keep)) as url:
        for fields in ({"body": {"q": "$QUERIES_PNG"}}, {"layout": "NHWC"}):
            ask(write(tmp_path / "s.yaml", url, batch_size=1, **fields), queries=queries, outputs=2)
    expected = np.moveaxis(queries, 1, -1)
    assert seen[0] == pytest.approx(expected[0], abs=1e-6)
    assert seen[8][0] == pytest.approx(expected[0], abs=1e-6)


def test_bounds_say_what_is_black_and_white(tmp_path):
    with serving(json_app(lambda body, _: {"scores": [[float(from_png(q).max())] for q in body["q"]]})) as url:
        path = write(tmp_path / "s.yaml", url, body={"q": "$QUERIES_PNG"}, bounds=[-1, 3])
        queries = np.array([-1, 0, 1, 3], np.float32).reshape(4, 1, 1, 1)
        assert ask(path, queries=queries, outputs=1).ravel().tolist() == [0, 64, 128, 255]
        with pytest.raises(SuspectError, match="leave the template's bounds -1 to 3"):
            ask(path, queries=queries + 1, outputs=1)
        with pytest.raises(SuspectError, match="is no picture of 1 or 3 channels"):
            ask(path, queries=numbers(4, 2, 1, 1), outputs=1)


def test_what_is_secret_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALL_TOKEN", "tok-123456")
    monkeypatch.setenv("SMALL_MODEL", "m7")
    seen = []

    def reply(body, headers):
        seen.append((headers["authorization"], body["model"], body["note"]))
        return {"scores": linear(body["q"]).tolist()}

    body = {"q": "$QUERIES", "model": "${SMALL_MODEL}", "note": "costs 5$ or $ 5"}
    with serving(json_app(reply)) as url:
        path = write(tmp_path / "s.yaml", url, body=body, headers={"Authorization": "Bearer $SMALL_TOKEN"})
        ask(path)
    assert seen[0] == ("Bearer tok-123456", "m7", "costs 5$ or $ 5")
    monkeypatch.delenv("SMALL_TOKEN")
    with pytest.raises(InputError, match="the environment variable SMALL_TOKEN is not set"):
        open_suspect(path)


@pytest.mark.parametrize(
    ("reply", "fields", "message"),
    [
        ({}, {}, "nothing stands where the template's answer points"),
        ({"scores": [{"cat": 1.0}] * 5}, {}, r"it names classes; say which in the template \(labels"),
        ({"scores": ["cat"] * 5}, {}, "it names classes"),
        ({"scores": [{"cow\x1b[2J": 1.0}] * 5}, {"labels": NAMES}, "is none of the template's labels"),
        ({"scores": [[{"label": "cat"}]] * 5}, {"labels": NAMES}, "has no 'label' or no 'score'"),
        ({"scores": [[{"label": "cat", "score": 1}] * 2] * 5}, {"labels": NAMES}, "not the name of another class"),
        ({"scores": [[{"label": 3, "score": 1}]] * 5}, {"labels": NAMES}, "not the name of another class"),
    ],
)
def test_answers_that_the_template_does_not_describe_are_unreadable(tmp_path, reply, fields, message):
    body = json.dumps(reply).encode()
    with (
        speaking(lambda connection: connection.sendall(response(body))) as url,
        pytest.raises(TransportError, match=message) as raised,
    ):
        ask(write(tmp_path / "s.yaml", url, **fields))
    assert (raised.value.reason, raised.value.status) == ("unreadable", 200)
    assert str(raised.value).isprintable()


def test_answers_too_deep_for_any_search_are_unreadable(tmp_path):
    body = b"[" * 900 + b"]" * 900
    with (
        speaking(lambda connection: connection.sendall(response(body))) as url,
        pytest.raises(SuspectError) as raised,
    ):
        ask(write(tmp_path / "s.yaml", url, answer="$..scores"))
    assert raised.value.reason == "unreadable"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": None}, "has no field 'url'; expected at least url, body and answer"),
        ({"answer": None}, "has no field 'answer'"),
        ({"anwser": "$"}, r"unknown field 'anwser'; did you mean 'answer'\?"),
        ({"x": 1}, "unknown field 'x'; expected some of url, body"),
        ({"url": "file:///etc/passwd"}, "is no address"),
        ({"url": "https://user:password@host/x"}, "holds a user name or password"),
        ({"url": 3}, "url must be a text"),
        ({"method": "DELETE"}, "method must be one of POST, PUT, PATCH"),
        ({"body": {"q": 1}}, r"must hold \$QUERIES \(a batch\) or \$QUERY .*; it has none"),
        ({"body": ["$QUERY", "$QUERIES"]}, "it has both"),
        ({"body": {"q": "x $QUERIES"}}, r"\$QUERIES stands for a list"),
        ({"body": {"q": "$QUERIES_PNG."}}, r"\$QUERIES_PNG stands for a list"),
        ({"labels": ["a", "a"]}, "labels must be a list of texts, each of them once"),
        ({"labels": []}, "labels must be a list of texts"),
        ({"labels": "abc"}, "labels must be a list of texts"),
        ({"bounds": [1, 0]}, "bounds must be two numbers, the lower one first"),
        ({"bounds": 3}, "bounds must be two numbers"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0"),
        ({"layout": "WHCN"}, 'layout must be "NCHW"'),
        ({"headers": ["a"]}, "headers must be texts by name"),
        ({"headers": {"x": 1}}, "headers must be texts by name"),
        ({"headers": {"a b": "c"}}, "is no header with a text"),
        ({"headers": {"x": "a\r\nb: c"}}, "holds characters that HTTP does not allow"),
        ({"answer": "$[?("}, "is no JSONPath"),
        ({"answer": "scores["}, "is no JSONPath"),
    ],
)
def test_templates_with_a_fault_are_refused_with_what_was_expected(tmp_path, fields, message):
    with pytest.raises(InputError, match=message) as raised:
        open_suspect(write(tmp_path / "s.yaml", "https://host", **fields))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.yaml", b"", "holds no fields"),
        ("s.yaml", b"- a\n- b", "holds no fields"),
        ("s.yaml", b"url: [", "cannot be read"),
        ("s.yaml", b"\xff\xfe\x00", "cannot be read"),
        ("s.yaml", b"url: !!python/object/apply:os.system ['echo ran']", "cannot be read"),
        ("s.yaml", b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "has YAML aliases"),
        ("s.yaml", b"[" * 50_000, "nests its fields more than 50 levels deep"),
        ("s.yaml", b"- " * 400 + b"x", "nests its fields more than 50 levels deep"),
        ("s.toml", b"url = ", "cannot be read"),
        ("s.toml", b"a = " + b"[" * 50_000, "cannot be read"),
        ("s.yaml", b"#" * (2**20 + 1), r"is larger than 1\.0 MiB"),
    ],
)
def test_files_that_are_no_template_are_refused(tmp_path, name, content, message, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_suspect(tmp_path / name)
    assert "ran" not in capfd.readouterr().out
    with pytest.raises(InputError, match="there is no file"):
        open_suspect(tmp_path / f"nowhere-{name}")


def test_the_time_limit_is_the_templates_or_the_callers(tmp_path):
    path = write(tmp_path / "s.yaml", "https://host", timeout=7)
    assert open_suspect(path).transport._connection.timeout == 7
    assert open_suspect(path, timeout=3).transport._connection.timeout == 3


def test_more_queries_at_once_than_the_template_sends_are_refused(tmp_path):
    transport = open_suspect(write(tmp_path / "s.yaml", "https://host", body="$QUERY")).transport
    assert transport.largest_batch == 1
    with pytest.raises(InputError, match="sends 1 queries at once, got 5"):
        transport.answer_batch(QUERIES)


def test_the_template_of_the_documentation_can_be_used(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "kinds_of_suspect" / "services.md").read_text(encoding="utf-8")
    (template,) = (block.text for block in blocks_of(page) if "https://api.example.org" in block.text)
    (tmp_path / "s.yaml").write_text(template)
    with pytest.raises(InputError, match="the environment variable API_TOKEN is not set"):
        open_suspect(tmp_path / "s.yaml")
    monkeypatch.setenv("API_TOKEN", "tok-123456")
    monkeypatch.setenv("MODEL_NAME", "m7")
    transport = open_suspect(tmp_path / "s.yaml").transport
    assert (transport.endpoint, transport.largest_batch) == ("https://api.example.org/v1/classify", 16)
