"""Zoos that are trained under autocast: by option, without a trace where it is not asked for."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from small_models import Generator, HeadFirst, digits, task_of
from small_zoos import contents, small_task
from torch import nn

import metav
from metav.errors import InputError
from metav.models.running import copied, predict
from metav.models.training import TrainingOptions
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.randomness import isolated_rng
from metav.zoo.building import build_zoo
from metav.zoo.plan import KINDRED
from metav.zoo.preparation import prepare_zoo

SMALL = {
    "positives": 3,
    "negatives": 2,
    "snapshots": 0,
    "families": ["finetune_all", "distill_same", "weight_prune"],
    "architectures": [],
    "free_negatives": False,
    "progress": False,
}


class Watching(nn.Module):
    """A fully connected network that remembers in which dtype its passes were computed, and whether in training."""

    seen: ClassVar[set[tuple[bool, torch.dtype]]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(64, 24), nn.Linear(24, 10)

    def forward(self, inputs):
        outputs = self.head(torch.relu(self.inner(inputs.flatten(1))))
        if len(inputs) > 2:  # two are what its answers are looked at with
            self.seen.add((self.training, outputs.dtype))
        return outputs


@functools.cache
def small_owner() -> nn.Module:
    return trained_recipe(1)


def trained_recipe(seed: int) -> nn.Module:
    with isolated_rng(seed):
        model = Watching()
    return small_task().train(model, seed=seed)


@pytest.mark.parametrize("name", ["classification", "regression", "generation"])
def test_models_learn_in_bfloat16_and_stay_in_full_precision(name):
    task = task_of(name).with_epochs(4.0)
    with isolated_rng(3):
        first = {"classification": lambda: HeadFirst(64, 10), "regression": lambda: HeadFirst(64, 1)}.get(
            name, Generator
        )()
    models = [given.train(copied(first), seed=3) for given in (task, task.with_autocast("bfloat16"))]
    metrics = [task.metric(model) for model in (first, *models)]
    assert {parameter.dtype for parameter in models[1].parameters()} == {torch.float32}
    assert abs(metrics[2] - metrics[1]) < 0.25 * abs(metrics[0] - metrics[1])
    answers = [predict(model, task.natural_queries(20, seed=1)) for model in models]
    assert not torch.equal(*answers)


def test_only_the_passes_of_a_training_are_in_bfloat16(monkeypatch):
    owner = small_owner()
    monkeypatch.setattr(Watching, "seen", set())
    # what is looked at before anything is trained is no training
    monkeypatch.setattr("metav.zoo.preparation.check_trainable", lambda *_: None)
    build_zoo(owner, small_task(epochs=1), autocast="bfloat16", **SMALL)
    assert Watching.seen == {(True, torch.bfloat16), (False, torch.float32)}


@pytest.mark.slow
def test_it_is_the_same_in_other_processes():
    owner, task = small_owner(), small_task(epochs=1)
    found = [contents(build_zoo(owner, task, autocast="bfloat16", jobs=jobs, **SMALL)) for jobs in (1, 2)]
    assert found[0] == found[1]


def test_a_zoo_is_the_same_each_time_and_has_entries_of_its_own_in_the_cache(tmp_path):
    owner, task = small_owner(), small_task(epochs=1)
    plain = build_zoo(owner, task, **SMALL)
    first = build_zoo(owner, task, autocast="bfloat16", **SMALL)
    assert contents(build_zoo(owner, task, autocast="bfloat16", cache=tmp_path, **SMALL)) == contents(first)
    assert contents(build_zoo(owner, task, autocast="bfloat16", cache=tmp_path, **SMALL)) == contents(first)
    # a part that nobody trains is the same
    changed = {one[0] for one, other in zip(contents(plain), contents(first), strict=True) if one != other}
    assert changed >= {"finetune_all", "distill_same"}
    assert "weight_prune" not in changed
    assert first.task_digest == plain.task_digest
    # none of the models in the cache is taken for one in full precision, nor the other way round
    held = len(list(tmp_path.iterdir()))
    assert contents(build_zoo(owner, task, cache=tmp_path, **SMALL)) == contents(plain)
    assert len(list(tmp_path.iterdir())) == 2 * held


def test_keys_without_it_and_of_models_by_the_told_recipe_do_not_change():
    owner, task = small_owner(), small_task()
    prepared = [
        prepare_zoo(owner, task, sizes=(3, 6, 0), recipe=trained_recipe, autocast=autocast)
        for autocast in (None, "bfloat16")
    ]
    families = set()
    for planned in prepared[0].plan:
        plain, changed = (given.context.key(planned) for given in prepared)
        assert (plain == changed) == (planned.family == KINDRED)
        assert plain == replace(prepared[1].context, autocast=None).key(planned)
        families.add(planned.family)
    assert KINDRED in families
    assert len(families) > 2
    attacked = replace(
        next(planned for planned in prepared[0].plan if planned.family == KINDRED), attack=("distill_same", 0.5)
    )
    assert prepared[0].context.key(attacked) != prepared[1].context.key(attacked)


def test_autocast_around_the_call_does_nothing():
    owner, task = small_owner(), small_task(epochs=1)
    for option in (None, "bfloat16"):
        found = build_zoo(owner, task, autocast=option, **SMALL)
        with torch.autocast("cpu", dtype=torch.float16):
            assert contents(build_zoo(owner, task, autocast=option, **SMALL)) == contents(found)


def test_options_that_say_nothing_of_it_describe_themselves_as_before():
    options = TrainingOptions(epochs=1, batch_size=2, learning_rate=0.1)
    assert options.unusual() == {}
    task = small_task()
    assert task.with_autocast("bfloat16").digest() != task.digest()
    assert task.with_autocast("bfloat16").bootstrap(1).options.autocast == "bfloat16"


class OwnLoop(metav.Classification):
    """A task with a training loop of its own."""

    def train(self, model, *, seed, teacher=None, parameters=None, epochs=None):
        return model


def test_what_cannot_be_trained_so_is_refused_before_anything_is():
    owner, (images, labels) = small_owner(), digits()
    own = OwnLoop(images[:100], labels[:100])
    with pytest.raises(
        InputError, match=r"the task of class OwnLoop has another; leave it out, and use torch.autocast"
    ):
        build_zoo(owner, own, autocast="bfloat16", **SMALL)
    with pytest.raises(InputError, match=r"autocast must be one of None, bfloat16, got 'float16'"):
        build_zoo(owner, small_task(), autocast="float16", **SMALL)
    zoo = build_zoo(owner, small_task(epochs=1), **SMALL)
    with pytest.raises(InputError, match=r"autocast is for a zoo that is still to be built"):
        metav.fingerprint(owner, small_task(epochs=1), zoo=zoo, autocast="bfloat16")


def test_all_families_train_so():
    assert {name for name, entry in OBFUSCATIONS.items() if entry.needs_training} >= {"finetune_all", "distill_same"}
    task = small_task(epochs=1).with_autocast("bfloat16")
    for name, entry in OBFUSCATIONS.items():
        if entry.needs_training:
            options = {} if entry.own_architecture else {"architecture": lambda: HeadFirst(64, 10)}
            model = entry.function(small_owner(), task, strength=0.5, seed=1, **options)
            assert all(torch.isfinite(parameter).all() for parameter in model.parameters()), name
