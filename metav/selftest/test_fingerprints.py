"""A fingerprint from end to end, of a network on random vectors: made, written, read, and used for a verdict."""

from __future__ import annotations

import importlib.util
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np


def test_a_fingerprint_is_made_written_read_and_recognises_its_owner() -> None:
    """The owner's model gets the score that the fingerprint measured itself, before and after the file."""
    if importlib.util.find_spec("torch") is None:
        raise unittest.SkipTest("PyTorch is not installed")
    import torch

    from metav.fingerprinting import fingerprint
    from metav.fingerprints.fingerprint import load
    from metav.optimization.options import OptimizationOptions
    from metav.support.randomness import isolated_rng
    from metav.tasks.classification import Classification
    from metav.verdicts.verification import verify
    from metav.zoo.building import build_zoo

    inputs = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    task = Classification(inputs, inputs[:, :3].argmax(axis=1), epochs=2, learning_rate=2e-2, batch_size=16)
    with isolated_rng(0):
        owner = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    task.train(owner, seed=0)
    options = OptimizationOptions(queries=8, steps=2, repeats=1, refit_steps=10, verifier="local", sampled=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that so few models tell little
        zoo = build_zoo(
            owner,
            task,
            positives=3,
            negatives=7,
            families=("weight_noise", "finetune_last"),
            architectures=[],
            snapshots=0,
            free_negatives=False,
            jobs=1,
            progress=False,
        )
        made = fingerprint(owner, task, zoo=zoo, options=options, target_fpr=0.4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "owner.metav"
        made.save(path)
        read = load(path)
    assert read.commitment == made.commitment
    scores = [verify(held, owner).score for held in (made, read)]
    assert scores[0] == scores[1]
    assert scores[0] is not None
    assert abs(scores[0] - made.check["owner_score"]) < 1e-4
