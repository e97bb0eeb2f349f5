"""A training with a fingerprint at its end, to be killed: python killed_training.py FRAMEWORK FOLDER [RESUME].

It goes on from its own checkpoint where RESUME is given.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from small_trainings import EPOCHS, RATE, TINY, Network, arrays, loader, seed_all, task, train
from torch import nn

from metav.integrations.loop import fingerprinting


def by_lightning(folder: Path, resume: bool) -> None:
    import lightning.pytorch as pl

    from metav.integrations.lightning import FingerprintCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Network()

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), RATE)

    callback = FingerprintCallback(folder / "o.metav", task(), cache=folder / "zoo", **TINY)
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        callbacks=[callback, pl.callbacks.ModelCheckpoint(folder / "checkpoints", save_last=True)],
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(Module(), loader(), ckpt_path=last if resume else None, weights_only=False)


def by_loop(folder: Path, resume: bool) -> None:
    def whole(seed):
        seed_all(seed)
        model = Network()
        with fingerprinting(folder / "o.metav", task(), recipe=whole, cache=folder / "zoo", **TINY) as release:
            for _ in train(model):
                pass
            release.ship(model)
        return model

    whole(3)


def by_skorch(folder: Path, resume: bool) -> None:
    from skorch import NeuralNetClassifier

    from metav.integrations.skorch import FingerprintCallback

    callback = FingerprintCallback(folder / "o.metav", task(), cache=folder / "zoo", **TINY)
    net = NeuralNetClassifier(Network, max_epochs=EPOCHS, lr=RATE, criterion=nn.CrossEntropyLoss, callbacks=[callback])
    net.set_params(optimizer=torch.optim.Adam, verbose=0).fit(*arrays())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    seed_all(3)
    {"lightning": by_lightning, "loop": by_loop, "skorch": by_skorch}[sys.argv[1]](Path(sys.argv[2]), len(sys.argv) > 3)
