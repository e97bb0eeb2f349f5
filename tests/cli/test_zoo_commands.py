"""`metav zoo`: parts of the surrogates by jobs of their own, and the fingerprint from what they left."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from small_trainings import arrays

import metav
from metav.cli.commands import main

MODELS = """
import numpy, torch
from small_trainings import Network, by_hand

def build():
    return by_hand(3)

def train(seed):
    return by_hand(seed)
"""
BASE = [
    *("models:build", "--trained", "--data", "data.npz", "--positives", "14", "--negatives", "6", "--epochs", "1"),
    *("--recipe", "models:train", "--jobs", "1", "--no-progress"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "models", raising=False)
    (tmp_path / "models.py").write_text(MODELS)
    inputs, labels = arrays()
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=labels)
    yield tmp_path
    sys.modules.pop("models", None)


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_fingerprint_of_parts_is_that_of_one_command(here):
    make = ["fingerprint", *BASE, "--queries", "8", "--target-fpr", "0.4"]
    first = run("zoo", "train", *BASE, "--zoo", "zoo", "--part", "1/2", "--json")
    assert first.exit_code == 0, first.stderr
    state = json.loads(first.stdout)
    assert (state["planned"], state["trained"], len(state["missing"])) == (20, 10, 10)
    early = run(*make, "--zoo", "zoo", "-o", "early.metav")
    assert early.exit_code == 2
    assert "holds 10 of 20 models" in early.stderr
    assert not (here / "early.metav").exists()
    assert run("zoo", "train", *BASE, "--zoo", "zoo", "--part", "2/2").exit_code == 0
    shown = run("zoo", "status", "zoo")
    assert (shown.exit_code, shown.stderr) == (0, "zoo holds 20 of 20 models\n")
    assert run(*make, "--zoo", "zoo", "-o", "parts.metav").exit_code == 0
    assert run(*make, "-o", "whole.metav").exit_code == 0
    assert metav.load("parts.metav").commitment == metav.load("whole.metav").commitment


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["zoo", "train", *BASE, "--zoo", "zoo", "--part", "3/2"], 4, "a part must be i/n"),
        (["zoo", "train", *BASE], 4, "Missing option '--zoo'"),
        (["zoo", "status", "nowhere"], 2, "holds no zoo.json"),
        (["fingerprint", *BASE, "-o", "o.metav", "--zoo", "a", "--cache", "b"], 4, "give one of the two"),
        (["fingerprint", *BASE, "-o", "o.metav", "--zoo", "nowhere"], 2, "run metav zoo train"),
    ],
)
def test_what_cannot_be_done_is_said(here, arguments, code, message):
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert sorted(path.name for path in here.iterdir() if path.suffix != "") == ["data.npz", "models.py"]


def test_the_options_are_those_of_the_fingerprint(here):
    help_text = run("zoo", "train", "--help").stdout
    own = run("fingerprint", "--help").stdout
    for option in ("--weights", "--recipe", "--positives", "--architecture", "--levels", "--input", "--seed", "--jobs"):
        assert option in help_text
        assert option in own
    for option in ("--queries", "--target-fpr", "--view", "--cache", "--output", "--dry-run"):
        assert option not in help_text


def test_an_option_of_both_commands_is_the_same_option():
    zoo, fingerprint = (
        {parameter.name: parameter.to_info_dict() for parameter in command.params}
        for command in (main.commands["zoo"].commands["train"], main.commands["fingerprint"])
    )
    own = {"folder", "part"}
    assert {name: zoo[name] for name in {*zoo} - own} == {name: fingerprint[name] for name in {*zoo} - own}
    assert {*fingerprint} - {*zoo} == {
        *("output", "force", "queries", "target_fpr", "view", "cache", "zoo", "dry_run"),
    }
