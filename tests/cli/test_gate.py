"""`metav gate`: exit codes, JSON, the JUnit file, and all kinds of releases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from junitparser import JUnitXml
from linear_fingerprints import OTHER_OWNER_SEED, OWNER_SEED, QUERY_ARRAY, answers, linear_fingerprint, weights
from small_onnx import linear

from metav.cli.commands import main

MODELS = """
import numpy as np


def own():
    matrix = np.load("own.npy")
    return lambda queries: (queries[:, :, None] * matrix).sum(axis=1, dtype=np.float32)


def leaving():
    raise SystemExit(0)
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["gate", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two fingerprints, and releases of their owners as .onnx files, as code and as recorded answers."""
    monkeypatch.chdir(tmp_path)
    Path("gate_models.py").write_text(MODELS)
    for name, owner in (("owner", OWNER_SEED), ("other", OTHER_OWNER_SEED)):
        linear_fingerprint(owner=owner).save(f"{name}.metav")
        linear(Path(f"{name}.onnx"), weights(derived=True, seed=200, owner=owner), shape=("n", 4))
    own = weights(derived=True, seed=200)
    np.save("own.npy", own)
    np.save("answers.npy", answers(own, QUERY_ARRAY))
    return tmp_path


@pytest.mark.parametrize(
    ("release", "more", "code", "outcome"),
    [
        ("owner.onnx", (), 0, "passed"),
        ("owner.onnx", ("--against", "other.metav"), 0, "passed"),
        ("other.onnx", (), 1, "failed"),
        ("other.onnx", ("--against", "other.metav"), 1, "failed"),
        ("gate_models:own", ("--against", "other.metav"), 0, "passed"),
        ("answers.npy", ("--against", "other.metav=answers.npy"), 0, "passed"),
    ],
)
def test_the_exit_code_is_the_outcome_and_stdout_is_json(folder, release, more, code, outcome):
    done = call("owner.metav", release, *more, "--json", "--junit", "gate.xml")
    assert done.exit_code == code, done.stderr
    found = json.loads(done.stdout)
    assert found["outcome"] == outcome
    assert len(found["checks"]) == 1 + (more != ())
    assert any(line.startswith(f"gate {outcome}: ") for line in done.stderr.splitlines())
    (suite,) = JUnitXml.fromfile("gate.xml")
    assert (suite.tests, suite.failures > 0) == (len(found["checks"]), code == 1)


def test_without_json_nothing_is_on_stdout(folder):
    assert call("owner.metav", "owner.onnx").stdout == ""


def test_a_check_that_tells_nothing_ends_with_3(folder):
    wrong = answers(weights(derived=True), QUERY_ARRAY)
    wrong[3, 1] = np.nan
    np.save("nan.npy", wrong)
    done = call("owner.metav", "nan.npy", "--junit", "gate.xml")
    assert done.exit_code == 3
    assert "inconclusive" in done.stderr
    (suite,) = JUnitXml.fromfile("gate.xml")
    assert (suite.errors, suite.failures) == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("owner.metav", "none.onnx"), "there is no file none.onnx"),
        (("none.metav", "owner.onnx"), "none.metav"),
        (("owner.metav", "gate_models:leaving"), "gate_models:leaving() fails"),
        (("owner.metav", "owner.onnx", "--against", "owner.metav"), "the same fingerprint as"),
        (("owner.metav", "answers.npy", "--against", "other.metav"), "--against FINGERPRINT=ANSWERS"),
    ],
)
def test_what_cannot_be_run_ends_with_2_and_is_an_error_in_the_junit_file(folder, arguments, message):
    done = call(*arguments, "--junit", "gate.xml", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    (suite,) = JUnitXml.fromfile("gate.xml")
    assert (suite.tests, suite.errors) == (1, 1)
    assert message in next(iter(suite)).result[0].message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("owner.metav",), "Missing argument 'RELEASE'"),
        (("owner.metav", "owner.onnx", "--weights", "w.safetensors"), "--weights and --trained go with pkg.module"),
        (("owner.metav", "gate_models:own", "--recorded"), "--recorded goes with a file of answers"),
        (("owner.metav", "owner.onnx", "--log", "run.db"), "No such option"),
    ],
)
def test_wrong_usage_ends_with_4(folder, arguments, message):
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (4, "")
    assert message in done.stderr


def test_a_junit_file_that_cannot_be_written_is_said_before_anything_is_asked(folder):
    done = call("owner.metav", "owner.onnx", "--junit", "none/gate.xml")
    assert done.exit_code == 2
    assert "is no folder that you may write to" in done.stderr


def test_logs_are_kept_per_fingerprint(folder):
    done = call("owner.metav", "gate_models:own", "--against", "other.metav", "--logs", "logs", "--keep-queries")
    assert done.exit_code == 0, done.stderr
    assert len(list(Path("logs").glob("*.db"))) == 2


def test_the_help_says_what_each_exit_code_means():
    text = call("--help").stdout
    assert "1  failed: " in text
    assert "3  inconclusive: " in text
