"""Progress: the bar of a part as ever, and above it the time that a whole job has left."""

from __future__ import annotations

import pytest

from metav.support import progress
from metav.support.progress import in_whole_job, progress_bar, skip, whole_job


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", clock)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN", 0.0)
    return clock


def test_what_is_left_is_the_rate_of_the_part_that_runs_and_the_plan_of_those_to_come(clock, capfd):
    with whole_job({"zoo": None, "optimise": 30.0, "verifiers": 10.0}, enabled=True) as job:
        assert job.left is None, "nobody knows how long a zoo takes before it has begun"
        with progress_bar(total=10, description="zoo", enabled=True) as bar:
            clock.now += 8
            bar.update(4)
            assert job.left == pytest.approx(12 + 40)
            clock.now += 2
            bar.update(1)
            assert job.left == pytest.approx(10 + 40)
        assert job.left == pytest.approx(40)
        with progress_bar(total=150, description="optimise", enabled=True) as bar:
            clock.now += 1
            bar.update(10)
            assert job.left == pytest.approx(14 + 10)
        assert job.left == pytest.approx(10), "a part that ends early has nothing left"
    shown = capfd.readouterr().err
    assert "whole job, about 52 s left" in shown
    assert "zoo:" in shown


def test_what_was_there_already_does_not_count_as_done_so_fast(clock):
    with (
        whole_job({"zoo": None}, enabled=True) as job,
        progress_bar(total=100, description="zoo", enabled=True) as bar,
    ):
        skip(bar, 80)
        assert job.left is None
        clock.now += 5
        bar.update(1)
        assert job.left == pytest.approx(5 * 19)


def test_a_part_that_never_comes_is_done_with_the_one_after_it(clock):
    with whole_job({"zoo": None, "optimise": 5.0, "verifiers": 7.0}, enabled=True) as job:
        with progress_bar(total=1, description="optimise", enabled=True):
            pass
        assert job.left == pytest.approx(7)


def test_other_bars_are_none_of_its_business(clock):
    with whole_job({"zoo": 9.0}, enabled=True) as job:
        with progress_bar(total=3, description="evaluate", enabled=True) as bar:
            clock.now += 50
            bar.update(1)
        assert job.left == pytest.approx(9)


def test_a_job_within_a_job_is_a_part_of_it(clock):
    with whole_job({"zoo": 1.0, "optimise": 2.0}, enabled=True) as outer:
        with whole_job({"optimise": 99.0}, enabled=True) as inner:
            assert inner is None
            with progress_bar(total=1, description="optimise", enabled=True):
                pass
        assert outer.left == 0
        assert in_whole_job()
    assert not in_whole_job()


@pytest.mark.parametrize("enabled", [None, False])
def test_it_is_silent_off_a_terminal(enabled, capfd):
    with whole_job({"zoo": 1.0}, enabled=enabled) as job:
        assert job is None
        with progress_bar(total=2, description="zoo", enabled=enabled) as bar:
            skip(bar, 1)
            bar.update(1)
            bar.set_postfix_str("family", refresh=False)
    assert capfd.readouterr().err == ""


def test_without_a_job_a_bar_is_tqdms_own_and_skips_as_well(capfd):
    with progress_bar(total=4, description="zoo", enabled=True) as bar:
        skip(bar, 2)
        assert (bar.n, bar.initial, bar.total) == (2, 2, 4)
    assert "zoo:" in capfd.readouterr().err


def test_a_job_ends_where_its_body_fails(clock):
    with pytest.raises(KeyError), whole_job({"zoo": 1.0}, enabled=True):
        raise KeyError("zoo")
    assert not in_whole_job()
