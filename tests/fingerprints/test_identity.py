"""What must stay as it was: fingerprints of earlier versions, and the identities that go into them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import metav
from metav.models.identity import architecture_identity, source_identity, state_digest
from metav.zoo.training import identity_of

FOLDER = Path(__file__).with_name("metav_0_1_0")
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NAMES = ("classification", "regression", "generation")

SCORED = """
import json, sys
import numpy, metav
folder, found = sys.argv[1], {}
for name in sys.argv[2:]:
    fp = metav.load(f"{folder}/{name}.metav")
    responses = numpy.load(f"{folder}/{name}_responses.npy")
    found[name] = {
        "logits": [float(value).hex() for value in fp.logits(responses)],
        "scores": [float(value).hex() for value in fp.scores(responses)],
    }
print(json.dumps(found))
"""


def test_a_fingerprint_of_0_1_0_scores_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAV_ISA", "generic")  # it sums alike on every processor
    done = subprocess.run(
        [sys.executable, "-c", SCORED, str(FOLDER), *NAMES], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    wanted = {name: {key: EXPECTED[name][key] for key in ("logits", "scores")} for name in NAMES}
    assert json.loads(done.stdout) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_fingerprint_of_0_1_0_keeps_its_commitment_rule_and_bytes(name: str, tmp_path: Path) -> None:
    path = FOLDER / f"{name}.metav"
    fp = metav.load(path)
    assert fp.commitment == EXPECTED[name]["commitment"]
    assert fp.versions["metav"] == EXPECTED["metav"] == "0.1.0"
    fp.save(tmp_path / "again.metav")
    assert (tmp_path / "again.metav").read_bytes() == path.read_bytes()
    logit = float(fp.logits(np.load(FOLDER / f"{name}_responses.npy")[:1])[0])
    assert (logit >= fp.calibration.threshold) == (EXPECTED[name]["decision"] == "MATCH")
    assert fp.calibration.p_value(logit) == EXPECTED[name]["p_value"]


@pytest.mark.parametrize("name", NAMES)
def test_a_fingerprint_of_0_1_0_can_be_inspected_but_gives_no_verdict(name: str) -> None:
    fp = metav.load(FOLDER / f"{name}.metav")
    assert fp.format_version == 1
    assert json.loads(fp.to_json())["format_version"] == 1
    assert fp.commitment in fp._repr_html_()

    def asked(queries: np.ndarray) -> np.ndarray:
        raise AssertionError("nobody is asked in vain")

    verdict = metav.verify(fp, asked, accepts="numpy")
    assert (verdict.decision, verdict.reason) == ("INCONCLUSIVE", "old_format")
    assert (verdict.score, verdict.p_value, verdict.logit) == (None, None, None)
    assert verdict.message is not None
    assert "accuse honest models" in verdict.message
    assert "make it again from the owner's model" in verdict.message
    assert verdict.commitment == fp.commitment


def test_tasks_have_the_digests_of_0_1_0() -> None:
    """They stand in every fingerprint, and hold it to its task."""
    scope = runpy.run_path(str(FOLDER / "make_fingerprints.py"))
    found = scope["tasks"]()
    assert {name: task.digest() for name, (task, _) in found.items()} == {
        name: EXPECTED[name]["task_digest"] for name in NAMES
    }


class Moved(nn.Linear):
    """A class that states its identity."""

    identity_name = "Moved"


def same_class_elsewhere() -> type[nn.Linear]:
    class Moved(nn.Linear):
        """The same class, written anew in another place."""

        identity_name = "Moved"

    Moved.__module__, Moved.__qualname__ = "another.place", "Moved"
    return Moved


def with_weights(cls: type[nn.Linear]) -> nn.Linear:
    model = cls(2, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(0.0)
    return model


def test_a_stated_name_outlives_a_move() -> None:
    here, there = with_weights(Moved), with_weights(same_class_elsewhere())
    assert source_identity(Moved) == source_identity(same_class_elsewhere()) == "name Moved"
    assert state_digest(here) == state_digest(there)


def test_a_class_without_a_name_goes_by_its_place_and_code() -> None:
    class Plain(nn.Linear):
        pass

    class Derived(Moved):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) + 1

    names = [source_identity(cls) for cls in (Plain, Derived, Moved)]
    assert len(set(names)) == 3
    assert "Plain(nn.Linear)" in names[0]
    assert "inputs) + 1" in names[1], "the name of a base class does not stand for what a subclass changed"
    assert architecture_identity(with_weights(Derived)) != architecture_identity(with_weights(Moved))


@pytest.mark.parametrize("cls", [metav.Classification, metav.Regression, metav.Generation])
def test_tasks_go_by_name_so_that_their_caches_outlive_a_move(cls: type) -> None:
    assert source_identity(cls) == f"name {cls.__name__}"


def test_no_identity_of_a_task_holds_a_module_path() -> None:
    task = metav.Regression(np.eye(4), np.arange(4.0))
    assert "metav" not in task.identity()
    assert identity_of(task).split()[0] == task.digest()
