"""Building a zoo: the same however it is built, nothing of the user touched, what does not fit refused."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import copy
import random
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from small_models import HeadFirst, bits, digits, owner_of, task_of
from small_zoos import contents, small_task
from torch import nn

from metav.errors import InputError, ModelError, ObfuscationError, ZooError
from metav.models.running import predict
from metav.obfuscations.registry import OBFUSCATIONS, Obfuscation
from metav.tasks.classification import Classification
from metav.tasks.regression import Regression
from metav.zoo.building import build_suspects, build_zoo


def four_classes() -> Classification:
    images, labels = digits()
    return Classification(images[:100], labels[:100] % 4)


def test_an_attacked_independent_model_still_answers_otherwise_than_the_owner(owner, task, tmp_path, monkeypatch):
    monkeypatch.setattr("metav.zoo.plan.FEWEST_WITH_ATTACKED", 1)
    zoo = build_zoo(owner, task, positives=1, negatives=24, families=["weight_prune"], cache=tmp_path, progress=False)
    attacked = [entry for entry in zoo if entry.attack is not None]
    assert attacked
    assert {(entry.is_positive, entry.attack) for entry in attacked} == {(False, "weight_prune")}
    for entry in attacked:
        assert any((parameter == 0).float().mean() > 0.1 for parameter in entry.model.parameters())
        assert not torch.allclose(predict(entry.model, task.examples), predict(owner, task.examples), atol=0.5)
    again = build_zoo(owner, task, positives=1, negatives=24, families=["weight_prune"], cache=tmp_path, progress=False)
    assert contents(again) == contents(zoo)


def test_owner_and_random_state_are_untouched(task, owner):
    model = copy.deepcopy(owner).double().train()
    model.head.eval()
    model.body.weight.requires_grad_(False)
    handle = model.register_forward_hook(lambda *_: None)
    before = copy.deepcopy(model)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()
    build_zoo(model, task, positives=2, negatives=2, architectures=[lambda: HeadFirst(64, 10)])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert (random.getstate(), torch.get_num_threads()) == states[2:]
    assert bits(model) == bits(before)
    assert model.body.weight.dtype == torch.float64
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert list(model._forward_hooks) == [handle.id]


def test_the_number_of_jobs_does_not_change_a_bit(owner, task, tmp_path):
    options = {"positives": 13, "negatives": 4, "architectures": [lambda: HeadFirst(64, 10)]}
    alone = build_zoo(owner, task, jobs=1, **options)
    together = build_zoo(owner, task, jobs=2, **options)
    cached = build_zoo(owner, task, jobs=2, cache=tmp_path, **options)
    assert contents(alone) == contents(together) == contents(cached)
    assert contents(build_zoo(owner, task, cache=tmp_path, **options)) == contents(alone)


def test_builds_in_several_threads_are_those_of_one(owner, task, tmp_path, eager_threads):
    """In one process and with one cache: what is drawn, what torch is set to and who writes first must not mix."""
    options = {"positives": 2, "negatives": 2, "architectures": [], "free_negatives": False, "progress": False}
    alone = [contents(build_zoo(owner, task, seed=seed, **options)) for seed in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(build_zoo, owner, task, seed=number % 2, cache=tmp_path, **options) for number in range(4)
            ]
            together = [contents(job.result()) for job in jobs]
            assert {pool.submit(torch.get_num_threads).result() for _ in range(8)} == {2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert together == [*alone, *alone]
    assert [contents(build_zoo(owner, task, seed=seed, cache=tmp_path, **options)) for seed in range(2)] == alone
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"negatives": 0}, ZooError, "negatives must be a whole number from 1, got 0"),
        ({"positives": 0}, ZooError, "positives must be a whole number from 1, got 0"),
        ({"positives": 2.5}, ZooError, "positives must be a whole number"),
        ({"snapshots": -1}, ZooError, "snapshots must be"),
        ({"jobs": 0}, InputError, "jobs must be"),
        ({"families": ["magic"]}, ZooError, "families must name"),
        ({"families": ["distill_other"], "architectures": []}, ZooError, "needs another architecture"),
        ({"shares": {"positive": (0.5, 0.5, 0.5)}}, ZooError, "add up to 1"),
        (
            {"architectures": [lambda: HeadFirst(64, 10), lambda: HeadFirst(64, 3)]},
            ModelError,
            r"architectures\[1\].*3",
        ),
        ({"architectures": [lambda: HeadFirst(5, 10)]}, ModelError, r"architectures\[0\] does not fit.*failed"),
        ({"architectures": [HeadFirst(64, 10)]}, ModelError, r"architectures\[0\] is a model"),
        ({"architectures": [3]}, ModelError, r"architectures\[0\] must be a callable"),
        ({"architectures": [lambda: 3]}, ModelError, "must return a torch.nn.Module"),
    ],
)
def test_wrong_arguments_are_refused_before_any_training(options, error, message, owner, task, trainings):
    with pytest.raises(error, match=message):
        build_zoo(owner, task, **options)
    assert not trainings


def test_owners_and_tasks_that_do_not_fit_are_refused(task):
    with pytest.raises(ModelError, match=r"owner must be a torch\.nn\.Module"):
        build_zoo(lambda inputs: inputs, task)
    with pytest.raises(ModelError, match=r"expected \(2, 10\)"):
        build_zoo(HeadFirst(64, 3), task)
    with pytest.raises(InputError, match=r"task of class object lacks loss\(\), train\(\), metric\(\)"):
        build_zoo(HeadFirst(64, 10), object())
    with pytest.raises(InputError, match="thief_task has inputs of shape"):
        build_zoo(owner_of("regression"), task_of("regression"), thief_task=Regression(np.eye(4), np.ones(4)))
    with pytest.raises(InputError, match="other_task has 4 outputs, expected 10"):
        build_zoo(owner_of("classification"), task_of("classification"), other_task=four_classes())
    with pytest.raises(ObfuscationError, match="extract_labels makes no sense for a regression task"):
        build_zoo(owner_of("regression"), task_of("regression"), families=["extract_labels"])


@pytest.mark.parametrize("name", ["regression", "generation"])
def test_other_tasks_have_zoos_too(name):
    zoo = build_suspects(owner_of(name), task_of(name).subset(range(150)), positives=12, negatives=4)
    # retrain_all needs a supervised task, extract_labels classes, adversarial_train inputs that are no latents
    assert len({entry.family for entry in zoo.positives}) == {"regression": 12, "generation": 11}[name]
    queries = task_of(name).natural_queries(5, seed=0)
    assert all(torch.isfinite(predict(entry.model, queries)).all() for entry in zoo)


class OwnTask:
    """A user's task, by duck typing: no snapshots, no teacher weight, no baseline."""

    name, view, metric_name, outputs, levels = "segmentation", "identity", "loss", 10, None
    input_shape = (1, 8, 8)
    lower, upper = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)

    def __init__(self) -> None:
        self._inner = small_task(epochs=1)

    def __getattr__(self, name):
        if name in ("loss", "metric", "natural_queries", "check_model"):
            return getattr(self._inner, name)
        raise AttributeError(name)

    def bootstrap(self, seed, fraction=0.5):
        return self

    def digest(self):
        return "mine"

    def train(self, model, *, seed, teacher=None, parameters=None, epochs=None):
        return self._inner.train(model, seed=seed, teacher=teacher, parameters=parameters, epochs=epochs)


