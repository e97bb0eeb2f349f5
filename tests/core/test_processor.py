"""Instruction sets and threads: same results, whatever is chosen, and errors that say what may be chosen."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metav
from metav import _core


@pytest.fixture(autouse=True)
def restore_threads():
    before = metav.get_num_threads()
    yield
    metav.set_num_threads(before)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with METAV_* and OMP_NUM_THREADS as given, and nothing else of them."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("METAV_") and k != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**clean, **environment}
    )


def run_steps(kind: str, view: str, models: int, queries: int, outputs: int, hidden: int) -> list[bytes]:
    """Loss, gradient, parameters, scores and queries of a few steps with every augmentation, as bytes."""
    generator = np.random.default_rng(0)
    responses = generator.normal(size=(models, queries, outputs)).astype(np.float32)
    verifier = _core.Verifier(kind, queries, outputs, view=view, hidden=hidden, seed=1)
    verifier.standardize(responses)
    if kind == "matched":
        verifier.fit_closed_form(responses[0], responses)
    gradient = np.empty_like(responses)
    roles = bytes(m % 3 for m in range(models))
    losses = [
        verifier.step(responses, roles, gradient=gradient, mix=0.5, noise=0.1, dropout=0.2, weight_decay=0.01)
        for _ in range(3)
    ]
    natural = responses[:, 0].copy()
    optimizer = _core.QueryOptimizer(natural, natural.min(axis=0), natural.max(axis=0), radius=0.1, levels=256)
    moved = np.empty_like(natural)
    optimizer.update(natural, moved)
    parameters = verifier.parameters()
    arrays = [gradient, verifier.scores(responses), verifier.logits(responses), moved, *parameters.values()]
    return [str(losses).encode(), *(array.tobytes() for array in arrays)]


@pytest.mark.parametrize("view", ["logprob", "relative", "tempered"])
@pytest.mark.parametrize("kind", ["mlp", "local", "matched"])
@pytest.mark.parametrize("shape", [(3, 40, 500, 70), (70, 100, 40, 33), (130, 3, 700, 128)])
def test_results_are_the_same_bit_for_bit_for_any_number_of_threads(view, kind, shape):
    metav.set_num_threads(1)
    alone = run_steps(kind, view, *shape)
    for threads in (2, 3, 8):
        metav.set_num_threads(threads)
        assert run_steps(kind, view, *shape) == alone


@pytest.mark.parametrize("isa", metav.cpu_info().isas)
def test_a_view_of_all_rows_is_the_same_on_every_instruction_set(isa, tmp_path):
    """In the rows' whole vectors and in what is left over of them; test_views compares the set in use with float64."""
    code = """
import numpy as np
from metav import _core
found = []
for outputs in (2, 3, 10, 33, 129):
    logits, weights = np.random.default_rng(outputs).normal(size=(2, 2, 5, outputs)).astype(np.float32)
    for responses in (logits, np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)):
        for view in ("relative", "tempered"):
            found += [_core.apply_view(responses, view), _core.view_gradient(responses, weights, view)]
np.save(PATH, np.concatenate([array.ravel() for array in found]))
"""
    paths = [tmp_path / "chosen.npy", tmp_path / "usual.npy"]
    for path, environment in zip(paths, ({"METAV_ISA": isa}, {}), strict=True):
        ran = run(code.replace("PATH", repr(str(path))), **environment)
        assert ran.returncode == 0, ran.stderr
    chosen, usual = map(np.load, paths)
    np.testing.assert_allclose(chosen, usual, rtol=1e-5, atol=1e-6)


@given(
    models=st.integers(1, 40),
    queries=st.integers(1, 30),
    outputs=st.integers(2, 40),
    hidden=st.integers(1, 80),
    threads=st.integers(2, 5),
)
@settings(deadline=None, max_examples=40)
def test_a_model_scores_the_same_alone_and_among_others(models, queries, outputs, hidden, threads):
    responses = np.random.default_rng(1).normal(size=(models, queries, outputs)).astype(np.float32)
    verifier = _core.Verifier("mlp", queries, outputs, view="logprob", hidden=hidden)
    metav.set_num_threads(threads)
    together = verifier.logits(responses)
    alone = [verifier.logits(responses[m : m + 1])[0] for m in range(models)]
    np.testing.assert_array_equal(together, alone)


def test_cpu_info_tells_what_is_used():
    info = metav.cpu_info()
    assert info.isa in info.isas
    assert info.isas[-1] == "generic"
    assert 1 <= info.cpus <= (os.cpu_count() or 1)
    metav.set_num_threads(7)
    assert metav.cpu_info().threads == 7
    assert json.loads(json.dumps(metav.cpu_info().to_dict()))["threads"] == 7


@pytest.mark.parametrize("isa", metav.cpu_info().isas)
def test_the_environment_chooses_the_instruction_set(isa):
    ran = run("import metav; print(metav.cpu_info().isa)", METAV_ISA=isa)
    assert ran.stdout.strip() == isa, ran.stderr


def test_the_environment_chooses_the_threads():
    code = "import metav; print(metav.get_num_threads())"
    assert run(code, METAV_NUM_THREADS="3", OMP_NUM_THREADS="1").stdout.strip() == "3"
    assert run(code, OMP_NUM_THREADS="1").stdout.strip() == "1"
    cpus = str(metav.cpu_info().cpus)
    assert run(code, OMP_NUM_THREADS="4,2").stdout.strip() == cpus
    assert run(code).stdout.strip() == cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_limits_the_threads():
    cpu = min(os.sched_getaffinity(0))
    ran = run(f"import os; os.sched_setaffinity(0, [{cpu}]); import metav; print(metav.get_num_threads())")
    assert ran.stdout.strip() == "1", ran.stderr


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("METAV_ISA", "mmx", "METAV_ISA is 'mmx', but this processor has "),
        ("METAV_NUM_THREADS", "0", "METAV_NUM_THREADS is '0'; set a whole number from 1 to 256, or unset it"),
        ("METAV_NUM_THREADS", "two", "METAV_NUM_THREADS is 'two'"),
        ("METAV_NUM_THREADS", "99999999999999999999", "METAV_NUM_THREADS is '9999"),
    ],
)
def test_nonsense_in_the_environment_is_an_import_error_that_says_so(name, value, part):
    ran = run("import metav._core", **{name: value})
    assert ran.returncode == 1
    assert f"ImportError: {part}" in ran.stderr


@pytest.mark.parametrize("threads", [0, -1, 257, 1 << 70])
def test_impossible_numbers_of_threads_are_refused(threads):
    with pytest.raises((ValueError, OverflowError), match="threads"):
        metav.set_num_threads(threads)


def test_a_number_of_threads_must_be_a_number():
    with pytest.raises(TypeError, match="threads"):
        metav.set_num_threads("2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_works_after_the_pool_has_started():
    code = """
import os, sys
import numpy as np, metav
from metav import _core
metav.set_num_threads(3)
responses = np.random.default_rng(0).normal(size=(60, 100, 50)).astype(np.float32)
def step():
    verifier = _core.Verifier("mlp", 100, 50, hidden=64)
    verifier.step(responses, bytes(60 * [0, 1][:1]), learning_rate=0.1)
    return verifier.scores(responses).tobytes()
before = step()
child = os.fork()
if child == 0:
    os._exit(0 if step() == before else 1)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status) or step() != before)
"""
    assert run(code).returncode == 0


def test_arithmetic_with_subnormal_numbers_is_as_before_a_call():
    metav.set_num_threads(2)
    run_steps("mlp", "identity", 60, 100, 30, 64)
    assert np.float32(1e-39) / np.float32(2) > 0
