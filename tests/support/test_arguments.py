"""Seeds, numbers of queries and of processes: the same values do, and the same are refused, wherever they are taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from small_fingerprints import handmade, small_owner, small_task

import metav
from metav.baselines import BASELINES
from metav.cli.commands import main
from metav.errors import InputError
from metav.experiments.runs.reproduction import parse_seeds
from metav.experiments.suspects.collection import build_test_suspects
from metav.optimization.options import OptimizationOptions
from metav.support.arguments import MOST_QUERIES, MOST_SEED, query_count, seed_number
from metav.support.processor import MOST_JOBS, job_count
from metav.zoo import training, workers


def baseline(**options: Any) -> Any:
    name = next(iter(BASELINES))
    return BASELINES[name]().fit(small_owner(), small_task(), None, **{"queries": 8, "seed": 0, **options})


CALLS: dict[str, Callable[..., Any]] = {
    "fingerprint": lambda **options: metav.fingerprint(small_owner(), small_task(), **options),
    "build_zoo": lambda **options: metav.build_zoo(small_owner(), small_task(), **options),
    "build_suspects": lambda **options: metav.build_suspects(small_owner(), small_task(), **options),
    "build_test_suspects": lambda **options: build_test_suspects(small_owner(), small_task(), **options),
    "Fingerprint": handmade,
    "OptimizationOptions": OptimizationOptions,
    "Baseline": baseline,
}
TAKES = {
    "seed": ["fingerprint", "build_zoo", "build_suspects", "build_test_suspects", "Fingerprint", "Baseline"],
    "queries": ["fingerprint", "OptimizationOptions", "Baseline"],
    "jobs": ["fingerprint", "build_zoo", "build_suspects", "build_test_suspects"],
}
NEVER = (True, np.True_, 1.5, 2.0, np.float64(3.0), float("nan"), "3", [1], -2, np.int64(-3), 10**30)
WRONG = {
    "seed": (*NEVER, None, -1, MOST_SEED + 1),
    "queries": (*NEVER, 0, -1, MOST_QUERIES + 1, 10**12),
    "jobs": (*NEVER, 0, np.int64(0), MOST_JOBS + 1, 10**9),
}


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, places in TAKES.items() for place in places])
def test_what_is_no_such_number_is_refused_everywhere_before_any_work(name, place, monkeypatch):
    monkeypatch.setattr(training, "train_planned", lambda *_: pytest.fail("a model was trained"))
    for value in WRONG[name]:
        with pytest.raises(InputError, match=rf"{name}.* must be (a whole number|at most|from 0 to)"):
            CALLS[place](**{name: value})


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.int32])
def test_whole_numbers_of_any_kind_do(kind):
    assert (seed_number(kind(7)), query_count(kind(7)), job_count(kind(7))) == (7, 7, 7)
    assert all(type(check(kind(7))) is int for check in (seed_number, query_count, job_count))
    assert handmade(seed=kind(3)).commitment == handmade(seed=3).commitment
    assert seed_number(0) == 0
    assert seed_number(MOST_SEED) == MOST_SEED


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--seed", "-1"),
        ("demo", "--jobs", "0"),
        ("fingerprint", "m:b", "--data", "d.npz", "-o", "o.metav", "--seed", str(MOST_SEED + 1)),
        ("fingerprint", "m:b", "--data", "d.npz", "-o", "o.metav", "--seed", "1.0"),
        ("fingerprint", "m:b", "--data", "d.npz", "-o", "o.metav", "--queries", "0"),
        ("fingerprint", "m:b", "--data", "d.npz", "-o", "o.metav", "--queries", str(MOST_QUERIES + 1)),
        ("fingerprint", "m:b", "--data", "d.npz", "-o", "o.metav", "--jobs", "-2"),
        ("reproduce", "digits", "--jobs", str(MOST_JOBS + 1)),
        ("reproduce", "digits", "--owner", "-1"),
    ],
    ids=" ".join,
)
def test_the_command_line_refuses_the_same(arguments):
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 4
    assert "Invalid value for '" + arguments[-2] in done.stderr


def test_seeds_on_the_command_line_are_checked_one_by_one():
    assert parse_seeds("1, 2,3") == [1, 2, 3]
    for text in ("1_0", "-1", "1.0", "", "1,,2", "٣", str(MOST_SEED + 1)):
        with pytest.raises(InputError, match="seeds must be"):
            parse_seeds(text)


# Jobs ----------------------------------------------------------------------------------------------------------------


def cpus_of(code: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "METAV_JOBS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **environment})
    return (done.stdout + done.stderr.splitlines()[-1] if done.stderr else done.stdout).strip()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_all_cores_are_those_that_the_process_may_use():
    show = "from metav.support.processor import job_count; print(job_count(None), job_count(-1))"
    one = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); "
    assert cpus_of(one + show) == "1 1"
    cores = metav.cpu_info().cpus
    assert cpus_of(show) == f"{cores} {cores}"
    assert cores <= len(os.sched_getaffinity(0))
    assert cpus_of(show, METAV_JOBS="3") == f"3 {cores}"
    assert cpus_of(show, METAV_JOBS="-1") == f"{cores} {cores}"
    for text in ("0", "many", "", "1_0", "99999"):
        assert "InputError: METAV_JOBS must be" in cpus_of(show, METAV_JOBS=text)


class Work:
    """What `train_missing` is given: the planned runs a and b and so on, and where each was made."""

    def __init__(self, monkeypatch, *, cores: int, seconds: float) -> None:
        monkeypatch.setenv("METAV_JOBS", str(cores))
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr(workers.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(workers, "_in_workers", self._in_workers)
        monkeypatch.setattr(workers, "_pickled", lambda _: b"sent")
        self.owner = small_owner()

    def _in_workers(self, parcel, waiting, context, store, jobs, train):
        for planned in waiting:
            yield planned, f"{jobs} workers".encode()

    def train(self, planned, context) -> bytes:
        self.now += self.seconds
        return b"here"

    def made(self, count: int, jobs: int | None) -> list[str]:
        class Run(str):
            run = property(str)

        missing = {name: Run(name) for name in "abcdefgh"[:count]}
        return [content.decode() for _, content in workers.train_missing(missing, self, None, jobs, self.train)]


@pytest.mark.parametrize(
    ("jobs", "cores", "seconds", "count", "expected"),
    [
        (1, 4, 99.0, 3, ["here"] * 3),
        (2, 4, 0.001, 3, ["2 workers"] * 3),
        (2, 4, 99.0, 1, ["here"]),
        (None, 4, 0.1, 8, ["here"] * 8),
        (None, 4, 60.0, 8, ["here"] + ["4 workers"] * 7),
        (None, 1, 60.0, 8, ["here"] * 8),
        (None, 4, 60.0, 1, ["here"]),
        (None, 4, 2.5, 8, ["here"] + ["4 workers"] * 7),
        (None, 4, 1.0, 8, ["here"] * 8),
    ],
)
def test_workers_are_started_where_they_are_asked_for_or_save_time(jobs, cores, seconds, count, expected, monkeypatch):
    assert Work(monkeypatch, cores=cores, seconds=seconds).made(count, jobs) == expected


def test_what_cannot_travel_is_trained_here_where_nobody_asked_for_workers(monkeypatch):
    work = Work(monkeypatch, cores=4, seconds=60.0)
    monkeypatch.setattr(workers, "_pickled", lambda _: 1 / 0)
    assert work.made(5, None) == ["here"] * 5
    with pytest.raises(InputError, match=r"cannot be sent to worker processes .* use jobs=1"):
        work.made(5, 2)
