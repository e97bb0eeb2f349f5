"""The command line: what goes where, which exit code says what, and what is left behind when it fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from small_fingerprints import answers_with_logit, handmade
from small_models import digits
from torch import nn

import metav
from metav.cli.commands import main

MODELS = """
import sys
import torch
from torch import nn

print("this module prints when it is imported")


class Digits(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.head = nn.Linear(hidden, 10)
        self.body = nn.Linear(64, hidden)

    def forward(self, inputs):
        return self.head(torch.relu(self.body(inputs.flatten(1))))


def build():
    print("build prints too")
    return Digits()


def other():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 10))


def too_small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))


def client():
    def ask(queries):
        sys.stdout.write("asked\\n")
        return torch.load_is_not_needed(queries)
    return ask


def leaving():
    sys.exit(1)


class Leaving(nn.Module):
    def forward(self, inputs):
        sys.exit(1)


CONSTANT = 3
"""
SMALL = ("--positives", "14", "--negatives", "16", "--epochs", "8", "--learning-rate", "0.01", "--queries", "40")
NO_TORCH = """
import sys
from importlib.abc import MetaPathFinder


class NoTorch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")


sys.meta_path.insert(0, NoTorch())
from metav.cli import main
main()
"""


def shell(*arguments: object, code: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run metav as a user would: in a process of its own."""
    start = ["-c", code] if code else ["-m", "metav.cli"]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=cwd)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def leftovers(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: models by name, data, and the weights of an owner and of an independent model."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "models.py").write_text(MODELS)
    images, labels = digits()
    np.savez(folder / "data.npz", x=images[:400], y=labels[:400])
    task = metav.Classification(images[:400], labels[:400], epochs=8, learning_rate=1e-2)
    for seed, name in ((1, "owner"), (2, "independent")):
        torch.manual_seed(seed)
        model = nn.ModuleDict({"head": nn.Linear(24, 10), "body": nn.Linear(64, 24)})
        network = nn.Sequential(nn.Flatten(), model["body"], nn.ReLU(), model["head"])
        task.train(network, seed=seed)
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def made(workplace: Path) -> subprocess.CompletedProcess[str]:
    """The command that makes the fingerprint, run once for real, with two worker processes."""
    return shell(
        *("fingerprint", "models:build", "--weights", "owner.safetensors", "--data", "data.npz", "-o", "owner.metav"),
        *("--architecture", "models:other", "--bounds", "0", "1", "--jobs", "2", "--json", *SMALL),
        cwd=workplace,
    )


@pytest.fixture(scope="module")
def owner_file(made: subprocess.CompletedProcess[str], workplace: Path) -> Path:
    assert made.returncode == 0, made.stderr
    return workplace / "owner.metav"


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    """A hand-made fingerprint, whose score is known for known answers."""
    handmade().save(tmp_path / "simple.metav")
    return tmp_path / "simple.metav"


def answers(folder: Path, logit: float, name: str = "answers.npy") -> Path:
    path = folder / name
    np.save(path, answers_with_logit(handmade(), logit))
    return path


# Exit codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("logit", "code", "decision"), [(-2.0, 0, "NO_MATCH"), (2.0, 1, "MATCH")])
def test_the_process_ends_with_the_decision(simple, tmp_path, logit, code, decision):
    done = shell("verify", simple, answers(tmp_path, logit), "--json")
    assert done.returncode == code
    verdict = json.loads(done.stdout)
    assert verdict["decision"] == decision
    assert verdict["score"] == pytest.approx(float(handmade().calibration.score(logit)), abs=1e-5)
    assert done.stderr.startswith(f"{decision}: ")


def test_answers_that_cannot_be_scored_end_with_3(simple, tmp_path):
    wrong = answers_with_logit(handmade(), 0.0)
    wrong[1, 2] = np.nan
    np.save(tmp_path / "nan.npy", wrong)
    done = shell("verify", simple, tmp_path / "nan.npy", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["reason"] == "not_finite"


def test_a_truncated_fingerprint_ends_with_2_and_no_traceback(simple, tmp_path):
    simple.write_bytes(simple.read_bytes()[:-40])
    done = shell("verify", simple, answers(tmp_path, 2.0), "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {simple} is no intact zip file")


def test_wrong_usage_ends_with_4_in_a_process(simple):
    done = shell("verify", simple)
    assert (done.returncode, done.stdout) == (4, "")
    assert "Missing argument 'SUSPECT'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Usage: "),
        (("verfy",), "No such command 'verfy'"),
        (("inspect",), "Missing argument 'FINGERPRINT'"),
        (("inspect", "a.metav", "--jsn"), "No such option"),
        (("verify", "a.metav", "b.npy", "--batch-size", "0"), "0 is not in the range x>=1"),
        (("verify", "a.metav", "b.npy", "--weights", "w.safetensors"), "--weights and --trained go with pkg.module"),
        (("fingerprint", "m:b", "--data", "d.npz"), "Missing option '-o'"),
        (("fingerprint", "m:b", "--data", "d.npz", "-o", "o", "--task", "other"), "'other' is not one of"),
        (("fingerprint", "m:b", "--data", "d.npz", "-o", "o", "--task", "generation"), "needs --latent SIZE"),
        (("fingerprint", "m:b", "--data", "d.npz", "-o", "o", "--latent", "3"), "--latent is for --task generation"),
        (("demo", "--seed", "one"), "'one' is not a valid integer"),
    ],
)
def test_wrong_usage_ends_with_4(arguments, message):
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (4, "")
    assert message in done.stderr


