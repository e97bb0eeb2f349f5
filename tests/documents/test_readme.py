"""README: its code runs as it stands, in order, and its commands are what the checks rely on."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from page_code import ROOT, PageRun, blocks_of, check_options, commands_of, run_page
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

import metav
from metav import cli
from metav.support.randomness import isolated_rng

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [block.text for block in blocks_of(README) if block.language == language]


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def users_own() -> dict[str, object]:
    """What the README takes for granted: a trained model, its data, a suspect, and a client of a remote model."""
    bundle = load_digits()
    images, labels = (bundle.images[:500, None] / 16).astype(np.float32), bundle.target[:500]
    task = metav.Classification(images, labels)

    def train(seed: int) -> nn.Module:
        with isolated_rng(seed):
            model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        order = torch.Generator().manual_seed(seed)
        for _ in range(12):
            for rows in torch.randperm(len(images), generator=order).split(50):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(
                    model(torch.from_numpy(images)[rows]), torch.from_numpy(labels)[rows]
                )
                loss.backward()
                optimizer.step()
        return model.eval()

    model = train(0)
    suspect = metav.obfuscations.finetune_all(model, task, strength=0.3, seed=1)
    client = LogisticRegression(max_iter=300).fit(images.reshape(len(images), -1), labels)
    return {"model": model, "train": train, "images": images, "labels": labels, "suspect": suspect, "client": client}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """The names after all Python blocks ran in order, and the folder in which they did."""
    folder = tmp_path_factory.mktemp("readme")
    start = PageRun(names=users_own(), folder=tmp_path_factory.mktemp("start"))
    return run_page(ROOT / "README.md", folder, start, languages=("python",)).names, folder


def test_the_python_code_runs_and_does_what_the_text_says(ran):
    names, folder = ran
    assert metav.verify(folder / "owner.metav", names["suspect"]).decision == "MATCH"
    assert names["verdict"].suspect == "callable <lambda>"
    assert names["verdict"].decision == "NO_MATCH"
    assert names["evaluation"].auc > 0.9
    assert (folder / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "zoo").iterdir())


def test_the_numbers_of_surrogates_in_the_text_are_the_defaults(ran):
    names, _ = ran
    found = names["fp"].zoo
    assert f"trains {found['positives']} derived and {found['negatives']} independent surrogates" in README


def test_the_number_of_obfuscations_in_the_text_is_right():
    assert len(metav.obfuscations.OBFUSCATIONS) == 14
    assert "in fourteen ways" in README


def test_the_queries_can_be_sent_and_the_answers_verified_as_shown(ran, tmp_path):
    names, folder = ran
    commands = re.findall(
        r"^\$ metav (inspect|verify) owner\.metav (--queries .*|answers.*)$", README, flags=re.MULTILINE
    )
    assert [command for command, _ in commands] == ["inspect", "verify"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert CliRunner().invoke(cli.main, ["inspect", "owner.metav", *commands[0][1].split()]).exit_code == 0
        queries = torch.from_numpy(np.load("queries.npy"))
        np.savetxt("answers.csv", names["model"](queries).detach().numpy(), delimiter=",")
        assert CliRunner().invoke(cli.main, ["verify", "owner.metav", *commands[1][1].split()]).exit_code == 1


def test_the_log_of_the_text_s_run_is_as_the_text_says(ran, tmp_path):
    names, folder = ran
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = next(line for block in blocks("console") for line in block.splitlines() if "metav log verify" in line)
        assert CliRunner().invoke(cli.main, command.split()[2:]).exit_code == 0
        checked = CliRunner().invoke(cli.main, ["log", "verify", "run.db", "--head", names["verdict"].asking.head])
        assert checked.exit_code == 0
    assert names["verdict"].asking.sent <= 500


def test_the_form_goes_out_and_comes_back_as_shown(ran):
    names, folder = ran
    export, back = (
        next(line.split()[2:] for block in blocks("console") for line in block.splitlines() if part in line)
        for part in ("queries export", "--recorded")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert CliRunner().invoke(cli.main, export).exit_code == 0
        with np.load("queries/queries.npz") as arrays:
            rows = names["model"](torch.from_numpy(arrays["inputs"])).detach().numpy()
            table = np.column_stack([arrays["query"], rows])[::-1]
        heading = Path("queries/answers.csv").read_text().splitlines()[0]
        lines = [",".join([str(int(row[0])), *map(repr, map(float, row[1:]))]) for row in table]
        Path("filled.csv").write_text("\n".join([heading, *lines]))
        assert CliRunner().invoke(cli.main, back).exit_code == 1


def test_every_option_in_the_text_exists():
    for command, _ in (entry for block in blocks("console") for entry in commands_of(block)):
        words = shlex.split(command)
        assert words[0] == "metav"
        check_options(words)


def test_the_first_command_installs_and_shows_it():
    assert blocks("sh")[0].splitlines()[-1] == "metav demo"
    assert ".[demo]" in blocks("sh")[0]


def test_the_second_command_makes_the_environment_that_the_checks_go_on_with():
    command = blocks("sh")[1].splitlines()
    assert command[0] == "python3.11 -m venv .venv"
    assert command[-1].partition("#")[0].split() == [
        *("pytest", "-q", "-ra", "-m", '"not', 'slow"'),
        *("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"),
    ]
    assert [line.split()[2] for line in command if line.startswith("pip")] == ["torch==2.13.0", "-e"]


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_are_valid_shell(number):
    assert subprocess.run(["bash", "-n"], input=blocks("sh")[number], text=True).returncode == 0


def test_nobody_is_told_to_install_another_project():
    texts = [README, (ROOT / "CONTRIBUTING.md").read_text(), *(path.read_text() for path in ROOT.glob("metav/*.py"))]
    assert not [text for text in texts if re.search(r"pip install ['\"]?metav(?!-fingerprint)\b", text)]


def test_links_and_pictures_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]
