"""The Open Inference Protocol and MLflow's scoring server, over loopback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_fingerprints import numbers

from metav.errors import InputError, SuspectError, TransportError
from metav.suspects import open_suspect

pytest.importorskip("httpx2", reason='needs the extra "http"')
pytest.importorskip("fastapi", reason="needs fastapi and uvicorn for services on loopback")

from small_services import mlflow_app, open_inference_app, response, serving, speaking

QUERIES = numbers(20, 1, 8, 8)
WEIGHTS = numbers(64, 10, seed=1)
ANSWERS = QUERIES.reshape(20, 64) @ WEIGHTS  # exact: multiples of 1/64


def linear(queries):
    return queries.reshape(len(queries), 64) @ WEIGHTS


def linear_of_images_with_channels_last(queries):
    return linear(np.ascontiguousarray(np.moveaxis(queries, -1, 1)))


def ask(url, *, outputs=10, batch_size=256, **options):
    return open_suspect(url, **options).answer(QUERIES, outputs=outputs, batch_size=batch_size).responses


# The Open Inference Protocol -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param([-1, 1, 8, 8], id="any number"),
        pytest.param([7, 1, 8, 8], id="seven"),
        pytest.param([1, 1, 8, 8], id="one"),
        pytest.param([-1, 64], id="flat"),
    ],
)
def test_open_inference_answers_are_the_models(binary, shape):
    with serving(open_inference_app(linear, shape=shape, binary=binary)) as url:
        for path in ("/v2/models/m", "/v2/models/m/infer", "/v2/models/m/"):
            assert np.array_equal(ask(url + path, batch_size=9), ANSWERS)


def test_open_inference_metadata_may_put_channels_last_or_ask_for_another_precision():
    app = open_inference_app(linear_of_images_with_channels_last, shape=[-1, 8, 8, 1], datatype="FP64")
    with serving(app) as url:
        assert np.array_equal(ask(url + "/v2/models/m"), ANSWERS)
    with serving(open_inference_app(linear, shape=[-1, 1, 8, 8], datatype="FP16", binary=True)) as url:
        assert np.array_equal(ask(url + "/v2/models/m"), ANSWERS)


def test_open_inference_without_metadata_takes_what_is_stated():
    seen = []
    with serving(open_inference_app(linear, shape=None, seen=seen)) as url:
        assert np.array_equal(ask(url + "/v2/models/m", input="pixels"), ANSWERS)
        assert np.array_equal(ask(url + "/v2/models/m"), ANSWERS)
    assert [entry["inputs"][0]["name"] for entry in seen] == ["pixels"] * 2 + ["input-0"] * 2
    assert seen[0]["inputs"][0]["shape"] == [20, 1, 8, 8]


@pytest.mark.parametrize("binary", [False, True])
def test_one_of_several_open_inference_outputs_is_judged(binary):
    app = open_inference_app(linear, shape=[-1, 1, 8, 8], binary=binary, outputs=("scores", "class"))
    with serving(app) as url:
        assert np.array_equal(ask(url + "/v2/models/m"), ANSWERS)
        assert np.array_equal(ask(url + "/v2/models/m", outputs=1, output="class").ravel(), ANSWERS.argmax(axis=1))
        with pytest.raises(TransportError, match=r"has no output 'logits'|no list of") as raised:
            ask(url + "/v2/models/m", output="logits")
        assert raised.value.reason == "unreadable"


def test_an_unknown_open_inference_input_is_told():
    with (
        serving(open_inference_app(linear, shape=[-1, 1, 8, 8])) as url,
        pytest.raises(InputError, match=r"has no input 'x'; it has image float32 \(n, 1, 8, 8\)"),
    ):
        ask(url + "/v2/models/m", input="x")


def test_further_open_inference_inputs_take_constants():
    seen = []
    with serving(open_inference_app(linear, shape=None, seen=seen)) as url:
        ask(url + "/v2/models/m", input="image", constants={"temperature": 2.0})
    assert [entry["name"] for entry in seen[0]["inputs"]] == ["image", "temperature"]
    assert seen[0]["inputs"][1]["data"] == [2.0]


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        {},
        [],
        [3],
        [{"name": "a"}],
        [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1]}],
        [{"name": "a", "shape": [10**18, 10**18], "datatype": "FP32", "data": [1]}],
        [{"name": "a", "shape": [-1], "datatype": "FP32", "data": [1]}],
        [{"name": "a", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 10**9}}],
        [{"name": "a", "shape": [1] * 100, "datatype": "FP32", "data": [1]}],
        [{"name": "a", "shape": ["x"], "datatype": "FP32", "data": [1]}],
        [{"name": "a\x1b[2J", "shape": [1], "datatype": "FP32", "data": [1]}] * 2,
        [{"name": "a", "shape": [2], "datatype": "FP32", "data": [[1], [2, 3]]}],
    ],
)
def test_open_inference_outputs_that_contradict_themselves_are_unreadable(outputs):
    body = json.dumps({"outputs": outputs}).encode()
    with (
        speaking(lambda connection: connection.sendall(response(body))) as url,
        pytest.raises(TransportError) as raised,
    ):
        ask(url + "/v2/models/m")
    assert (raised.value.reason, raised.value.retriable) == ("unreadable", False)
    assert str(raised.value).isprintable()


def test_strings_as_open_inference_data_are_no_numbers():
    body = json.dumps({"outputs": [{"name": "a", "shape": [20], "datatype": "BYTES", "data": ["cat"] * 20}]}).encode()
    with (
        speaking(lambda connection: connection.sendall(response(body))) as url,
        pytest.raises(SuspectError, match="expected real numbers"),
    ):
        ask(url + "/v2/models/m")


@pytest.mark.parametrize("length", ["5", "-1", "x", "99999999"])
def test_a_wrong_header_length_is_unreadable(length):
    body = json.dumps({"outputs": []}).encode()
    reply = response(body, Inference_Header_Content_Length=length)
    with speaking(lambda connection: connection.sendall(reply)) as url, pytest.raises(TransportError) as raised:
        ask(url + "/v2/models/m")
    assert raised.value.reason == "unreadable"


# MLflow --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "options"),
    [
        pytest.param(lambda rows: rows, {}, id="rows"),
        pytest.param(lambda rows: rows, {"input": "image"}, id="a named input"),
        pytest.param(lambda rows: [dict(enumerate(row)) for row in rows], {}, id="a table"),
        pytest.param(lambda rows: {"scores": rows}, {}, id="a named output"),
        pytest.param(lambda rows: {"other": [0], "scores": rows}, {"output": "scores"}, id="one of two outputs"),
        pytest.param(lambda rows: [{"a": row, "b": 0} for row in rows], {"output": "a"}, id="a column"),
    ],
)
def test_mlflow_answers_are_the_models(form, options):
    with serving(mlflow_app(linear, form=form)) as url:
        assert np.array_equal(ask(url + "/invocations", batch_size=9, **options), ANSWERS)


def test_mlflow_models_of_rows_or_channels_last_get_them():
    with serving(mlflow_app(lambda queries: queries @ WEIGHTS)) as url:
        assert np.array_equal(ask(url + "/invocations", layout="flat"), ANSWERS)
    with serving(mlflow_app(linear_of_images_with_channels_last)) as url:
        assert np.array_equal(ask(url + "/invocations", layout="NHWC"), ANSWERS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[1]", 'answered without "predictions"'),
        (b'{"predictions": {"a": [1], "b": [2]}}', r"several outputs \(a, b\); choose one"),
        (b"<html><script>alert(1)</script></html>", "answered with no JSON .* <html>"),
        (b"\xff\xfe", "answered with no JSON"),
        (b"[" * 100_000, "answered with no JSON .RecursionError"),
        (b"[" + b"9" * 10_000 + b"]", "answered with no JSON .ValueError"),
    ],
)
def test_mlflow_answers_of_another_kind_are_unreadable(body, message):
    with (
        speaking(lambda connection: connection.sendall(response(body))) as url,
        pytest.raises(TransportError, match=message) as raised,
    ):
        ask(url + "/invocations")
    assert raised.value.reason == "unreadable"
    assert raised.value.status == 200


def test_numbers_that_are_none_are_told_like_any_suspects():
    for values, reason in (
        ("NaN", "not_finite"),
        ("1e999", "not_finite"),
        ("null", "not_numeric"),
        ('"1"', "not_numeric"),
    ):
        body = ('{"predictions": [' + ", ".join([f"[{values}]"] * 20) + "]}").encode()
        with speaking(lambda connection, body=body: connection.sendall(response(body))) as url:
            with pytest.raises(SuspectError) as raised:
                ask(url + "/invocations", outputs=1)
            assert raised.value.reason == reason


# Addresses -----------------------------------------------------------------------------------------------------------


def test_an_address_that_does_not_tell_its_protocol_is_refused():
    with pytest.raises(InputError, match=r"https://host/predict does not tell its protocol; .* write a template"):
        open_suspect("https://host/predict?key=secret")


def test_constants_are_not_for_mlflow():
    with pytest.raises(InputError, match="constants are for ONNX files and the Open Inference Protocol"):
        open_suspect("http://127.0.0.1:1/invocations", constants={"a": 1})


def test_a_service_that_stops_answering_after_all_queries_leaves_the_noise_unmeasured():
    left = 1

    def once(queries):
        nonlocal left
        left -= 1
        assert left >= 0
        return linear(queries)

    with serving(mlflow_app(once)) as url:
        answers = open_suspect(url + "/invocations").answer(QUERIES, outputs=10)
    assert np.array_equal(answers.responses, ANSWERS)
    assert answers.noise is None


def test_the_configuration_tells_how_it_was_asked_and_is_ready_for_json():
    for url in ("http://127.0.0.1:1/v2/models/m?x=secret", "http://127.0.0.1:1/invocations?x=secret"):
        transport = open_suspect(url, output="a", layout="NHWC", headers={"x-kind": "b"}).transport
        text = json.dumps(dict(transport.configuration))
        assert "secret" not in text + transport.description + transport.endpoint + repr(transport.__dict__)
        assert transport.configuration["headers"] == {"x-kind": "b"}
        assert (transport.configuration["output"], transport.configuration["layout"]) == ("a", "NHWC")
