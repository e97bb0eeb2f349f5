"""The zoo: what it contains, that it is the same however it is built, and that its cache never lies."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import copy
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import HeadFirst, bits, digits, owner_of, task_of
from torch import nn

import metav.zoo.training
from metav.errors import CacheError, InputError, ModelError, ObfuscationError, ZooError
from metav.models.running import predict
from metav.obfuscations.registry import OBFUSCATIONS, Obfuscation
from metav.support.randomness import isolated_rng
from metav.tasks.classification import Classification
from metav.tasks.regression import Regression
from metav.zoo.building import build_suspects, build_zoo
from metav.zoo.cache import TrainedModel, pack, unpack
from metav.zoo.plan import plan_zoo

INDEPENDENT = "independent_same_data"


def small_task(epochs: float = 6, **options) -> Classification:
    images, labels = digits()
    return Classification(images[:400], labels[:400], epochs=epochs, learning_rate=1e-2, **options)


@pytest.fixture(scope="module")
def task():
    return small_task()


@pytest.fixture(scope="module")
def owner(task):
    with isolated_rng(1):
        model = HeadFirst(64, 10)
    return task.train(model, seed=1)


@pytest.fixture
def trainings(monkeypatch):
    """The runs trained in this process."""
    runs, train = [], metav.zoo.training.train_planned

    def counted(planned, context):
        content = train(planned, context)
        runs.append(planned.run)
        return content

    monkeypatch.setattr(metav.zoo.training, "train_planned", counted)
    return runs


def four_classes() -> Classification:
    images, labels = digits()
    return Classification(images[:100], labels[:100] % 4)


def contents(zoo):
    return [
        (
            entry.family,
            entry.strength,
            entry.seed,
            entry.run,
            entry.fraction,
            entry.share,
            entry.metric,
            bits(entry.model),
        )
        for entry in zoo
    ]


def plan(**options):
    defaults = {"positives": 48, "negatives": 48, "architectures": 3, "seed": 0, "snapshots": 2}
    return plan_zoo(
        task_of("classification"), **{**defaults, "families": None, "shares": None, "suspects": False, **options}
    )


@settings(max_examples=60, deadline=None)
@given(positives=st.integers(1, 60), negatives=st.integers(1, 60), architectures=st.integers(1, 4))
def test_plans_have_the_counts_asked_for_and_half_homologous_negatives(positives, negatives, architectures):
    planned = plan(positives=positives, negatives=negatives, architectures=architectures)
    derived = [model for model in planned if model.is_positive]
    independent = [model for model in planned if not model.is_positive]
    assert (len(derived), len(independent)) == (positives, negatives)
    assert 2 * sum(model.family == INDEPENDENT for model in independent) >= negatives
    assert len({model.run for model in planned}) == len({model.seed for model in planned}) == len(planned)
    assert all(model.architecture < architectures for model in planned)
    assert all(not model.snapshots or model.share == "optimize" for model in planned)
    for group in (derived, independent):
        shares = [model.share for model in group]
        assert "optimize" in shares
        assert "calibrate" in shares or len(group) < 2
        assert "select" in shares or len(group) < 3


def test_the_standard_plan_covers_all_families_in_every_large_share():
    planned = plan()
    for share, least in (("optimize", 14), ("calibrate", 14), ("select", 7)):
        chosen = [model for model in planned if model.share == share]
        assert len({model.family for model in chosen if model.is_positive}) >= least
        assert len({model.family for model in chosen if not model.is_positive}) == 3
    assert [sum(m.share == s and m.is_positive for m in planned) for s in ("optimize", "select", "calibrate")] == [
        24,
        7,
        17,
    ]
    assert len({(model.family, model.strength) for model in planned if model.is_positive}) > 35


def test_a_larger_zoo_contains_the_smaller_one():
    small = {(model.run, model.seed, model.strength) for model in plan(positives=20, negatives=11)}
    assert small <= {(model.run, model.seed, model.strength) for model in plan()}


def test_a_part_of_the_homologous_surrogates_goes_through_the_zoos_own_obfuscations():
    planned = plan(negatives=200)
    attacked = [model for model in planned if model.attack is not None]
    assert {model.family for model in attacked} == {INDEPENDENT}
    assert 0.1 < len(attacked) / sum(model.family == INDEPENDENT for model in planned) < 0.35
    families = {model.attack[0] for model in attacked}
    # what needs another architecture is no obfuscation of a model of the owner's class
    assert families <= {model.family for model in planned if model.is_positive} - {"distill_other"}
    assert len(families) >= 5
    assert {model.share for model in attacked} == {"optimize", "select", "calibrate"}
    only = plan(negatives=200, families=["weight_prune", "distill_other"])
    assert {model.attack[0] for model in only if model.attack} == {"weight_prune"}
    assert not any(model.attack for model in plan(families=["distill_other"]))
    assert not any(model.attack for model in plan(negatives=200, suspects=True))
    assert not any(model.attack for model in plan(negatives=95))
    assert any(model.attack for model in plan(negatives=96))


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


def test_suspects_share_no_seed_strength_or_run_with_the_zoo():
    surrogates, suspects = plan(), plan(suspects=True)
    assert not {model.seed for model in surrogates} & {model.seed for model in suspects}
    assert not {model.run for model in surrogates} & {model.run for model in suspects}
    strengths = {(model.family, model.strength) for model in surrogates if model.is_positive}
    assert not strengths & {(model.family, model.strength) for model in suspects if model.is_positive}
    assert {model.share for model in suspects} == {"test"}


@pytest.fixture(scope="module")
def zoo(owner, task):
    return build_zoo(owner, task, positives=16, negatives=7, progress=False)


def test_a_zoo_has_labels_snapshots_and_useful_models(zoo, owner, task):
    full = [entry for entry in zoo if entry.fraction == 1.0]
    assert sum(entry.is_positive for entry in full) == 16
    assert sum(entry.family == INDEPENDENT for entry in full) == 4
    partial = [entry for entry in zoo if entry.fraction < 1.0]
    assert partial
    assert all(0.35 <= entry.fraction <= 0.9 and entry.share == "optimize" for entry in partial)
    assert {entry.run for entry in partial} <= {entry.run for entry in full}
    runs = {name: {entry.run for entry in zoo.share(name)} for name in ("optimize", "select", "calibrate")}
    assert sum(map(len, runs.values())) == len(set().union(*runs.values())) == 23
    for entry in zoo:
        model, is_positive, family = entry
        assert (model, is_positive, family) == (entry.model, entry.is_positive, entry.family)
        assert not any(module.training for module in model.modules())
        assert entry.metric == pytest.approx(task.metric(model))
        if entry.fraction == 1.0:
            assert entry.metric > 0.5 * (task.metric(owner) + task.baseline)
    assert zoo.positives + zoo.negatives == zoo.models


def test_homologous_models_are_the_owners_class_with_other_weights(zoo, owner):
    for entry in zoo:
        if entry.family == INDEPENDENT:
            assert isinstance(entry.model, HeadFirst)
            assert float((entry.model.body.weight == owner.body.weight).float().mean()) < 0.01


def test_a_summary_is_json_and_a_notebook_shows_a_table(zoo):
    summary = json.loads(json.dumps(zoo.summary()))
    assert (summary["positives"], summary["negatives"]) == (16, 7)
    assert sum(row["runs"] for row in summary["families"].values()) == 23
    assert all(family in zoo._repr_html_() for family in summary["families"])
    assert "16 derived + 7 independent" in repr(zoo)
    with pytest.raises(ZooError, match="share must be"):
        zoo.share("training")


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


def test_a_cached_zoo_is_not_trained_again_and_a_larger_one_adds_to_it(owner, task, tmp_path, trainings):
    build_zoo(owner, task, positives=3, negatives=2, cache=tmp_path, snapshots=0)
    assert len(trainings) == 5
    build_zoo(owner, task, positives=3, negatives=2, cache=tmp_path, snapshots=0)
    assert len(trainings) == 5
    build_zoo(owner, task, positives=4, negatives=2, cache=tmp_path, snapshots=0)
    assert len(trainings) == 6
    assert not list(tmp_path.glob(".*"))


def test_a_changed_owner_or_task_never_reuses_models(owner, task, tmp_path, trainings):
    counts = {"positives": 2, "negatives": 2, "cache": tmp_path, "architectures": []}
    build_zoo(owner, task, **counts)
    changed = copy.deepcopy(owner)
    changed.body.bias.data[0] += 1e-3
    images, labels = digits()
    moved = images[:400].copy()
    moved[0, 0, 0, 0] += 0.001
    others = [
        (changed, task, {}),
        (owner, small_task(epochs=2), {}),
        (owner, Classification(moved, labels[:400], epochs=3, learning_rate=1e-2), {}),
        (owner, task, {"seed": 1}),
        (owner, task, {"thief_task": task.bootstrap(0)}),
        (owner, task, {"other_task": task.bootstrap(0)}),
    ]
    for number, (model, other, options) in enumerate(others, start=2):
        build_zoo(model, other, **counts, **options)
        assert len(trainings) == 4 * number


def test_an_interrupted_build_continues_where_it_stopped(owner, task, tmp_path, monkeypatch, trainings):
    train = metav.zoo.training.train_planned

    def interrupted(planned, context):
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return train(planned, context)

    with monkeypatch.context() as patch:
        patch.setattr(metav.zoo.training, "train_planned", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_zoo(owner, task, positives=4, negatives=3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    resumed = build_zoo(owner, task, positives=4, negatives=3, cache=tmp_path)
    assert len(trainings) == 7
    assert contents(resumed) == contents(build_zoo(owner, task, positives=4, negatives=3))


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from small_models import owner_of, task_of
from metav import build_zoo
build_zoo(owner_of("regression"), task_of("regression"), positives=8, negatives=8, cache=sys.argv[2], jobs=1)
"""


