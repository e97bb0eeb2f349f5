"""Locks and changes of process-wide state: right in several threads, and in the child of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from metav.support.locks import ForkSafeLock
from metav.support.shared_changes import SharedChange


def test_one_thread_at_a_time_and_the_same_one_again(eager_threads):
    lock, inside, most = ForkSafeLock(), [], []

    def work(number: int) -> None:
        for _ in range(200):
            with lock, lock:
                inside.append(number)
                most.append(len(inside))
                inside.pop()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert max(most) == 1
    assert lock.acquire(timeout=0)
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(lock.acquire, timeout=0.01).result()
    lock.release()


def test_a_change_is_made_by_the_first_and_undone_by_the_last_of_all_threads(eager_threads):
    state, undone = ["usual"], []

    def make() -> str:
        before, state[0] = state[0], "changed"
        return before

    def undo(before: str) -> None:
        state[0] = before
        undone.append(before)

    change, start = SharedChange(make, undo), threading.Barrier(6)

    def work(_: int) -> bool:
        start.wait()
        right = True
        for _ in range(200):
            with change.lasting():
                with change.lasting():
                    right &= state[0] == "changed"
                right &= state[0] == "changed"
        return right

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    assert state == ["usual"]
    assert set(undone) == {"usual"}
    assert not change.is_made


FORKED = """
import os, sys, threading
from metav.support.locks import ForkSafeLock
from metav.support.shared_changes import SharedChange
import metav.support.randomness, time
lock, state = ForkSafeLock(), ["usual"]
change = SharedChange(lambda: state.pop() or "", state.append)
inside, leave = threading.Event(), threading.Event()
def hold():
    with lock, change.lasting():
        inside.set()
        leave.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
own = sys.argv[1] == "own"
if own:
    change.enter()
child = os.fork()
if child == 0:
    right = lock.acquire(timeout=5) and change.is_made is own and state == ([] if own else ["usual"])
    if own:
        change.leave()
        right = right and state == ["usual"]
    os._exit(0 if right else 1)
leave.set()
thread.join()
if own:
    change.leave()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or state != ["usual"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("forking_thread", ["own", "apart"])
def test_what_another_thread_held_is_free_and_undone_in_a_forked_child(forking_thread):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FORKED, forking_thread], env=environment, timeout=60, check=False)
    assert done.returncode == 0
