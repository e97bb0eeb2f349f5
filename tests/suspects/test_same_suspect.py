"""One suspect, asked in every way there is: the same decision, and the same score to four decimals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_fingerprints import small_fingerprint, small_owner, small_suspects

import metav
from metav.cli import main

pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
pytest.importorskip("httpx2", reason='needs the extra "http"')
pytest.importorskip("fastapi", reason="needs fastapi and uvicorn for services on loopback")

from onnx import helper, numpy_helper
from small_onnx import info, save
from small_services import json_app, mlflow_app, open_inference_app, serving

WAYS = (
    "callable",
    "onnx",
    "onnx, four at once",
    "torch.export",
    "TorchScript",
    "OIP",
    "OIP, binary",
    "MLflow",
    "template",
    "template, one by one",
    "recorded answers",
)


def answers_of(model):
    def answer(queries):
        with torch.no_grad():
            return model(torch.from_numpy(np.array(queries, np.float32))).numpy()

    return answer


def as_onnx(model, path, batch="n"):
    """The network head(relu(body(flat))) in ONNX."""
    layers = {"body": model.body, "head": model.head}
    values = [
        numpy_helper.from_array(tensor.detach().numpy().copy(), f"{name}.{kind}")
        for name, layer in layers.items()
        for kind, tensor in layer.named_parameters()
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "body.weight", "body.bias"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    shape = (batch, *small_fingerprint().queries.shape[1:])
    return save(path, nodes, [info("image", shape)], [info("logits", (batch, 10))], initializers=values)


@contextmanager
def asked(way, model, folder):
    """Yield what `metav.verify` takes, and its options."""
    answer, queries = answers_of(model), small_fingerprint().queries
    example = torch.from_numpy(queries[:2].copy())
    if way == "callable":
        yield answer, {"accepts": "numpy"}
    elif way.startswith("onnx"):
        yield as_onnx(model, folder / "m.onnx", *([4] if "four" in way else [])), {}
    elif way == "torch.export":
        torch.export.save(torch.export.export(model.eval(), (example,)), folder / "m.pt2")
        yield folder / "m.pt2", {"trust_code": True}
    elif way == "TorchScript":
        torch.jit.save(torch.jit.trace(model.eval(), example), folder / "m.pt")
        yield folder / "m.pt", {"trust_code": True}
    elif way.startswith("OIP"):
        with serving(open_inference_app(answer, shape=[-1, *queries.shape[1:]], binary="binary" in way)) as url:
            yield f"{url}/v2/models/m/infer", {}
    elif way == "MLflow":
        with serving(mlflow_app(answer)) as url:
            yield f"{url}/invocations", {"timeout": 30}
    elif way.startswith("template"):
        with serving(json_app(lambda body, _: {"out": answer(np.asarray(body["x"])).tolist()})) as url:
            name = "QUERY" if "one" in way else "QUERIES"
            nested = [f"${name}"] if name == "QUERY" else f"${name}"
            template = {"url": f"{url}/ask", "body": {"x": nested}, "answer": "$.out"}
            (folder / "s.yaml").write_text(json.dumps(template))
            yield folder / "s.yaml", {}
    else:
        np.save(folder / "answers.npy", answer(queries))
        yield folder / "answers.npy", {}


def suspects():
    """The owner's own model, a derived and an independent one; all are of one class."""
    others = [entry for entry in small_suspects() if type(entry.model) is type(small_owner())]
    derived = next(entry.model for entry in others if entry.is_positive)
    return {"owner": small_owner(), "derived": derived, "independent": others[-1].model}


@pytest.mark.parametrize("way", WAYS)
def test_the_verdict_does_not_depend_on_how_a_suspect_is_asked(way, tmp_path):
    decisions = []
    for name, model in suspects().items():
        expected = metav.verify(small_fingerprint(), model)
        (tmp_path / name).mkdir()
        with asked(way, model, tmp_path / name) as (suspect, options):
            verdict = metav.verify(small_fingerprint(), suspect, batch_size=8, **options)
        assert verdict.decision == expected.decision
        assert verdict.score == pytest.approx(expected.score, abs=1e-4)
        assert verdict.suspect != expected.suspect
        decisions.append(str(verdict.decision))
    assert decisions[0] == "MATCH"
    assert decisions[2] == "NO_MATCH"


