"""What a user has set in PyTorch around a call neither breaks it nor changes a bit of its result, and comes back."""

from __future__ import annotations

import functools
import json
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from small_zoos import contents
from torch import nn

import metav
from metav.support.torch_state import in_standard_torch_state


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    "float64": functools.partial(default_dtype, torch.float64),
    "float16": functools.partial(default_dtype, torch.float16),
    "deterministic": deterministic,
    "default_device": functools.partial(torch.device, "meta"),
}


def observed():
    """What PyTorch's ambient state is, as far as Python can see."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_num_threads(),
    )


class Attentive(nn.Module):
    """Recurrent, normalised and attentive, with a number that forward makes in the default dtype."""

    def __init__(self):
        super().__init__()
        self.body = nn.GRU(3, 6, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        features, _ = self.body(inputs, torch.zeros(1, len(inputs), 6, device=inputs.device))
        return self.head(self.norm(self.attention(features).mean(dim=1)) * torch.tensor(0.1, device=inputs.device))


def examples(count=60):
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    inputs = random.normal(size=(count, 4, 3)).astype(np.float32)
    inputs[np.arange(count), 0, labels] += 3.0
    return inputs, labels


def trained(seed):
    """The owner's recipe: a loop of the user's own."""
    torch.manual_seed(seed)
    inputs, labels = examples()
    model, targets = Attentive(), torch.as_tensor(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.as_tensor(inputs)), targets).backward()
        optimizer.step()
    return model


OPTIONS = metav.OptimizationOptions(steps=3, repeats=1, refit_steps=20)


def artefacts(owner, other, path):
    """Zoo, fingerprint file, verdict and evaluation, in what can be compared."""
    task = metav.Classification(*examples(), epochs=1, batch_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        zoo = metav.build_zoo(owner, task, positives=13, negatives=6, snapshots=1, recipe=trained, seed=3)
        fp = metav.fingerprint(owner, task, zoo=zoo, queries=6, options=OPTIONS, target_fpr=0.3, seed=3)
    fp.save(path)
    evaluation = metav.evaluate(fp, [(owner, True, "owner"), (other, False, "other"), (other.forward, False, "call")])
    return contents(zoo), path.read_bytes(), metav.verify(fp, owner).to_json(), evaluation.to_json()


@pytest.fixture(scope="module")
def models():
    return trained(1).eval(), trained(77).eval()


@pytest.fixture(scope="module")
def expected(models, tmp_path_factory):
    return artefacts(*models, tmp_path_factory.mktemp("plain") / "a.metav")


@pytest.mark.parametrize("name", AMBIENT)
def test_no_ambient_state_changes_a_bit_of_any_artefact(name, models, expected, tmp_path):
    with AMBIENT[name]():
        before = observed()
        found = artefacts(*models, tmp_path / "a.metav")
        assert observed() == before
    for kind, one, other in zip(("zoo", "fingerprint", "verdict", "evaluation"), found, expected, strict=True):
        assert one == other, kind


def test_models_data_and_trainings_of_inference_mode_are_as_good_as_others(models, expected, tmp_path):
    with torch.inference_mode():
        made = [Attentive(), Attentive()]
        task = metav.Classification(*examples(), epochs=1, batch_size=16)
        assert not task.examples.is_inference()
        derived = metav.obfuscations.finetune_all(made[0], task, strength=0.2, seed=0)
        assert not any(entry.is_inference() for entry in derived.parameters())
        for model, source in zip(made, models, strict=True):
            model.load_state_dict(source.state_dict())
            model.eval()
    assert made[0].head.weight.is_inference()
    found = artefacts(*made, tmp_path / "a.metav")
    assert found[1] == expected[1]
    # the kernels for tensors of inference mode round otherwise
    assert json.loads(found[2])["logit"] == pytest.approx(json.loads(expected[2])["logit"], rel=1e-4)


@in_standard_torch_state
def fails():
    assert observed()[:5] == (True, False, False, torch.float32, torch.device("cpu"))
    raise ZeroDivisionError


@pytest.mark.parametrize("name", AMBIENT)
def test_the_state_comes_back_after_an_error(name):
    with AMBIENT[name]():
        before = observed()
        with pytest.raises(ZeroDivisionError):
            fails()
        assert observed() == before


def test_a_suspect_in_double_precision_makes_its_own_tensors_in_it(expected, tmp_path):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.RNN(3, 4, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.head(self.body(inputs, torch.zeros(1, len(inputs), 4))[1][0])

    path = tmp_path / "a.metav"
    path.write_bytes(expected[1])
    suspect = Hidden().double()
    assert metav.verify(path, suspect).reason != "failed"
    with default_dtype(torch.float64):
        assert metav.verify(path, suspect).reason != "failed"
