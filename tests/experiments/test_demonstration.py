"""The demonstration: small in the process, and once in full as a user runs it, with its time and memory."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import metav
from metav.experiments.demonstration import FULL, DemoResult, DemoSize, run_demo, seconds_to_go, write_picture

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SMALL = DemoSize(positives=6, negatives=6, suspects=2, steps=5)
GIBIBYTES = 1.5
OWNER_TRAININGS = 92
"""How much processor time the demonstration may take: a minute of each of two cores where the owner's model trains in
1.3 seconds, as in the README."""


@pytest.fixture(scope="module")
def small() -> tuple[DemoResult, list[str]]:
    lines: list[str] = []
    with pytest.warns(UserWarning, match="independent models calibrate"):
        return run_demo(size=SMALL, jobs=1, say=lines.append), lines


def test_it_makes_as_many_models_as_asked(small):
    result, _ = small
    zoo, tested = result.fingerprint.zoo, result.evaluation.results
    assert (zoo["positives"], zoo["negatives"]) == (6, 6)
    assert [sum(entry.is_positive is kind for entry in tested) for kind in (True, False)] == [2, 2]


def test_it_says_each_phase_with_its_time_and_the_table(small):
    result, lines = small
    numbers = [int(found[1]) for line in lines if (found := re.match(r"\[(\d)/5\]", line))]
    times = [line for line in lines if re.fullmatch(r" +\d+\.\d s", line)]
    assert numbers == [1, 2, 3, 4, 5]
    assert len(times) == len(result.seconds) == 5
    assert str(result.evaluation) in "\n".join(lines)


def test_it_says_before_the_long_part_how_long_that_takes(small):
    _, lines = small
    (told,) = (line for line in lines if " to go " in line)
    assert re.fullmatch(r" +about .* to go in one process, as this training's time tells", told)
    assert lines.index(told) < next(number for number, line in enumerate(lines) if line.startswith("[2/5]"))


def test_the_time_it_tells_is_that_of_the_readme_s_output():
    block = re.search(r"<!-- demo output -->(.*?)<!-- /demo output -->", README, flags=re.DOTALL)[1]
    owner, *later = (float(found) for found in re.findall(r"^ +(\d+\.\d) s$", block, flags=re.MULTILINE))
    assert len(later) == 4
    assert seconds_to_go(owner, FULL, 2) == pytest.approx(sum(later), rel=0.35)
    (told,) = re.findall(r"^ +(about .* to go in 2 processes), as this training's time tells$", block, re.MULTILINE)
    assert re.fullmatch(r"about \d+ (s|min)( \d+ s)? to go in 2 processes", told)


def test_the_time_it_tells_grows_with_the_work_and_falls_with_processes():
    whole = seconds_to_go(1.0, FULL, 1)
    assert seconds_to_go(2.0, FULL, 1) == pytest.approx(2 * whole)
    assert whole / 2 < seconds_to_go(1.0, FULL, 2) < whole
    assert seconds_to_go(1.0, SMALL, 1) < whole / 4


def test_its_result_is_plain_json(small):
    result, _ = small
    found = json.loads(result.to_json())
    assert found["evaluation"] == json.loads(result.evaluation.to_json())
    assert found["fingerprint"]["commitment"] == result.fingerprint.commitment
    assert found["owner_accuracy"] > 0.9


def test_it_draws_all_suspects(small, tmp_path):
    write_picture(small[0], tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(metav.InputError, match="cannot be written"):
        write_picture(small[0], tmp_path / "none" / "demo.png")


def test_its_numbers_support_the_false_positive_rate_that_it_wants():
    from metav.zoo.plan import DEFAULT_SHARES

    assert round(DEFAULT_SHARES["negative"][2] * FULL.negatives) >= 19


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory of processes is read from Linux's /proc"
)
def test_in_full_it_takes_less_than_a_minute_and_little_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "metav.cli", "demo", "--json"]
    with (tmp_path / "stdout").open("w") as stdout, (tmp_path / "stderr").open("w") as stderr:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=stdout, stderr=stderr)
        memory = HighWaterMark(running.pid)
        code = running.wait(timeout=1200)
    after, peak = resource.getrusage(resource.RUSAGE_CHILDREN), memory.stop()
    assert code == 0, (tmp_path / "stderr").read_text()
    found = json.loads((tmp_path / "stdout").read_text())
    assert (tmp_path / "metav_demo.png").read_bytes().startswith(b"\x89PNG")
    assert found["evaluation"]["auc"] > 0.9
    assert found["evaluation"]["tnr"]["value"] > 0.8
    # the README shows the demonstration as it runs now; another processor may turn a suspect near the threshold
    told = re.search(r"true-positive rate .* \((\d+)/28,", README)
    assert abs(found["evaluation"]["tpr"]["count"] - int(told[1])) <= 3
    assert peak < GIBIBYTES
    # of the processor, as other programs must not fail this; the owner's training tells how fast the machine is today
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < OWNER_TRAININGS * found["seconds"]["owner"]


class HighWaterMark:
    """The most memory that a process and its children had at one moment, shared pages counted once, in GiB."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self.ended = pid, 0.0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def stop(self) -> float:
        self.ended.set()
        self.thread.join()
        return self.peak

    def _watch(self) -> None:
        while not self.ended.wait(0.25):
            self.peak = max(self.peak, sum(map(_kibibytes, _family(self.pid))) / 2**20)


def _family(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # ended meanwhile
            children.setdefault(parent, []).append(int(folder.name))
    found, rest = [], [pid]
    while rest:
        found.append(rest.pop())
        rest += children.get(found[-1], [])
    return found


def _kibibytes(pid: int) -> int:
    try:
        text = (Path("/proc") / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    return int(re.search(r"^Pss:\s+(\d+) kB", text, flags=re.MULTILINE)[1])
