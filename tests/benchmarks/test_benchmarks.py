"""The speed benchmarks: each script runs, prints its rows, and refuses sides that do not compute the same."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parent
QUICK = ("--threads", "1", "--repeats", "1", "--minimum-seconds", "0", "--maximum-seconds", "0.05")
KEYS = {"case", "threads", "rival", "metav_ms", "torch_ms", "ratio", "wanted"}
BY_HAND = {"by_hand", "by_hand_ms", "by_hand_ratio"}


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / script), *QUICK, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_consistent(row: dict[str, object]) -> None:
    assert row["metav_ms"] > 0
    assert row["ratio"] == pytest.approx(row["torch_ms"] / row["metav_ms"], rel=2e-3)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    return {name: importlib.import_module(name) for name in ("cuda_models", "joint_step", "step_sides", "timing")}


def test_joint_step_prints_one_row_for_each_case() -> None:
    rows = rows_of(run("joint_step.py", "--json", "--case", "3x20x4", "--case", "2x784x5"))
    assert [row["case"] for row in rows] == ["3x20x4", "2x784x5"]
    for row in rows:
        assert set(row) == KEYS | BY_HAND
        assert row["threads"] == 1
        assert_consistent(row)


def test_sweep_ends_with_the_worst_case() -> None:
    *rows, summary = rows_of(run("joint_step.py", "--json", "--sweep", "--case", "1x10x16", "--case", "5x100x3"))
    assert [row["case"] for row in rows] == ["1x10x16", "5x100x3"]
    worst = min(rows, key=lambda row: row["ratio"])
    assert (summary["worst_case"], summary["worst_ratio"]) == (worst["case"], worst["ratio"])
    assert summary["worst_by_hand_ratio"] == min(row["by_hand_ratio"] for row in rows)
    assert summary["slower"] == sum(row["ratio"] < 1 for row in rows)


def test_scoring_prints_the_score_and_the_update() -> None:
    rows = rows_of(run("scoring.py", "--json", "--queries", "4", "--hidden", "3"))
    assert [row["case"] for row in rows] == ["score 1x40x3", "score 1x40x3", "score 1x40x3", "update 4x3x32x32"]
    assert [row["rival"] for row in rows[:3]] == ["module", "traced module", "by hand"]
    for row in rows:
        assert set(row) == KEYS
        assert_consistent(row)


def test_the_default_output_is_a_table() -> None:
    done = run("scoring.py", "--queries", "2", "--hidden", "2")
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["case", "threads", "rival", "metav_ms", "torch_ms", "ratio", "wanted"]
    assert len(lines) == 4


@pytest.mark.parametrize("case", ["3x20", "3x21x4", "0x20x4", "axbxc"])
def test_a_malformed_case_is_a_usage_error(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["joint_step.py", *QUICK, "--case", case])
    with pytest.raises(SystemExit, match="2"):
        scripts["joint_step"].main()


def test_check_fails_only_where_a_ratio_is_missed(scripts: dict[str, ModuleType]) -> None:
    timing = scripts["timing"]
    medians = {"metav": 1e-3, "autograd": 2e-3}
    reached, missed = (timing.comparison("a", medians, "autograd", wanted) for wanted in (2.0, 2.1))
    assert timing.misses([reached, missed]) == [missed]


@pytest.mark.parametrize("view", ["identity", "logprob"])
@pytest.mark.parametrize("outputs", [2, 10, 80])
def test_all_rivals_compute_the_same_step(scripts: dict[str, ModuleType], view: str, outputs: int) -> None:
    sides = scripts["step_sides"]
    case = sides.Case(models=7, responses=4 * outputs, hidden=5, outputs=outputs, view=view)
    scripts["joint_step"].check_rivals(case)


@pytest.mark.parametrize("name", ["weight1", "bias2", "shift"])
def test_sides_with_other_parameters_disagree(scripts: dict[str, ModuleType], name: str) -> None:
    sides, joint_step, timing = scripts["step_sides"], scripts["joint_step"], scripts["timing"]
    case = sides.Case(models=6, responses=30, hidden=4, outputs=10, view="logprob")
    problem = sides.make_problem(case, 1e-3)
    ours = sides.MetavSide(problem)
    problem.parameters[name] = problem.parameters[name] + 0.01
    for make in sides.RIVALS.values():
        with pytest.raises(timing.Disagreement):
            joint_step.check_agreement(ours, make(problem))


def test_another_learning_rate_is_noticed(scripts: dict[str, ModuleType]) -> None:
    sides, joint_step, timing = scripts["step_sides"], scripts["joint_step"], scripts["timing"]
    case = sides.Case(models=6, responses=30, hidden=4, outputs=10, view="logprob")
    ours, theirs = (sides.make_problem(case, rate) for rate in (1e-3, 2e-3))
    with pytest.raises(timing.Disagreement, match="second step"):
        joint_step.check_agreement(sides.MetavSide(ours), sides.AutogradSide(theirs))


def test_not_a_number_is_no_agreement(scripts: dict[str, ModuleType]) -> None:
    timing = scripts["timing"]
    error = timing.relative_error(torch.full((2, 3), float("nan")), torch.ones(2, 3))
    with pytest.raises(timing.Disagreement):
        timing.require_agreement("numbers", error)


SMALL = ("--width", "2", "--images", "120", "--epochs", "0.2", "--surrogates", "5", "--queries", "6", "--steps", "2")
CASES = ["train a zoo of 10 models", "joint step, 6 queries", "verify a suspect, 6 queries"]


def cuda_models(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "cuda_models.py"), *SMALL, "--repeats", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_models_on_cuda_are_skipped_with_the_reason_where_there_is_none() -> None:
    done = cuda_models()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("skipped: PyTorch ")
    assert "no CUDA device" in done.stdout


@pytest.mark.slow
def test_models_on_the_cpu_alone_are_measured() -> None:
    rows = rows_of(cuda_models("--on-cpu-alone", "--json"))
    assert [row["case"] for row in rows] == CASES
    assert all(set(row) == {"case", "cpu_ms"} and row["cpu_ms"] > 0 for row in rows)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_models_on_cuda_are_measured_beside_the_cpu() -> None:
    done = cuda_models("--json")
    rows = rows_of(done)
    assert [row["case"] for row in rows] == [CASES[0], f"{CASES[0]} in bfloat16", *CASES[1:]]
    assert torch.cuda.get_device_name() in done.stderr
    for row in rows:
        assert row["ratio"] == pytest.approx(row["cpu_ms"] / row["cuda_ms"], rel=2e-3)


def test_rows_hold_both_sides_and_bfloat16_is_beside_full_precision(scripts: dict[str, ModuleType]) -> None:
    here = SimpleNamespace(seconds={"a zoo": 4.0, "verify": 0.5})
    there = SimpleNamespace(seconds={"a zoo": 2.0, "a zoo in bfloat16": 1.0, "verify": 1.0})
    rows = scripts["cuda_models"].rows_of(here, there)
    assert [(row["case"], row["cpu_ms"], row["cuda_ms"], row["ratio"]) for row in rows] == [
        ("a zoo", 4000, 2000, 2),
        ("a zoo in bfloat16", 4000, 1000, 4),
        ("verify", 500, 1000, 0.5),
    ]


def test_devices_that_answer_otherwise_are_not_compared(scripts: dict[str, ModuleType]) -> None:
    answers = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    scripts["cuda_models"].check_agreement(answers, answers + 1e-4)
    for other in (answers + 1.0, torch.full_like(answers, float("nan"))):
        with pytest.raises(scripts["timing"].Disagreement, match="differ"):
            scripts["cuda_models"].check_agreement(answers, other)
