"""Untrained copies: more to optimise on, no more evidence, and nothing of the originals changed."""

from __future__ import annotations

import pytest
import torch
from small_models import HeadFirst, bits, digits, owner_of, task_of

from metav.errors import ZooError
from metav.experiments.runs.regimes import Regime
from metav.fingerprinting import fingerprint
from metav.tasks.classification import Classification
from metav.zoo.building import build_zoo
from metav.zoo.untrained_copies import with_untrained_copies


def test_copies_join_their_class_and_never_calibrate() -> None:
    task = task_of("classification")
    owner = owner_of("classification")
    zoo = build_zoo(owner, task, positives=3, negatives=3, families=["finetune_all"], progress=False)
    before = [bits(owner), *(bits(entry.model) for entry in zoo)]
    state = torch.random.get_rng_state()
    larger = with_untrained_copies(zoo, owner, task, owner_copies=8, copies=2, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [bits(owner), *(bits(entry.model) for entry in zoo)] == before
    new = [entry for entry in larger if entry.run not in {old.run for old in zoo}]
    assert sum(entry.is_positive for entry in new) == 8
    copied = [entry for entry in zoo if not entry.is_positive and entry.share != "calibrate"]
    assert sum(not entry.is_positive for entry in new) == 2 * len(copied)
    assert {entry.share for entry in new} == {"optimize", "select"}
    assert len({entry.run for entry in new}) == len(new)
    assert all(entry.attack is not None for entry in new if not entry.is_positive)
    assert all(bits(entry.model) not in before for entry in new)
    assert [entry.is_positive for entry in larger] == sorted((e.is_positive for e in larger), reverse=True)
    again = with_untrained_copies(zoo, owner, task, owner_copies=8, copies=2, seed=1)
    assert [bits(entry.model) for entry in again] == [bits(entry.model) for entry in larger]


def test_wrong_counts_are_refused() -> None:
    task = task_of("classification")
    zoo = build_zoo(owner_of("classification"), task, positives=1, negatives=1, families=["quantize"], progress=False)
    with pytest.raises(ZooError, match="counts from 0"):
        with_untrained_copies(zoo, owner_of("classification"), task, copies=-1)


def test_a_fingerprint_of_them_counts_only_trained_models_as_evidence() -> None:
    images, labels = digits()
    task = Classification(images[:300], labels[:300], epochs=4, learning_rate=1e-2)
    owner = task.train(HeadFirst(64, 10), seed=1)
    zoo = build_zoo(owner, task, positives=6, negatives=6, families=["finetune_all", "weight_prune"], progress=False)
    regime = Regime(name="few", copies=(8, 2))
    made = fingerprint(owner, task, zoo=regime.augment(zoo, owner, task, 0), queries=6, seed=0, progress=False)
    plain = fingerprint(owner, task, zoo=Regime(name="full").augment(zoo, owner, task, 0), queries=6, seed=0)
    assert len(made.calibration.negatives) == len(plain.calibration.negatives)
