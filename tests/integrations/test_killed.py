"""A run that is killed in the middle of its fingerprint goes on from the cache to the same fingerprint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import metav

for _library in ("lightning", "skorch"):
    pytest.importorskip(_library, reason=f"{_library} is not installed")
SCRIPT = Path(__file__).parents[1] / "helpers" / "killed_training.py"
PATIENCE_SECONDS = 300


def started(framework, folder, *more):
    folder.mkdir(exist_ok=True)
    paths = [str(SCRIPT.parents[2]), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), framework, str(folder), *more]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def finished(process, folder):
    assert process.wait(PATIENCE_SECONDS) == 0, (folder / "log").read_text()[-3000:]
    return metav.load(folder / "o.metav").commitment


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["loop", "lightning", "skorch"])
def test_a_killed_run_goes_on_to_the_same_fingerprint(tmp_path, framework):
    whole = finished(started(framework, tmp_path / "whole"), tmp_path / "whole")
    folder = tmp_path / "killed"
    process, zoo = started(framework, folder), folder / "zoo"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(list(zoo.glob("*.safetensors"))) < 3:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "o.metav").exists(), "it was killed too late to show anything"
    kept = {path.name: path.stat().st_mtime_ns for path in zoo.glob("*.safetensors")}
    again = started(framework, folder, *(["resume"] if framework == "lightning" else []))
    assert finished(again, folder) == whole
    found = {path.name: path.stat().st_mtime_ns for path in zoo.glob("*.safetensors")}
    assert {name: found[name] for name in kept} == kept, "what was trained is not trained again"
    wanted = {path.name for path in (tmp_path / "whole" / "zoo").glob("*.safetensors")}
    assert len(found) == len(wanted)
    # the loop's recipe holds its folder, those of frameworks know nothing of where they report
    assert found.keys() == wanted or framework == "loop"