def test_a_task_of_ones_own_needs_no_on_epoch(owner):
    zoo = build_zoo(owner, OwnTask(), positives=12, negatives=3)
    assert all(entry.fraction == 1.0 for entry in zoo)
    assert "extract_labels" not in {entry.family for entry in zoo}


def test_a_useless_positive_is_made_again_with_less_strength(owner, task, monkeypatch):
    def fragile(model, task, *, strength, seed):
        clone = copy.deepcopy(model)
        if strength > 0.3:
            clone.head.weight.data.zero_()
        return clone

    entry = Obfuscation(family="fragile", function=fragile, needs_training=False, zoo_strengths=(0.8,))
    for module in ("plan", "stages", "training"):
        monkeypatch.setattr(f"metav.zoo.{module}.OBFUSCATIONS", {**OBFUSCATIONS, "fragile": entry})
    zoo = build_zoo(owner, task, positives=1, negatives=1, families=["fragile"])
    assert zoo.positives[0].strength == pytest.approx(0.2)


def test_homologous_models_that_learn_nothing_are_reported(owner):
    with pytest.warns(UserWarning, match="independent models of the owner's own class are much worse"):
        build_zoo(owner, small_task(epochs=0.05), positives=1, negatives=2, families=["weight_prune"])


def test_what_cannot_travel_to_other_processes_is_refused(owner, task):
    model = copy.deepcopy(owner)
    lock = __import__("threading").Lock()
    model.register_forward_hook(lambda *_: (lock.locked(), None)[1])
    with pytest.raises(InputError, match=r"cannot be sent to worker processes .* jobs=1"):
        build_zoo(model, task, positives=1, negatives=2, jobs=2)


class Diverging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, inputs):
        outputs = self.layer(inputs.flatten(1))
        return outputs / 0.0 * 0.0 if self.training else outputs


