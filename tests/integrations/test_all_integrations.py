"""What all integrations do alike, each by a training of its framework."""

from __future__ import annotations

import functools
import importlib
import sys

import pytest
import torch
from small_trainings import (
    EPOCHS,
    TINY,
    Network,
    arrays,
    bits,
    dataset,
    fingerprint_of,
    loader,
    quiet,
    task,
    train,
    zeroed,
    zeros,
)
from torch import nn

import metav
from metav.integrations.loop import fingerprinting
from metav.integrations.registry import INTEGRATIONS

OPTIONS = {"recipe": None, "every": EPOCHS - 1, **TINY}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def no_accelerator_of_another_test():
    yield
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


def told(release):
    """A plain loop that says to ship zeros; what it trained, and the release."""
    model = Network()
    for epoch in train(model):
        release.epoch(epoch, model, weights=zeros(model))
    release.ship(model, zeros(model))
    return model, release


def by_a_loop(path):
    with fingerprinting(path, task(), **OPTIONS) as release:
        return told(release)


def by_accelerate(path):
    import accelerate

    from metav.integrations.accelerate import fingerprinting as with_accelerator

    with with_accelerator(accelerate.Accelerator(cpu=True), path, task(), **OPTIONS) as release:
        return told(release)


def by_lightning(path):
    pl = importlib.import_module("lightning.pytorch")
    from metav.integrations.lightning import FingerprintCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Network()

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    weights = lambda trainer, module: zeros(module)  # noqa: E731
    callback = FingerprintCallback(path, task(), weights=weights, part="net", **OPTIONS)
    shown = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", enable_checkpointing=False, callbacks=[callback], **shown
    )
    module = Module()
    trainer.fit(module, loader())
    return module.net, callback


def by_transformers(path):
    from transformers import Trainer, TrainingArguments

    from metav.integrations.huggingface import FingerprintCallback

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Network()

        def forward(self, inputs, labels):
            return {"loss": nn.functional.cross_entropy(self.net(inputs), labels)}

    callback = FingerprintCallback(path, task(), weights=zeros, part="net", **OPTIONS)
    arguments = TrainingArguments(
        str(path.parent / "run"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=32,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [{"inputs": inputs, "labels": label} for inputs, label in dataset()]
    trainer = Trainer(model=Model(), args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.train()
    return trainer.model.net, callback


def by_skorch(path):
    from skorch import NeuralNetClassifier

    from metav.integrations.skorch import FingerprintCallback

    callback = FingerprintCallback(path, task(), weights=lambda net: zeros(net.module_), **OPTIONS)
    net = NeuralNetClassifier(
        Network, criterion=nn.CrossEntropyLoss, max_epochs=EPOCHS, callbacks=[callback], verbose=0
    ).fit(*arrays())
    return net.module_, callback


TRAININGS = {
    "a loop of one's own": by_a_loop,
    "Lightning": by_lightning,
    "Hugging Face Trainer": by_transformers,
    "accelerate": by_accelerate,
    "skorch": by_skorch,
}


def of_each(test):
    return pytest.mark.parametrize("integration", INTEGRATIONS, ids=lambda entry: entry.name)(test)


ALSO_NEEDED = {"Hugging Face Trainer": ("accelerate",)}
"""What the libraries of an integration leave to the user to install."""


def trained_by(integration, path):
    for library in (*integration.libraries, *ALSO_NEEDED.get(integration.name, ())):
        pytest.importorskip(library, reason=f"{library} is not installed")
    with quiet():
        return TRAININGS[integration.name](path)


@functools.cache
def expected():
    return fingerprint_of(zeroed(Network())).commitment


@of_each
def test_weights_of_ones_own_ship_after_an_epoch_as_in_the_end(tmp_path, integration):
    model, release = trained_by(integration, tmp_path / "o.metav")
    assert bits(model) != bits(zeroed(Network()))
    assert release.fingerprint.commitment == expected()
    assert {epoch: fp.commitment for epoch, fp in release.fingerprints.items()} == {EPOCHS - 1: expected()}
    assert metav.load(tmp_path / f"o-epoch{EPOCHS - 1}.metav").commitment == expected()
