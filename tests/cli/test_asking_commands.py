"""The commands around asking: verify with a log, log, queries, scan, and the fingerprint's options."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from linear_fingerprints import answers, linear_fingerprint, weights

import metav
from metav.cli.commands import main

FP = linear_fingerprint()
COPY, HONEST = weights(derived=True, seed=700), weights(derived=False, seed=700)
CLIENTS = """
import time
import numpy as np

def _client(name, wait=0.0):
    matrix = np.load(name)
    def ask(queries):
        time.sleep(wait)
        rows = np.asarray(queries, np.float32)
        return (rows[:, :, None] * matrix).sum(axis=1, dtype=np.float32)
    return ask

def copy():
    return _client("copy.npy")

def honest():
    return _client("honest.npy")

def slow():
    return _client("copy.npy", 0.05)
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder with a fingerprint and clients of a copy and of an honest model."""
    FP.save(tmp_path / "owner.metav")
    np.save(tmp_path / "copy.npy", COPY)
    np.save(tmp_path / "honest.npy", HONEST)
    (tmp_path / "asking_clients.py").write_text(CLIENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "asking_clients", raising=False)
    return tmp_path


def verify(*arguments: object) -> Result:
    return call("verify", "owner.metav", *arguments)


# verify --------------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_sent_and_sends_and_writes_nothing(workplace):
    before = sorted(os.listdir())
    options = ("--log", "run.db", "--price", "0.01", "--rate", "2", "--decoys", "8", "--batch-size", "8")
    done = verify("asking_clients:copy", *options, "--dry-run", "--json")
    assert done.exit_code == 0
    preview = json.loads(done.stdout)
    assert (preview["queries"], preview["decoys"], preview["left"]) == (48, 8, 68)
    assert (preview["cost"], preview["seconds"], preview["batches"]) == (0.68, 34.0, 9)
    assert "nothing was sent" in done.stderr
    assert {name for name in os.listdir() if name != "__pycache__"} == {name for name in before}
    assert verify("asking_clients:copy", *options).exit_code == 1
    again = json.loads(verify("asking_clients:copy", *options, "--dry-run", "--json").stdout)
    assert (again["answered"], again["left"], again["cost"]) == (68, 0, 0.0)


def test_the_verdict_states_the_head_that_log_verify_checks(workplace):
    done = verify("asking_clients:honest", "--log", "run.db", "--decoys", "4", "--json")
    assert done.exit_code == 0
    head = json.loads(done.stdout)["asking"]["head"]
    assert f"head {head}" in done.stderr
    Path("verdict.json").write_text(done.stdout)
    checked = call("log", "verify", "run.db", "--verdict", "verdict.json", "--fingerprint", "owner.metav", "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout) == {"intact": True, "rows": 63, "head": head, "compared": True}
    wrong = call("log", "verify", "run.db", "--head", "0" * 64)
    assert wrong.exit_code == 2
    assert "not with the stated head" in wrong.stderr
    Path("verdict.json").write_text("{}")
    assert "states no head of a log" in call("log", "verify", "run.db", "--verdict", "verdict.json").stderr


def test_logs_are_shown_and_exported(workplace):
    verify("asking_clients:copy", "--log", "run.db")
    shown = call("log", "show", "run.db", "--json")
    assert json.loads(shown.stdout)["answered"] == 56
    assert "callable asking_clients:copy" in shown.stderr
    assert call("log", "export", "run.db", "-o", "run.jsonl").exit_code == 0
    assert len(Path("run.jsonl").read_text().splitlines()) == json.loads(shown.stdout)["rows"]
    assert "pass --force" in call("log", "export", "run.db", "-o", "run.jsonl").stderr
    assert call("log", "show", "owner.metav").exit_code == 2


def test_a_log_of_one_client_is_not_taken_for_that_of_another(workplace):
    assert verify("asking_clients:copy", "--log", "run.db").exit_code == 1
    other = verify("asking_clients:honest", "--log", "run.db")
    assert other.exit_code == 2
    assert "is the log of another run (it differs in suspect, identity)" in other.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--budget", "10"), 2, "nothing was sent"),
        (("--decoys", "3"), 2, "decoys come in pairs"),
        (("--budget", "0"), 4, "0 is not in the range x>=1"),
        (("--recorded",), 4, "--recorded goes with a file of answers"),
        (("--log", "no/run.db"), 2, "there is no folder no"),
    ],
)
def test_options_that_cannot_be_used_say_so(workplace, options, code, message):
    done = verify("asking_clients:copy", *options)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_keeps_everything_and_says_how_to_go_on(workplace):
    command = [sys.executable, "-m", "metav.cli", "verify", "owner.metav", "asking_clients:slow", "--log", "run.db"]
    command += ["--batch-size", "1"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not Path("run.db-wal").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout) == (130, "")
    assert "the same command goes on from run.db" in stderr
    answered = json.loads(call("log", "show", "run.db", "--json").stdout)["answered"]
    assert 0 < answered < 56
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    asking = json.loads(done.stdout)["asking"]
    assert (asking["answered"], asking["sent"]) in ((56, 56), (56, 57)), "but for the one that was interrupted"


# A real server -------------------------------------------------------------------------------------------------------


class Service(ThreadingHTTPServer):
    """MLflow's protocol on loopback, with faults by the number of the request."""

    faults: dict[int, str]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults, self.requests, self.seen = {}, 0, Counter()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number, self.server.requests = self.server.requests, self.server.requests + 1
        rows = np.array(json.loads(body)["inputs"], np.float32)
        text = json.dumps({"predictions": answers(COPY, rows).tolist()})
        fault = self.server.faults.get(number)
        match fault:
            case None:
                self.server.seen.update(row.tobytes() for row in rows)
                return self._reply(200, text)
            case "drop":
                self.connection.close()
                self.close_connection = True
                return None
            case "429":
                return self._reply(429, "{}", {"Retry-After": "0"})
            case "500" | "202" | "401":
                return self._reply(int(fault), "" if fault == "202" else "{}")
            case "truncated":
                return self._reply(200, text[: len(text) // 2])
            case "NaN":
                return self._reply(200, text.replace(text.split("[[")[1].split(",")[0], '"NaN"', 1))
            case "slow":
                time.sleep(1.5)
                return self._reply(200, text)
            case _:
                raise AssertionError(fault)

    def _reply(self, status, text, headers=()):
        content = text.encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def service(monkeypatch):
    """A running server; waits before attempts are cut short."""
    pytest.importorskip("httpx2")
    from metav.suspects.asking import Pace

    monkeypatch.setattr(Pace, "sleep", staticmethod(lambda seconds: None))
    with Service() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.address = f"http://127.0.0.1:{server.server_address[1]}/invocations"
        yield server
        server.shutdown()


@pytest.mark.parametrize("fault", ["drop", "429", "500", "202", "truncated", "NaN", "slow"])
def test_faults_of_a_real_server_change_nothing(workplace, service, fault):
    service.faults = {1: fault, 4: fault}
    timeout = "0.7" if fault == "slow" else "30"  # a busy machine may fail an answer more by so short a one
    options = ("--log", "run.db", "--batch-size", "8", "--decoys", "8", "--timeout", timeout)
    done = verify(service.address, *options, "--json")
    assert done.exit_code == 1, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["asking"]["failed"] == 2 or (fault == "slow" and verdict["asking"]["failed"] > 2)
    plain = metav.verify(FP, lambda queries: answers(COPY, queries), accepts="numpy")
    assert verdict["score"] == plain.score
    assert sum(service.seen.values()) == verdict["asking"]["planned"]


def test_a_run_that_a_server_ends_goes_on_with_the_same_command(workplace, service):
    service.faults = dict.fromkeys(range(3, 50), "401")
    options = ("--log", "run.db", "--batch-size", "8", "--header", "Authorization: Bearer $TOKEN")
    os.environ["TOKEN"] = "hunter2"
    try:
        stopped = verify(service.address, *options)
        assert stopped.exit_code == 3
        assert "queries are left; the same call goes on from run.db" in stopped.stderr
        service.faults = {}
        os.environ["TOKEN"] = "hunter3"
        assert verify(service.address, *options).exit_code == 1
    finally:
        del os.environ["TOKEN"]
    assert max(service.seen.values()) <= 2, "but for the repeats"
    assert b"hunter" not in Path("run.db").read_bytes()


# queries -------------------------------------------------------------------------------------------------------------


def test_queries_go_out_and_answers_come_back_by_number(workplace):
    done = call("queries", "export", "owner.metav", "-o", "queries")
    assert done.exit_code == 0
    assert "answers.csv" in done.stderr
    with np.load("queries/queries.npz") as arrays:
        numbers, inputs = arrays["query"], arrays["inputs"]
    order = np.random.default_rng(0).permutation(len(numbers))
    np.savez("back.npz", query=numbers[order], answers=answers(COPY, inputs)[order])
    assert verify("back.npz", "--recorded").exit_code == 1
    heading = Path("queries/answers.csv").read_text().splitlines()[0]
    rows = [",".join(map(str, [number, *answers(HONEST, inputs[number - 1][None])[0]])) for number in numbers[order]]
    Path("back.csv").write_text("\n".join([heading, *rows[:-1]]))
    missing = verify("back.csv", "--recorded")
    assert missing.exit_code == 3
    assert f"queries {numbers[order][-1]} have no answer (1 of 48)" in missing.stderr
    Path("back.csv").write_text("\n".join([heading, *rows]))
    assert verify("back.csv", "--recorded").exit_code == 0
    assert call("queries", "export", "owner.metav", "-o", "queries").exit_code == 2


# scan ----------------------------------------------------------------------------------------------------------------


def test_a_scan_ends_with_1_where_any_matches_3_where_any_is_open_else_0(workplace):
    Path("answers").mkdir()
    for number in range(3):
        np.save(f"answers/{number}.npy", answers(weights(derived=False, seed=710 + number), FP.queries))
    done = call("scan", "owner.metav", "answers", "--csv", "scan.csv", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["decisions"] == {"MATCH": 0, "NO_MATCH": 3, "INCONCLUSIVE": 0}
    assert len(Path("scan.csv").read_text().splitlines()) == 4
    Path("answers/broken.npy").write_text("broken")
    assert call("scan", "owner.metav", "answers").exit_code == 3
    Path("list.json").write_text(json.dumps({"suspects": ["asking_clients:copy", "asking_clients:honest"]}))
    found = call("scan", "owner.metav", "answers", "list.json", "--workers", "2", "--json")
    assert found.exit_code == 1, found.stderr
    decisions = {row["name"]: row["decision"] for row in json.loads(found.stdout)["rows"]}
    assert decisions["asking_clients:copy"] == "MATCH"
    assert decisions["asking_clients:honest"] == "NO_MATCH"
    assert call("scan", "owner.metav", "answers", "--log", "run.db").exit_code == 4


def test_a_scan_keeps_logs_with_queries_where_a_folder_is_given(workplace):
    refused = call("scan", "owner.metav", "asking_clients:honest", "--keep-queries")
    assert (refused.exit_code, "pass logs, a folder" in refused.stderr) == (2, True)
    done = call("scan", "owner.metav", "asking_clients:honest", "--keep-queries", "--logs", "logs")
    assert done.exit_code == 0, done.stderr
    (log,) = Path("logs").iterdir()
    assert FP.queries[0].tobytes() in log.read_bytes()


# fingerprint ---------------------------------------------------------------------------------------------------------


def test_the_fingerprint_s_options_reach_task_zoo_and_optimisation(workplace, monkeypatch):
    import metav.fingerprinting
    import metav.zoo.building

    Path("owner_models.py").write_text(
        "from torch import nn\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4))\n\n"
        "def recipe(seed):\n    return build()\n"
    )
    random = np.random.default_rng(0)
    np.savez("data.npz", x=random.uniform(size=(40, 1, 4, 4)).astype(np.float32), y=np.arange(40) % 3)
    seen = {}

    def zoo(owner, task, **options):
        seen.update(options, task=task)

    def fingerprint(owner, task, **options):
        seen["fingerprint"] = options
        return FP

    monkeypatch.setattr(metav.zoo.building, "build_zoo", zoo)
    monkeypatch.setattr(metav.fingerprinting, "fingerprint", fingerprint)
    options = ("--view", "label", "--levels", "256", "--validation", "0.3", "--classes", "4")
    more = ("--recipe", "owner_models:recipe", "--independent", "owner_models:build")
    base = ("fingerprint", "owner_models:build", "--trained", "--data", "data.npz", "-o", "new.metav")
    done = call(*base, *options, *more)
    assert done.exit_code == 0, done.stderr
    task = seen["task"]
    assert (task.levels, task.validation, task.outputs) == (256, 0.3, 4)
    assert seen["fingerprint"]["options"].view == "label"
    assert seen["recipe"].__name__ == "recipe"
    assert [type(model).__name__ for model in seen["independent"]] == ["Sequential"]
    wrong = call(*base, "--force", "--view", "labels")
    assert (wrong.exit_code, "view must be one of" in wrong.stderr) == (2, True)
    other = call(*base, "--force", "--task", "regression", "--classes", "3")
    assert (other.exit_code, "classes does not go with --task regression" in other.stderr) == (2, True)