def test_a_killed_build_loses_at_most_the_model_being_trained(tmp_path, trainings):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1] / "helpers"), str(tmp_path)]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*.safetensors"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(tmp_path.glob("*.safetensors")))
    assert 3 <= finished < 16
    owner, task = owner_of("regression"), task_of("regression")
    zoo = build_zoo(owner, task, positives=8, negatives=8, cache=tmp_path)
    assert len(trainings) == 16 - finished
    assert len({entry.run for entry in zoo}) == 16


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "swap"])
def test_a_damaged_cache_file_is_rebuilt_with_a_warning(damage, owner, task, tmp_path, trainings):
    options = {"positives": 2, "negatives": 1, "cache": tmp_path, "architectures": []}
    intact = contents(build_zoo(owner, task, **options))
    first, second, _ = sorted(tmp_path.iterdir())
    content = first.read_bytes()
    damaged = {
        "truncate": content[:-7],
        "flip": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "empty": b"",
        "swap": second.read_bytes(),
    }
    first.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=r"is damaged .* rebuilt"):
        assert contents(build_zoo(owner, task, **options)) == intact
    assert len(trainings) == 4
    assert first.read_bytes() == content


def test_packed_models_are_deterministic_and_come_back_whole():
    state = {"b": torch.arange(3), "a": torch.tensor(2.5), "empty": torch.zeros(0, 2), "shared": torch.ones(2, 2).T}
    trained = TrainedModel(states=(state, state), fractions=(0.5, 1.0), metrics=(0.1, 1 / 3), strength=None)
    packed = pack(trained, "key")
    assert packed == pack(trained, "key")
    back = unpack(packed, "key")
    assert (back.fractions, back.metrics, back.strength) == ((0.5, 1.0), (0.1, 1 / 3), None)
    for found in back.states:
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)
    with pytest.raises(ValueError, match="does not match"):
        unpack(packed, "another key")


