"""A loop of one's own: equal to the bit with and without metav, and what it says that it ships is fingerprinted."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import pytest
import torch
from small_trainings import TINY, Network, bits, by_hand, fingerprint_of, quiet, random_state, seed_all, task, train
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import metav
from metav.integrations.alone import recipe_runs
from metav.integrations.loop import fingerprinting


def trained_within(seed, path=None, **options):
    """The plain loop with metav's context around it; the model."""
    seed_all(seed)
    model = Network()
    with fingerprinting(path, task(), **{**TINY, **options}) as release:
        for epoch in train(model):
            release.epoch(epoch, model)
        release.ship(model)
    return model, release


def test_weights_and_random_state_are_those_without_metav(tmp_path):
    seed_all(3)
    plain = Network()
    for _ in train(plain):
        pass
    expected = random_state()
    with quiet():
        model, release = trained_within(3, tmp_path / "o.metav", every=2)
    assert bits(model) == bits(plain)
    assert random_state() == expected
    assert release.fingerprint is not None
    assert sorted(release.fingerprints) == [2]
    assert {path.name for path in tmp_path.iterdir()} == {"o.metav", "o-epoch2.metav"}


def test_the_file_holds_the_fingerprint_that_metavs_own_calls_make(tmp_path):
    with quiet():
        model, release = trained_within(3, tmp_path / "o.metav", recipe=by_hand)
    assert metav.load(tmp_path / "o.metav").commitment == release.fingerprint.commitment
    assert release.fingerprint.commitment == fingerprint_of(model.eval(), by_hand).commitment
    assert release.fingerprint.zoo["standing"]["recipe"] == "told"


def test_a_function_with_the_context_inside_is_its_own_recipe(tmp_path):
    seen = []

    def whole(seed):
        seen.append((seed, recipe_runs()))
        return trained_within(seed, tmp_path / "o.metav", recipe=whole)[0]

    with quiet():
        whole(3)
    assert [inside for _, inside in seen] == [False] + [True] * (len(seen) - 1)
    assert len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["o.metav"]
    assert metav.load(tmp_path / "o.metav").commitment == fingerprint_of(by_hand(3).eval(), by_hand).commitment


def test_the_last_model_that_ships_counts_as_it_was_then(tmp_path):
    model = Network()
    with quiet(), fingerprinting(tmp_path / "o.metav", task(), **TINY) as release:
        release.ship(Network())
        for epoch in train(model):
            if epoch == 1:
                release.ship(model)
                kept = copy.deepcopy(model).eval()
    assert release.fingerprint.commitment == fingerprint_of(kept).commitment


def test_a_recipe_that_can_end_after_an_epoch_is_asked_to(tmp_path):
    class ByHand:
        def __init__(self, epochs):
            self.epochs = epochs

        def __call__(self, seed):
            return by_hand(seed, self.epochs)

        def until(self, epoch):
            return ByHand(epoch)

    recipe, model = ByHand(3), Network()
    with quiet(), fingerprinting(tmp_path / "o.metav", task(), every=1, **TINY) as release:
        for epoch in train(model, 1):
            release.epoch(epoch, model, recipe)
        release.ship(model)
    assert release.fingerprints[1].commitment == fingerprint_of(model.eval(), ByHand(1)).commitment


@pytest.mark.parametrize(
    ("higher", "metrics", "best"), [(True, [1.0, 3.0, 2.0], 1), (False, [2.0, float("nan"), 1.0], 2)]
)
def test_the_best_of_several_ships(tmp_path, higher, metrics, best):
    models = [by_hand(seed) for seed in range(3)]
    with quiet(), fingerprinting(tmp_path / "o.metav", task(), **TINY) as release:
        told = [
            release.ship_if_best(model, metric, higher_is_better=higher)
            for model, metric in zip(models, metrics, strict=True)
        ]
    assert told[best]
    assert release.fingerprint.commitment == fingerprint_of(models[best].eval()).commitment


@pytest.mark.slow
def test_a_moving_average_ships_as_a_model_or_as_weights(tmp_path):
    model = Network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in train(model):
        average.update_parameters(model)
    assert bits(average.module) != bits(model)
    expected = fingerprint_of(copy.deepcopy(average.module).eval()).commitment
    for arguments in ((average,), (model, average.module.state_dict()), (model, average.state_dict())):
        with quiet(), fingerprinting(tmp_path / "o.metav", task(), **TINY) as release:
            release.ship(*arguments)
        assert release.fingerprint.commitment == expected