def command(*arguments, environment=None):
    """Run the command line in a process that, like one where it is not installed, cannot import PyTorch."""
    code = "import sys\nsys.modules['torch'] = None\nfrom metav.cli import main\nsys.argv[0] = 'metav'\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment
    )


def run(*arguments):
    """Run the command line in this process; return its exit code, and what it writes for people."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.fixture(scope="module")
def fingerprint_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fingerprint") / "owner.metav"
    small_fingerprint().save(path)
    return path


@pytest.mark.parametrize(
    "way",
    [
        "template",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("onnx", "OIP, binary", "MLflow", "recorded answers")),
    ],
)
def test_the_command_line_verifies_without_pytorch(way, tmp_path, fingerprint_file):
    model = small_owner()
    with asked(way, model, tmp_path) as (suspect, options):
        extra = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        done = command("verify", fingerprint_file, suspect, "--json", "--batch-size", "8", *extra)
    assert done.returncode == 1, done.stderr
    expected = metav.verify(small_fingerprint(), model)
    assert json.loads(done.stdout)["score"] == pytest.approx(expected.score, abs=1e-4)
    assert done.stderr.startswith("MATCH: ")


def test_options_of_the_command_line_reach_the_suspect(tmp_path, fingerprint_file):
    path = as_onnx(small_owner(), tmp_path / "m.onnx")
    given = ["--input", "image", "--output", "logits", "--provider", "cpu", "--layout", "NCHW", "--timeout", "60"]
    assert run("verify", fingerprint_file, path, *given)[0] == 1
    for wrong, code, message in [
        (["--output", "scores"], 2, "has no output 'scores'"),
        (["--input", "a", "--input", "b"], 4, "one input takes the queries"),
        (["--input", "a=x"], 4, "expected a number or a list"),
        (["--input", "image", "--input", "scale=2"], 2, "has no further input 'scale'"),
        (["--header", "a: b"], 2, "headers does not go with a suspect of the kind 'onnx'"),
        (["--header", "a"], 4, "expects 'NAME: TEXT'"),
        (["--trust-code"], 2, "trust_code does not go with"),
        (["--timeout", "0"], 2, "timeout must be a number of seconds above 0"),
        (["--provider", "tpu"], 4, "is not one of"),
    ]:
        found, text = run("verify", fingerprint_file, path, *wrong)
        assert (found, message in text) == (code, True), text
    code, text = run("verify", fingerprint_file, "models:build", "--layout", "flat")
    assert code == 4
    assert "not for pkg.module:build" in text


def test_the_command_line_takes_an_archive_only_with_trust(tmp_path, fingerprint_file):
    with asked("torch.export", small_owner(), tmp_path) as (path, _):
        code, text = run("verify", fingerprint_file, path)
        assert code == 2
        assert "--trust-code" in text
        assert run("verify", fingerprint_file, path, "--trust-code")[0] == 1


def test_a_service_that_cannot_be_asked_is_inconclusive_and_shown_harmlessly(tmp_path, fingerprint_file):
    def hostile(body, headers):
        assert headers["authorization"] == "Bearer tok-99887766"
        return {"out": "<script>alert(1)</script>\x1b[2J\nMATCH: tok-99887766"}

    environment = {**os.environ, "SMALL_TOKEN": "tok-99887766"}
    with serving(json_app(hostile)) as url:
        template = {
            "url": f"{url}/ask",
            "headers": {"Authorization": "Bearer $SMALL_TOKEN"},
            "body": "$QUERIES",
            "answer": "$.out",
        }
        (tmp_path / "s.yaml").write_text(json.dumps(template))
        done = command("verify", fingerprint_file, tmp_path / "s.yaml", "--json", environment=environment)
    assert done.returncode == 3
    verdict = json.loads(done.stdout)
    assert (verdict["decision"], verdict["reason"]) == ("INCONCLUSIVE", "unreadable")
    for text in (done.stdout, done.stderr):
        assert "tok-99887766" not in text
        assert "\x1b" not in text
        assert "\nMATCH" not in text