@pytest.mark.parametrize("command", ["demo", "fingerprint", "inspect", "verify"])
def test_help_shows_each_command_and_ends_with_0(command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Usage: main {command} [OPTIONS]" in done.stdout
    assert command in call("--help").stdout


def test_help_explains_the_exit_codes_and_version_is_the_package_s():
    assert "3  inconclusive" in call("--help").stdout
    assert call("--version").stdout == f"metav, version {metav.__version__}\n"


# Without PyTorch -------------------------------------------------------------------------------------------------


def test_inspecting_and_verifying_recorded_answers_need_no_torch(simple, tmp_path):
    assert shell("inspect", simple, code=NO_TORCH).returncode == 0
    assert shell("verify", simple, answers(tmp_path, 2.0), code=NO_TORCH).returncode == 1


def test_what_a_folder_of_models_holds_is_told_without_torch(tmp_path):
    (tmp_path / "zoo.json").write_text(json.dumps({"models": {"zoo-0/prune/0": "a" * 64, "zoo-0/prune/1": "b" * 64}}))
    state = shell("zoo", "status", tmp_path, "--json", code=NO_TORCH)
    assert (state.returncode, json.loads(state.stdout)["missing"]) == (0, ["zoo-0/prune/0", "zoo-0/prune/1"])
    assert shell("cache", "list", tmp_path, code=NO_TORCH).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("demo",), ("fingerprint", "m:b", "--data", "d.npz", "-o", "owner.metav")],
    ids=["demo", "fingerprint"],
)
def test_what_needs_torch_says_how_to_get_it(tmp_path, arguments):
    done = shell(*arguments, code=NO_TORCH, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs" in done.stderr
    assert "pip install torch" in done.stderr
    assert leftovers(tmp_path) == []


# inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_tells_people_on_stderr_and_programs_on_stdout(simple):
    done = call("inspect", simple, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(handmade().to_json())
    assert handmade().commitment in done.stderr
    assert call("inspect", simple).stdout == ""


@pytest.mark.parametrize("name", ["queries.npy", "queries.npz"])
def test_inspect_writes_the_queries_as_they_are(simple, tmp_path, name):
    target = tmp_path / name
    assert call("inspect", simple, "--queries", target).exit_code == 0
    found = np.load(target)
    assert np.array_equal(found if name.endswith("y") else found["queries"], handmade().queries)
    assert leftovers(tmp_path) == sorted([name, "simple.metav"])


def test_inspect_overwrites_queries_only_when_told(simple, tmp_path):
    target = tmp_path / "queries.npy"
    target.write_text("mine")
    refused = call("inspect", simple, "--queries", target)
    assert (refused.exit_code, target.read_text()) == (2, "mine")
    assert "pass --force to overwrite it" in refused.stderr
    assert call("inspect", simple, "--queries", target, "--force").exit_code == 0
    assert np.load(target).shape == (6, 2, 2)


def test_recorded_answers_lead_to_the_models_own_verdict(owner_file, workplace, tmp_path, monkeypatch):
    call("inspect", owner_file, "--queries", tmp_path / "queries.npy")
    queries = torch.from_numpy(np.load(tmp_path / "queries.npy"))
    weights = {name: torch.tensor(value) for name, value in _weights(workplace / "owner.safetensors").items()}
    hidden = torch.relu(queries.flatten(1) @ weights["body.weight"].T + weights["body.bias"])
    recorded = (hidden @ weights["head.weight"].T + weights["head.bias"]).numpy()
    np.savetxt(tmp_path / "answers.csv", recorded, delimiter=",", header="recorded by hand", comments="")
    done = call("verify", owner_file, tmp_path / "answers.csv", "--json")
    assert done.exit_code == 1
    monkeypatch.chdir(workplace)
    asked = call("verify", owner_file, "models:build", "--weights", "owner.safetensors", "--json")
    assert json.loads(done.stdout)["score"] == pytest.approx(json.loads(asked.stdout)["score"], abs=1e-4)


def _weights(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


# fingerprint -----------------------------------------------------------------------------------------------------


def test_fingerprint_writes_the_file_it_describes(made, owner_file):
    described = json.loads(made.stdout)
    fp = metav.load(owner_file)
    assert described == json.loads(fp.to_json())
    assert fp.queries.shape == (40, 1, 8, 8)
    assert (fp.zoo["positives"], fp.zoo["negatives"]) == (14, 16)
    assert (fp.lower.min(), fp.upper.max()) == (0.0, 1.0)


def test_fingerprint_tells_people_what_it_made_and_warns_of_few_models(made, owner_file):
    fp = metav.load(owner_file)
    assert fp.commitment in made.stderr
    free = sum(fp.check["free_negatives"].values())
    assert f"14 derived, 16 independent, {free} free negatives\n" in made.stderr
    assert "warning: " in made.stderr
    assert "build the zoo with about --negatives " in made.stderr
    assert not re.search(r"^warning: .*\b(negatives|recipe)=", made.stderr, flags=re.MULTILINE)
    assert "this module prints when it is imported" in made.stderr


def test_a_dry_run_tells_the_cost_and_writes_nothing(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace)
    before = leftovers(workplace)
    model = ("fingerprint", "models:build", "--weights", "owner.safetensors", "--data", "data.npz")
    done = call(*model, *SMALL, "--jobs", "1", "--cache", tmp_path / "zoo", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["positives"], found["negatives"], found["queries"]) == (14, 16, 40)
    assert 0 < found["seconds"] < 600
    assert "measuring: finetune_all" in done.stderr
    assert "whole time" in done.stderr
    assert done.stderr.endswith("nothing was written\n")
    assert leftovers(workplace) == before
    assert leftovers(tmp_path) == []


def test_models_by_name_are_judged_with_their_weights(owner_file, workplace):
    for name, code in (("owner", 1), ("independent", 0)):
        weights = f"{name}.safetensors"
        done = shell("verify", owner_file, "models:build", "--weights", weights, "--json", cwd=workplace)
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["noise"] < 1e-3


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_weights_of_compiled_and_parallel_models_fit_the_plain_one(prefix, owner_file, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    weights = {
        f"{prefix}{name}": torch.tensor(value) for name, value in _weights(workplace / "owner.safetensors").items()
    }
    save_file(weights, "prefixed.safetensors")
    verdicts = [
        json.loads(call("verify", owner_file, "models:build", "--weights", f"{name}.safetensors", "--json").stdout)
        for name in ("owner", "prefixed")
    ]
    assert verdicts[0]["logit"] == verdicts[1]["logit"]
    misfit = call("verify", owner_file, "models:other", "--weights", "prefixed.safetensors", "--json")
    assert misfit.exit_code == 2
    assert "do not fit Sequential" in misfit.stderr
    (workplace / "prefixed.safetensors").unlink()


def test_a_suspect_of_another_task_is_inconclusive(owner_file, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    done = call("verify", owner_file, "models:too_small", "--trained", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["reason"] == "wrong_outputs"


def test_a_function_that_fails_is_inconclusive_and_its_prints_stay_off_stdout(owner_file, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    done = call("verify", owner_file, "models:client", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["reason"] == "failed"
    assert "asked" in done.stderr


def test_verify_draws_the_score(simple, tmp_path):
    picture = tmp_path / "score.png"
    assert call("verify", simple, answers(tmp_path, 2.0), "--plot", picture).exit_code == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_code_of_a_suspect_cannot_choose_the_exit_code(owner_file, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    leaving = call("verify", owner_file, "models:leaving")
    assert (leaving.exit_code, leaving.stdout) == (2, "")
    assert "models:leaving() fails (SystemExit: 1)" in leaving.stderr
    inside = call("verify", owner_file, "models:Leaving", "--trained")
    assert inside.exit_code in (2, 3)


def test_the_path_of_imports_is_left_as_it_was(owner_file, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    before = list(sys.path)
    call("verify", owner_file, "models:build", "--weights", "owner.safetensors")
    call("verify", owner_file, "models:nothing")
    assert sys.path == before


# What cannot be used ---------------------------------------------------------------------------------------------

OWNER = ("fingerprint", "models:build", "--weights", "owner.safetensors", "--data", "data.npz", "-o", "new.metav")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({1: "models"}, "'models' names no callable; expected pkg.module:build"),
        ({1: "no_such_module:build"}, "there is no module no_such_module"),
        ({1: "modles:build"}, "there is no module modles for modles:build (did you mean models?); run metav in"),
        ({1: "models:missing"}, "the module models has no missing; expected a function or class that returns a fresh"),
        ({1: "models:biuld"}, "the module models has no biuld (did you mean build?); expected"),
        ({2: "--trained", 3: "--recipe=models:biuld"}, "no biuld (did you mean build?); expected a function or class "),
        ({5: "table.csv"}, 'table.csv is no .npz file; expected one with the arrays "inputs" and "labels": read yours'),
        ({5: "owner.safetensors"}, "owner.safetensors is no .npz file"),
        ({1: "models:CONSTANT"}, "models:CONSTANT is a int, expected a callable"),
        ({1: "models:other"}, "it lacks 1.bias, 1.weight, 3.bias, 3.weight, and has no place for"),
        ({3: "nothing.safetensors"}, "there is no file nothing.safetensors"),
        ({3: "owner.pt"}, "owner.pt is no .safetensors file, and a file of any other kind may run code"),
        ({3: "broken.safetensors"}, "broken.safetensors cannot be read"),
        (
            {5: "nothing.npz"},
            'there is no file nothing.npz; expected an .npz file with the arrays "inputs" and "labels"',
        ),
        ({5: "nan.npz"}, "NaN"),
        ({5: "unlabelled.npz"}, "has no array of labels: it holds x; expected one named labels or y"),
        ({5: "twice.npz"}, "has several arrays that may be the inputs"),
        ({5: "single.npy"}, "single.npy holds one array without a name"),
        ({5: "pickled.npz"}, "pickled.npz cannot be read"),
        ({7: "no/such/folder/new.metav"}, "is no folder that you may write to"),
        ({7: "taken.metav"}, "taken.metav exists; choose another name, or pass --force"),
    ],
)
def test_what_cannot_be_used_ends_with_2_one_message_and_nothing_written(workplace, monkeypatch, changes, message):
    monkeypatch.chdir(workplace)
    _write_unusable(workplace)
    before = leftovers(workplace)
    done = call(*[changes.get(index, argument) for index, argument in enumerate(OWNER)])
    assert (done.exit_code, done.stdout) == (2, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert leftovers(workplace) == before
    assert (workplace / "taken.metav").read_text() == "mine"


def test_weights_of_another_size_are_told_by_name_and_size(tmp_path):
    from metav.cli.named_models import load_weights

    save_file(nn.Linear(4, 2).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(metav.ModelError, match=r"do not fit Linear: size mismatch for weight: .*\[2, 3\]\); pass the"):
        load_weights(nn.Linear(3, 2), str(tmp_path / "w.safetensors"))


def _write_unusable(folder: Path) -> None:
    images, labels = digits()
    few, named = images[:40].copy(), labels[:40]
    np.savez(folder / "unlabelled.npz", x=few)
    np.savez(folder / "twice.npz", x=few, inputs=few, y=named)
    np.savez(folder / "pickled.npz", x=np.array([{}, []], dtype=object), y=named)
    np.save(folder / "single.npy", few)
    np.savetxt(folder / "table.csv", few.reshape(40, -1), delimiter=",")
    few[3, 0, 2, 2] = np.nan
    np.savez(folder / "nan.npz", x=few, y=named)
    (folder / "owner.pt").write_bytes(b"\x80\x04")
    (folder / "broken.safetensors").write_bytes((folder / "owner.safetensors").read_bytes()[:-9])
    (folder / "taken.metav").write_text("mine")


def test_weights_are_asked_for_where_a_fresh_model_would_be_judged(owner_file, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    done = call("verify", owner_file, "models:build")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no --weights were given; pass a safetensors file, or --trained" in done.stderr


@pytest.mark.parametrize(
    ("suspect", "message"),
    [
        ("nothing.npy", "there is no file nothing.npy; expected recorded answers"),
        ("model.pt", "looks like a pickle"),
        ("https://example.org/model", "does not tell its protocol"),
        ("answers.txt", "has an unknown ending; expected an address"),
        ("answers.cvs", "has an unknown ending (did you mean .csv?); expected an address"),
        ("weights.safetensors", "pkg.module:build --weights FILE"),
        ("models.py", "name a function in it, as pkg.module:build"),
        ("owner.metav", "is a fingerprint, which is named before the suspect"),
    ],
)
def test_suspects_that_are_none_end_with_2(simple, suspect, message):
    done = call("verify", simple, suspect, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


# Regression and generation ---------------------------------------------------------------------------------------


def test_regression_and_generation_read_their_arrays(tmp_path, monkeypatch):
    from metav.cli.data_files import load_task

    images, _ = digits()
    np.savez(tmp_path / "regression.npz", X=images[:60], targets=images[:60].mean(axis=(1, 2, 3)))
    np.savez(tmp_path / "generation.npz", images=images[:60])
    regression = load_task(str(tmp_path / "regression.npz"), "regression", {"epochs": 3, "latent": None})
    assert (regression.name, regression.outputs, regression.epochs) == ("regression", 1, 3)
    generation = load_task(str(tmp_path / "generation.npz"), "generation", {"latent": 5})
    assert (generation.name, generation.outputs, generation.input_shape) == ("generation", 64, (5,))


# Stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_ends_with_130_and_says_how_to_continue(workplace, tmp_path):
    command = [sys.executable, "-m", "metav.cli", *OWNER[:-1], str(tmp_path / "new.metav")]
    command += ["--cache", str(tmp_path / "zoo"), "--epochs", "40"]
    running = subprocess.Popen(
        command,
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background ignores Ctrl-C, and its children would too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "zoo").glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stdout) == (130, "")
    assert f"run the same command again to continue from {tmp_path / 'zoo'}" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "new.metav").exists()
