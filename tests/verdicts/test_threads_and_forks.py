"""A fingerprint is shared between threads, and goes on in the child of a fork, whatever other threads were at."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_fingerprints import handmade, handmade_task, rule_of

import metav
from metav import _core
from metav.fingerprints.fingerprint import Fingerprint
from metav.statistics.calibration_models import CalibrationModels
from metav.verifiers.meta_verifier import Member, MetaVerifier

QUERIES, OUTPUTS, THREADS, ROUNDS = 100, 20, 8, 50


def large() -> Fingerprint:
    """A fingerprint whose verifiers work for long enough to be found at work by another thread."""
    generator = np.random.default_rng(0)
    responses = generator.normal(size=(56, QUERIES, OUTPUTS)).astype(np.float32)
    verifier = _core.Verifier("mlp", QUERIES, OUTPUTS, hidden=64)
    verifier.standardize(responses)
    member = Member(name="mlp:all", verifier=verifier, start=0, stop=QUERIES, weight=1.0, center=0.0, spread=1.0)
    models = CalibrationModels(
        responses=responses,
        derived=np.arange(56) < 4,
        free=np.arange(56) >= 54,
        families=("noise",) * 4 + ("independent",) * 50 + ("free_constant",) * 2,
        parts=np.zeros(56),
    )
    members = MetaVerifier((member,))
    return handmade(
        task=handmade_task(outputs=OUTPUTS),
        queries=generator.normal(size=(QUERIES, 2, 2)),
        adaptive=QUERIES,
        truth=None,
        meta_verifier=members,
        calibration_models=models,
        calibration=rule_of(members, models, 0.05),
    )


WEIGHTS = np.random.default_rng(1).normal(size=(4, OUTPUTS)).astype(np.float32)


def suspect(queries: np.ndarray) -> np.ndarray:
    return np.tanh(np.asarray(queries).reshape(len(queries), 4) @ WEIGHTS)


def score(fp: Fingerprint) -> float | None:
    return metav.verify(fp, suspect, accepts="numpy").score


def test_nothing_fails_where_many_threads_use_one_fingerprint(tmp_path, eager_threads):
    """1,600 verdicts, evaluations, commitments and files, each as alone."""
    alone, fp = large(), large()
    alone.save(tmp_path / "alone.metav")
    expected = (score(alone), alone.commitment, (tmp_path / "alone.metav").read_bytes())

    def use(thread: int) -> list[object]:
        path, found = tmp_path / f"{thread}.metav", []
        for _ in range(ROUNDS):
            fp._commitments.clear()  # worked out anew each time
            evaluation = metav.evaluate(fp, [(suspect, True, "a"), (suspect, False, "b")])
            fp.save(path)
            found.append((score(fp), fp.commitment, path.read_bytes()))
            assert [result.score for result in evaluation.results] == [expected[0]] * 2
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        results = [entry for found in pool.map(use, range(THREADS)) for entry in found]
    assert len(results) == THREADS * ROUNDS
    assert all(entry == expected for entry in results)


FORKED = """
import os, signal, sys, threading
sys.path[:0] = sys.argv[1:]
import numpy, metav
from test_threads_and_forks import large, score
fp = large()
expected = score(fp), fp.commitment
many = numpy.tile(fp.calibration_models.responses, (20, 1, 1))
stop = threading.Event()
def work():
    while not stop.is_set():
        fp.logits(many), fp.commitment, score(fp)
        fp.accesses.clear()
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
results = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        fp._commitments.clear()
        os._exit(0 if (score(fp), fp.commitment) == expected else 1)
    results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(results)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_verifies_while_other_threads_of_its_parent_do():
    here = Path(__file__).parent
    # OpenBLAS with threads of its own hangs a fork while another thread multiplies, with NumPy alone as well
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FORKED, str(here), str(here.parent / "helpers")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == str([0] * 20)
