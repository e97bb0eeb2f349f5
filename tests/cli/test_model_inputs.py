"""Models with several inputs and outputs, other tasks and named classes on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from output_cases import MASK, classes, images, masks, vectors

from metav.cli.commands import main
from metav.cli.suspect_options import input_options
from metav.errors import InputError

MODELS = """
import torch
from torch import nn


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, mask, values, scale=1.0):
        scores = scale * self.body(values * mask)
        return {"logits": scores, "shifted": scores + 1.0}


def pixels():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
"""
SMALL = ("--positives", "14", "--negatives", "5", "--epochs", "1", "--queries", "8", "--target-fpr", "0.4", "--trained")


def call(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models_of_several.py").write_text(MODELS)
    np.savez(tmp_path / "data.npz", x=vectors(), y=np.array(["owl", "cat", "dog"])[classes()])
    np.savez(tmp_path / "pixels.npz", images=images(), masks=masks())
    np.save(tmp_path / "mask.npy", MASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_several_inputs_and_outputs_from_the_data_to_the_verdict(workplace):
    asked = ("--input", "values", "--input", "mask=mask.npy", "--input", "scale=2.0")
    command = ("fingerprint", "models_of_several:Several", "--data", "data.npz", "-o", "a.metav", *SMALL, *asked)
    refused = call(*command)
    assert (refused.exit_code, (workplace / "a.metav").exists()) == (2, False)
    assert "answers several tensors of shape (n, 3): logits (2, 3), shifted (2, 3)" in refused.stderr
    done = call(*command, "--model-output", "logits")
    assert done.exit_code == 0, done.stderr
    card = call("inspect", "a.metav", "--json")
    assert "classes          cat, dog, owl" in card.stderr
    assert json.loads(card.stdout)["task"]["class_names"] == ["cat", "dog", "owl"]
    verdict = call("verify", "a.metav", "models_of_several:Several", "--trained", "--json", *asked)
    assert verdict.exit_code in (0, 1, 3), verdict.stderr
    found = json.loads(verdict.stdout)
    assert found["score"] is not None
    assert found["class_names"] == ["cat", "dog", "owl"]
    assert "classes: cat, dog, owl" in verdict.stderr
    missing = call("verify", "a.metav", "models_of_several:Several", "--trained")
    assert missing.exit_code == 3
    assert 'input="mask"' in missing.stderr
    wrong = call("verify", "a.metav", "models_of_several:Several", "--trained", "--input", "x")
    assert wrong.exit_code == 2
    assert "Several has no input 'x'; expected one of mask, values, scale" in wrong.stderr


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pixels_are_a_task(workplace):
    data = ("--task", "segmentation", "--data", "pixels.npz", "-o", "b.metav")
    done = call("fingerprint", "models_of_several:pixels", *data, *SMALL)
    assert done.exit_code == 0, done.stderr
    assert "segmentation, inputs of 1x8x8, 192 outputs, read as relative" in done.stderr
    np.save("answers.npy", np.zeros((8, 3, 8, 8)))
    assert "the same answer to every query" in call("verify", "b.metav", "answers.npy").stderr


def test_too_many_queries_are_refused_before_anything_is_trained(workplace):
    arguments = ("fingerprint", "models_of_several:no_such", "--trained", "--data", "data.npz", "-o", "c.metav")
    refused = call(*arguments, "--queries", "400")
    assert refused.exit_code == 2
    assert "400 queries need 100 different natural inputs, and the task has 80" in refused.stderr


def test_constants_are_read_as_json_or_files(tmp_path):
    np.save(tmp_path / "a.npy", MASK)
    texts = (f"mask={tmp_path / 'a.npy'}", "scale=0.5", "cached=false", "ids=[[1, 2]]", "nothing=null")
    found = input_options(("values", *texts))
    assert found["input"] == "values"
    constants = found["constants"]
    assert np.array_equal(constants["mask"], MASK)
    assert np.array_equal(constants["ids"], [[1, 2]])
    rest = {name: constants[name] for name in ("scale", "cached", "nothing")}
    assert rest == {"scale": 0.5, "cached": False, "nothing": None}
    assert input_options(()) == {"input": None, "constants": {}}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("mask=fast", click.UsageError, "expected a number or a list such as"),
        ("mask=nowhere.npy", InputError, "there is no file nowhere.npy for the input mask"),
        ("mask=broken.npy", InputError, "broken.npy cannot be read"),
    ],
)
def test_constants_that_cannot_be_read_are_refused(text, error, message, tmp_path, monkeypatch):
    (tmp_path / "broken.npy").write_bytes(b"no array")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        input_options((text,))