def test_a_loop_that_fails_ships_nothing(tmp_path):
    def failing():
        with fingerprinting(tmp_path / "o.metav", task(), **TINY) as release:
            release.ship(Network())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert not list(tmp_path.iterdir())
    with pytest.raises(metav.InputError, match=r"call release\.ship"), fingerprinting(tmp_path / "o.metav", task()):
        pass


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("o.txt", {}, "must end in .metav"),
        ("none/o.metav", {}, "cannot be written"),
        ("o.metav", {"every": 0}, "every must be a whole number"),
        ("o.metav", {"epochs": 3}, "epochs is no option of a fingerprint"),
        ("o.metav", {"recipe": nn.Linear(2, 2)}, "recipe must be a callable"),
        ("o.metav", {"trackers": ["nothing"]}, "'nothing' is no tracker"),
        ("o.metav", {"target_fpr": 2.0}, "target_fpr must be a number in"),
        ("o.metav", {"positives": 0}, "positives must be a whole number from 1, got 0"),
        ("o.metav", {"families": ["nonsense"]}, "families must name at least one of"),
        ("o.metav", {"queries": 500_000}, "queries must be at most"),
        ("o.metav", {"queries": 1000}, "the task has 160; ask for queries="),
        ("o.metav", {"seed": -1}, "seed must be from 0"),
        ("o.metav", {"jobs": 0}, "jobs must be a whole number from 1"),
        ("o.metav", {"cache": Path(__file__)}, "cannot be written to"),
        ("o.metav", {"options": {"steps": 4}}, "options must be metav.OptimizationOptions or None, got dict"),
        ("o.metav", {"autocast": "float12"}, "autocast must be"),
        ("o.metav", {"architectures": [Network()]}, r"architectures\[0\] is a model"),
        ("o.metav", {"other_task": metav.Classification(torch.zeros(9, 2), torch.arange(9) % 3)}, "other_task has in"),
    ],
)
def test_what_would_fail_afterwards_fails_before_the_loop(tmp_path, path, options, message):
    with pytest.raises(metav.MetavError, match=message), fingerprinting(tmp_path / path, task(), **options):
        raise AssertionError("the loop has begun")


def test_only_the_first_of_several_processes_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    _, release = trained_within(3, tmp_path / "o.metav", every=2)
    assert release.fingerprint is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_of_several_processes_says_that_others_train_the_surrogates(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        with pytest.warns(UserWarning, match="jobs=1 stands for this process, but it is one of several"):
            trained_within(3, tmp_path / "o.metav")
        with quiet(), warnings.catch_warnings():
            warnings.filterwarnings("error", "jobs=1 stands")
            _, release = trained_within(3, tmp_path / "p.metav", jobs=2)
    finally:
        torch.distributed.destroy_process_group()
    assert metav.load(tmp_path / "o.metav").commitment == release.fingerprint.commitment


def test_a_recipe_leaves_no_settings_behind(tmp_path, monkeypatch):
    for name, value in {"MASTER_PORT": "7", "PL_GLOBAL_SEED": "3", "PL_SEED_WORKERS": "1"}.items():
        monkeypatch.setenv(name, value)
    seen = []

    def rude(seed):
        seen.append([os.environ.get(name) for name in ("MASTER_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS")])
        os.environ |= {"WORLD_SIZE": "9", "PL_GLOBAL_SEED": str(seed), "PL_SEED_WORKERS": "0"}
        torch.use_deterministic_algorithms(True)
        torch.autograd.set_detect_anomaly(True)
        return by_hand(seed)

    with quiet():
        trained_within(3, tmp_path / "o.metav", recipe=rude)
    assert seen
    assert all(found == [None, None, "1"] for found in seen), "how loaders seed their workers is part of the training"
    assert [os.environ[name] for name in ("MASTER_PORT", "PL_GLOBAL_SEED", "PL_SEED_WORKERS")] == ["7", "3", "1"]
    assert "WORLD_SIZE" not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.is_anomaly_enabled()
