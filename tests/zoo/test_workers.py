"""Processes that train end with the one that started them, however it ends, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from metav.zoo.workers import train_missing, training_processes

KILLS = int(os.environ.get("METAV_KILLS", "3"))
"""Builds that are killed; `METAV_KILLS=50 pytest -m slow -rP tests/zoo/test_workers.py` kills 50, and tells how long it
took until nothing was left."""
MARK = "METAV_TEST_BUILD"
SECONDS = float(os.environ.get("METAV_KILL_SECONDS", "30"))
"""How long something may be left: a moment, but a worker that is starting has to be given the processor first."""

BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from small_models import owner_of, task_of
from metav import build_zoo
owner, task = owner_of("regression"), task_of("regression")
print("building", flush=True)
build_zoo(owner, task, positives=200, negatives=200, cache=sys.argv[2], jobs=2)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked up in /proc")


def processes(mark: str) -> list[str]:
    """Those that run with a mark in their environment: a build, its workers, and whatever these started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
    return found


def leftovers(pid: int, temporary: Path, cache: Path) -> list[str]:
    """Files and folders that are none of the finished models."""
    shared = [str(path) for form in ("*_{}_*", "*-{}-*") for path in Path("/dev/shm").glob(form.format(pid))]
    return [
        *shared,
        # PyTorch keeps an empty folder of its own there
        *(str(path) for path in temporary.rglob("*") if not path.name.startswith("torchinductor_")),
        *(str(path) for path in cache.glob("*") if path.suffix != ".safetensors"),
    ]


def started(tmp_path: Path, mark: str) -> tuple[subprocess.Popen[str], Path, Path]:
    temporary, cache = tmp_path / "temporary", tmp_path / "cache"
    temporary.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        MARK: mark,
    }
    command = [sys.executable, "-c", BUILD, str(Path(__file__).parents[1] / "helpers"), str(cache)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    return process, temporary, cache


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_build_leaves_no_process_file_or_folder(number, tmp_path):
    """At any moment: while workers start, while they train, while they write."""
    mark = secrets.token_hex(8)
    process, temporary, cache = started(tmp_path, mark)
    time.sleep(random.Random(number).uniform(0.0, 9.0))
    assert process.poll() is None
    process.send_signal((signal.SIGKILL, signal.SIGTERM)[number % 2])
    process.wait()
    killed = time.monotonic()
    while (
        left := [*processes(mark), *leftovers(process.pid, temporary, cache)]
    ) and time.monotonic() < killed + SECONDS:
        time.sleep(0.1)
    print(f"nothing left after {time.monotonic() - killed:.1f} s")
    assert left == []


@pytest.mark.parametrize(
    ("jobs", "cores", "waiting", "seconds", "processes"),
    [
        (4, 2, 0, 0.0, 1),
        (4, 2, 1, 1e6, 1),
        (4, 2, 3, 0.1, 3),
        (4, 2, 9, None, 4),
        (1, 2, 9, 1e6, 1),
        (-1, 2, 9, 0.1, 2),
        (None, 8, 9, None, 1),
        (None, 8, 9, 11.0, 1),
        (None, 8, 9, 12.0, 8),
        (None, 8, 2, 12.0, 1),
        (None, 1, 9, 1e6, 1),
    ],
)
def test_processes_that_were_asked_for_are_started_and_others_where_they_save_time(
    monkeypatch, jobs, cores, waiting, seconds, processes
):
    monkeypatch.delenv("METAV_JOBS", raising=False)
    monkeypatch.setattr("metav.support.processor.cpu_info", lambda: SimpleNamespace(cpus=cores))
    context = SimpleNamespace(owner=torch.nn.Linear(2, 1))
    assert training_processes(jobs, context, waiting, seconds) == processes


@pytest.mark.parametrize("jobs", [None, 4])
def test_one_model_alone_is_trained_in_this_process(jobs):
    context = SimpleNamespace(owner=torch.nn.Linear(2, 1), is_cached=lambda planned: False)
    seen = []

    def train(planned, context):
        seen.append(planned.run)
        return b"packed"

    missing = {"zoo-0/quantize/0": SimpleNamespace(run="zoo-0/quantize/0")}
    assert list(train_missing(missing, context, None, jobs, train)) == [("zoo-0/quantize/0", b"packed")]
    assert seen == ["zoo-0/quantize/0"]


def test_a_worker_ends_when_its_parent_is_not_there(tmp_path):
    """The parent may be gone before the worker begins to watch it."""
    code = "from metav.support.processes import end_with_parent; end_with_parent(1); import time; time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=50, check=False)
    assert done.returncode == 1