def test_a_diverging_independent_model_names_itself(owner, task):
    with pytest.raises(ModelError, match=r"independent_other_architecture/0: training diverged"):
        build_zoo(owner, task, positives=1, negatives=2, architectures=[Diverging], families=["weight_prune"])


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_progress_is_silent_off_a_terminal(owner, task, capfd, progress, shown):
    build_zoo(owner, task, positives=1, negatives=1, families=["quantize"], progress=progress)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert bool(captured.err) == shown


def test_an_owner_that_does_not_do_the_task_on_these_data_is_told_of_before_anything_is_trained():
    images, labels = digits()
    names = np.array([f"digit {number}" for number in range(10)])
    bytes_of_images = (255 * images[:100]).astype(np.uint8)
    task = Classification(bytes_of_images, names[(labels[:100] + 3) % 10], classes=names.tolist())
    told = (
        r"accuracy 0.* on these data, no better than a constant .* \(here 0 to 255\), and classes in the order of its"
    )
    with pytest.warns(UserWarning, match=told), pytest.raises(ZooError, match="positives"):
        build_zoo(owner_of("classification"), task, positives=0)


def one_layer() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_families_that_do_not_fit_are_left_out_and_named_before_any_training(task, trainings, monkeypatch):
    owner = task.train(one_layer(), seed=0)
    with pytest.warns(UserWarning, match="left out, as they do not fit the owner's model") as caught:
        zoo = build_zoo(owner, task, positives=12, negatives=2)
    (warning,) = [entry for entry in caught if "left out" in str(entry.message)]
    assert re.findall(r"(\w+), (\w+) \(it needs a layer below", str(warning.message)) == [
        ("retrain_last", "retrain_all")
    ]
    assert "filter_prune (it needs a hidden layer" in str(warning.message)
    assert warning.filename == __file__
    assert {entry.family for entry in zoo.positives} == {*OBFUSCATIONS} - {
        "retrain_last",
        "retrain_all",
        "filter_prune",
    }
    trained = len(trainings)
    with pytest.raises(ObfuscationError, match="retrain_all does not fit the owner's model: it needs a layer below"):
        build_zoo(owner, task, positives=1, negatives=2, families=["quantize", "retrain_all"])
    assert len(trainings) == trained


def test_a_single_architecture_and_a_single_family_need_no_list(owner, task):
    options = {"positives": 2, "negatives": 4, "seed": 1}
    alone = build_zoo(owner, task, architectures=one_layer, families="quantize", **options)
    assert contents(alone) == contents(
        build_zoo(owner, task, architectures=[one_layer], families=["quantize"], **options)
    )
    compiled = build_zoo(owner, task, architectures=lambda: torch.compile(one_layer()), families="quantize", **options)
    assert contents(compiled) == contents(alone)


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        (one_layer(), r"architectures is a model \(Sequential\)"),
        ("mlp", "architectures must be a list of callables that return fresh models, got str"),
        (3, "architectures must be a list of callables that return fresh models, got int"),
    ],
)
def test_what_is_no_architecture_is_told_so(architectures, message, owner, task):
    with pytest.raises((InputError, ModelError), match=message):
        build_zoo(owner, task, architectures=architectures)


def test_compiled_and_parallel_models_of_a_recipe_are_taken_as_they_are_inside(owner, task):
    def recipe(seed):
        return task.train(HeadFirst(64, 10), seed=seed)

    options = {"positives": 1, "negatives": 3, "families": "quantize"}
    plain = build_zoo(owner, task, recipe=recipe, **options)
    for wrap in (torch.compile, nn.DataParallel):
        wrapped = build_zoo(wrap(owner), task, recipe=lambda seed, wrap=wrap: wrap(recipe(seed)), **options)
        assert wrapped.owner_digest == plain.owner_digest
        assert contents(wrapped) == contents(plain)


def test_a_scripted_owner_is_trained_in_one_process(task):
    owner = torch.jit.script(task.train(one_layer(), seed=0))
    options = {"positives": 2, "negatives": 2, "families": ["finetune_all", "distill_same"]}
    zoo = build_zoo(owner, task, **options)
    assert all(isinstance(entry.model, torch.jit.ScriptModule) for entry in zoo if entry.architecture == 0)
    with pytest.raises(InputError, match=r"cannot be sent to worker processes .* use jobs=1"):
        build_zoo(owner, task, jobs=2, **options)


def test_weights_that_hooks_compute_are_those_of_each_model(task):
    owner = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    torch.nn.utils.prune.l1_unstructured(owner[1], "weight", 0.3)
    task.train(owner, seed=0)
    zoo = build_zoo(owner, task, positives=4, negatives=4, families=["finetune_all", "quantize"], architectures=[])
    for entry in zoo:
        layer = entry.model[1]
        assert torch.equal(layer.weight, layer.weight_orig * layer.weight_mask)
        assert torch.equal(layer.weight_mask, owner[1].weight_mask) == entry.is_positive