def test_half_written_files_of_killed_runs_are_removed(owner, task, tmp_path):
    stale, fresh = tmp_path / ".old.1.tmp", tmp_path / ".new.2.tmp"
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    build_zoo(owner, task, positives=1, negatives=1, cache=tmp_path)
    assert not stale.exists()
    assert fresh.exists()


def test_an_unusable_cache_folder_is_refused(owner, task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        build_zoo(owner, task, cache=tmp_path / "file" / "zoo")


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
    with pytest.raises(InputError, match="lacks loss, train"):
        build_zoo(HeadFirst(64, 10), object())
    with pytest.raises(InputError, match="thief_task has inputs of shape"):
        build_zoo(owner_of("regression"), task_of("regression"), thief_task=Regression(np.eye(4), np.ones(4)))
    with pytest.raises(InputError, match="other_task has 4 outputs, expected 10"):
        build_zoo(owner_of("classification"), task_of("classification"), other_task=four_classes())
    with pytest.raises(ObfuscationError, match="extract_labels makes no sense for a regression task"):
        build_zoo(owner_of("regression"), task_of("regression"), families=["extract_labels"])


@pytest.mark.parametrize("name", ["regression", "generation"])
def test_other_tasks_have_zoos_too(name):
    zoo = build_suspects(owner_of(name), task_of(name), positives=12, negatives=4)
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
    for module in ("plan", "training", "stages"):
        monkeypatch.setattr(f"metav.zoo.{module}.OBFUSCATIONS", {**OBFUSCATIONS, "fragile": entry})
    zoo = build_zoo(owner, task, positives=1, negatives=1, families=["fragile"])
    assert zoo.positives[0].strength == pytest.approx(0.2)


def test_a_relative_cache_is_where_the_caller_is_now(owner, tmp_path, monkeypatch):
    """Worker processes outlive a call, and may stand in another folder than their caller."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        build_zoo(
            owner, small_task(epochs=0.05), positives=1, negatives=2, families=["weight_noise"], jobs=2, cache="zoo"
        )
        assert len(list((tmp_path / name / "zoo").glob("*.safetensors"))) == 3


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
