"""Archives of torch.export and TorchScript: read where their code is trusted, and pickles never."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from small_fingerprints import numbers
from torch import nn

from metav.errors import InputError
from metav.suspects import open_suspect, torch_archives

QUERIES = numbers(7, 1, 4, 4)


@pytest.fixture(scope="module")
def model():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3)).eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.from_numpy(numbers(3, 16, seed=1)))
        model[2].bias.zero_()
    return model


@pytest.fixture(scope="module")
def archives(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    example = torch.zeros(3, 1, 4, 4)
    dynamic = ({0: torch.export.Dim("n")},)
    torch.export.save(torch.export.export(model, (example,)), folder / "fixed.pt2")
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=dynamic), folder / "any.pt2")
    torch.export.save(torch.export.export(model.half(), (example.half(),)), folder / "half.pt2")
    model.float()
    script = torch.jit.trace(model, example)
    for name in ("script.pt", "script.torchscript"):
        torch.jit.save(script, folder / name)
    torch.save(model.state_dict(), folder / "weights.pt")
    torch.save(model, folder / "whole.pt")
    return folder


EXPECTED = QUERIES.reshape(7, 16) @ numbers(3, 16, seed=1).T


@pytest.mark.parametrize("name", ["fixed.pt2", "any.pt2", "half.pt2", "script.pt", "script.torchscript"])
def test_the_answers_are_the_models(archives, name):
    suspect = open_suspect(archives / name, trust_code=True)
    answers = suspect.answer(QUERIES, outputs=3, batch_size=5)
    assert answers.responses == pytest.approx(EXPECTED, rel=1e-3, abs=1e-6 if "half" not in name else 0.02)
    assert answers.noise == 0.0
    assert name in suspect.description


@pytest.mark.parametrize("name", ["fixed.pt2", "script.pt", "weights.pt"])
@pytest.mark.parametrize("trust_code", [None, False])
def test_nothing_is_read_without_trust(archives, name, trust_code, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch.export, "load", None)
    with pytest.raises(InputError, match=r"loading it would run its code; .* trust_code=True \(--trust-code\)"):
        open_suspect(archives / name, trust_code=trust_code)


class Bomb:
    def __reduce__(self):
        return (print, ("the pickle ran",))


def test_pickles_are_never_read(archives, tmp_path, capsys):
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb()))
    torch.save(Bomb(), tmp_path / "new.pt")
    torch.save(Bomb(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for path in (archives / "weights.pt", archives / "whole.pt", *tmp_path.iterdir()):
        with pytest.raises(InputError, match="pickles are not read"):
            open_suspect(path, trust_code=True)
    for name in ("model.pth", "model.pkl", "model.ckpt"):
        with pytest.raises(InputError, match="unpickling a suspect would run its code"):
            open_suspect(name)
    assert "the pickle ran" not in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".pt2", ".pt", ".ts"])
def test_damaged_archives_are_told(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/constants.pkl", b"nothing")
        archive.writestr("m/models/model.json", b"{}")
    with pytest.raises(InputError, match=r"cannot be loaded \(.*\); export the model again"):
        open_suspect(path, trust_code=True)
    with pytest.raises(InputError, match="there is no file"):
        open_suspect(tmp_path / f"nowhere{ending}", trust_code=True)


def test_archives_that_unpack_to_more_than_allowed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_archives, "LARGEST_CONTENT", 2**20)
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/constants.pkl", bytes(2**20 + 1))
    assert path.stat().st_size < 2**14
    with pytest.raises(InputError, match=r"unpacks to more than 1\.0 MiB"):
        open_suspect(path, trust_code=True)


def test_a_program_of_two_inputs_is_refused(tmp_path):
    class Sum(nn.Module):
        def forward(self, first, second):
            return first + second

    example = torch.zeros(2, 3)
    torch.export.save(torch.export.export(Sum(), (example, example)), tmp_path / "m.pt2")
    with pytest.raises(InputError, match="takes 2 inputs, expected one"):
        open_suspect(tmp_path / "m.pt2", trust_code=True)


def test_without_torch_the_message_says_how_to_install_it(archives):
    code = f"""
import sys
sys.modules["torch"] = None
from metav.errors import MissingDependencyError
from metav.suspects import open_suspect
try:
    open_suspect({str(archives / "any.pt2")!r}, trust_code=True)
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "needs PyTorch, which is not installed" in done.stdout, done.stderr


def test_the_answers_do_not_change_with_the_size_of_batches(archives):
    for name in ("fixed.pt2", "any.pt2"):
        suspect = open_suspect(archives / name, trust_code=True)
        whole = suspect.answer(QUERIES, outputs=3).responses
        assert np.array_equal(suspect.answer(QUERIES, outputs=3, batch_size=1).responses, whole)
