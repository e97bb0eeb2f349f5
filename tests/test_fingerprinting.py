"""From model to fingerprint: the same seed gives the same bytes, nothing of the user's is touched."""

# ruff: noqa: NPY002 (the legacy global state is the user's: it is what must come back unchanged)
from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import random
import re
import warnings

import numpy as np
import pytest
import torch
from small_fingerprints import (
    SMALL,
    make_fingerprint,
    small_fingerprint,
    small_options,
    small_owner,
    small_suspects,
    small_task,
    small_zoo,
    state_of,
)
from small_models import HeadFirst, digits, owner_of, task_of
from torch import nn

import metav
from metav.errors import InputError, ModelError, ZooError
from metav.fingerprinting import FEWEST_NEGATIVES
from metav.statistics.calibration import DEFAULT_FPR, Calibration
from metav.support.randomness import isolated_rng
from metav.zoo.standing import OwnerStanding, StandingRow


def small_call(**changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return metav.fingerprint(**{"owner": small_owner(), "task": small_task(), "zoo": small_zoo(), **changes})


# The same, and untouched ---------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_file(tmp_path):
    small_fingerprint().save(tmp_path / "first.metav")
    torch.rand(3), np.random.rand(3), random.random()
    make_fingerprint().save(tmp_path / "second.metav")
    assert (tmp_path / "first.metav").read_bytes() == (tmp_path / "second.metav").read_bytes()


def test_without_a_zoo_the_standard_one_is_built_or_taken_from_the_cache(tmp_path):
    images, labels = digits()
    task = metav.Classification(images[:60], labels[:60], epochs=1, bounds=(0.0, 1.0), validation=0.5)
    with isolated_rng(0):
        owner = HeadFirst(64, 10)
    task.train(owner, seed=0, epochs=20)
    options = {"options": small_options(queries=6, steps=2), "cache": tmp_path / "cache", "architectures": []}
    first, second = (small_call(owner=owner, task=task, zoo=None, **options) for _ in range(2))
    assert (first.zoo["positives"], first.zoo["negatives"]) == (48, 48)
    assert second.commitment == first.commitment
    assert os.listdir(tmp_path) == ["cache"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"queries": 12}, {"target_fpr": 0.2}])
def test_another_choice_gives_another_fingerprint(change):
    fp = make_fingerprint(**change)
    assert fp.commitment != small_fingerprint().commitment


def test_model_and_random_state_are_untouched():
    model = copy.deepcopy(small_owner()).train()
    model.body.eval()
    model.head.bias.requires_grad_(False)
    model(torch.ones(2, 1, 8, 8)).sum().backward()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = state_of(model)
    torch.manual_seed(11), np.random.seed(11), random.seed(11)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    zoo = metav.build_zoo(model, small_task(), **SMALL)
    small_call(owner=model, zoo=zoo, options=small_options(steps=3))
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


def test_surrogates_are_untouched():
    before = [state_of(entry.model) for entry in small_zoo()]
    make_fingerprint(seed=5)
    assert [state_of(entry.model) for entry in small_zoo()] == before


def test_a_fingerprint_tells_what_it_was_made_from():
    fp = small_fingerprint()
    task, zoo = small_task(), small_zoo()
    assert fp.queries.shape == (20, 1, 8, 8)
    assert fp.adaptive == 15
    assert (fp.queries >= 0).all()
    assert (fp.queries <= 1).all()
    assert (fp.task.name, fp.task.view, fp.task.outputs, fp.task.input_shape) == (
        "classification",
        "tempered",
        10,
        (1, 8, 8),
    )
    assert fp.task.metric_name == "accuracy"
    assert np.array_equal(fp.lower, task.lower.numpy())
    assert fp.zoo == zoo.summary() | {"families": fp.zoo["families"]}
    assert fp.options["queries"] == 20
    assert fp.seed == 0
    assert fp.versions["torch"] == torch.__version__
    assert fp.versions["metav"] == metav.__version__
    assert fp.history["steps"] <= 20
    assert fp.calibration.target_fpr == DEFAULT_FPR == 0.01
    assert fp.format_version == 2


def test_a_fingerprint_keeps_the_answers_of_all_models_of_its_zoo():
    fp, zoo = small_fingerprint(), small_zoo()
    models = fp.calibration_models
    assert len(models.responses) == 1 + len(zoo) + len(zoo.free)
    assert models.shares.count("owner") == 1
    for share in ("optimize", "select", "calibrate"):
        kept = [family for family, own in zip(models.families, models.shares, strict=True) if own == share]
        assert sorted(kept) == sorted(entry.family for entry in zoo.share(share, free=True))
    calibrating = zoo.share("calibrate")
    assert fp.calibration.positives.size == sum(entry.is_positive for entry in calibrating)
    negatives = sum(not entry.is_positive for entry in calibrating)
    assert fp.calibration.negatives.size == negatives == models.independent.sum()
    with torch.no_grad():
        answers = small_owner()(torch.from_numpy(fp.queries.copy())).numpy()
    assert models.responses[0] == pytest.approx(answers, abs=1e-4)


def test_the_true_answers_of_the_natural_queries_are_kept():
    fp, task = small_fingerprint(), small_task()
    examples = task.examples.numpy().reshape(len(task.examples), -1)
    natural = fp.queries[fp.adaptive :].reshape(len(fp.truth), -1)
    for query, truth in zip(natural, fp.truth, strict=True):
        assert truth in task.targets.numpy()[(examples == query).all(axis=1)]


def test_with_kin_in_the_zoo_labels_are_read_on_their_own_too(tmp_path):
    standing = OwnerStanding(rows=(), models=12, recipe="told", stretches=0)
    zoo = dataclasses.replace(small_zoo(), standing=standing)
    fp = make_fingerprint(zoo=zoo, options=small_options(queries=60))
    of_labels = [member for member in fp.meta_verifier.members if member.name == "mlp:all:label"]
    assert {member.verifier.view for member in of_labels} == {"label"}
    assert 0 < sum(member.weight for member in of_labels) < 0.5
    queries = torch.from_numpy(fp.queries.copy())
    with torch.no_grad():
        answers = torch.stack([model(queries) for model in (small_owner(), changed_owner())]).numpy()
    fp.save(tmp_path / "told.metav")
    np.testing.assert_array_equal(metav.load(tmp_path / "told.metav").logits(answers), fp.logits(answers))
    # what is read of labels alone does not depend on the scores
    sharper = np.stack([answers[0], answers[0] ** 3])
    for member in of_labels:
        first, second = member.raw_logits(sharper)
        assert first == second


def test_a_fingerprint_is_tried_on_itself():
    fp, zoo = small_fingerprint(), small_zoo()
    verdict = metav.verify(fp, small_owner())
    assert fp.check["owner_matches"] == (verdict.decision is metav.Decision.MATCH) is True
    assert fp.check["owner_score"] == pytest.approx(verdict.score, abs=1e-3)
    assert fp.check["true_positives"] == fp.calibration.true_positives.to_dict()
    assert fp.check["false_positives"] == fp.calibration.false_positives.to_dict()
    shares = ("optimize", "select", "calibrate")
    assert fp.check["free_negatives"] == {name: sum(entry.share == name for entry in zoo.free) for name in shares}
    assert sum(fp.check["free_negatives"].values()) == len(zoo.free) > 0
    assert fp.check["natural_queries"] == len(fp.truth) == 5
    assert fp.check["standing"] == json.loads(json.dumps(zoo.standing.to_dict()))


def test_queries_override_the_options():
    assert len(make_fingerprint(queries=7).queries) == 7
    assert len(make_fingerprint(queries=None).queries) == 20


def test_the_fingerprint_tells_the_owner_from_strangers():
    fp = small_fingerprint()
    assert metav.verify(fp, small_owner()).decision is metav.Decision.MATCH
    scores = [metav.verify(fp, entry.model).score for entry in small_suspects().negatives]
    assert metav.verify(fp, small_owner()).score > max(scores)


@pytest.mark.parametrize("name", ["regression", "generation"])
def test_other_tasks_have_fingerprints_too(name, tmp_path):
    owner = owner_of(name)
    task = task_of(name).subset(range(150))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        zoo = metav.build_zoo(owner, task, positives=6, negatives=6, snapshots=0, architectures=[])
        # so few independent models bear no lower rate
        fp = metav.fingerprint(owner, task, zoo=zoo, options=small_options(queries=8, steps=4), target_fpr=0.9)
    fp.save(tmp_path / "owner.metav")
    loaded = metav.load(tmp_path / "owner.metav")
    assert (loaded.task.name, loaded.task.view) == (name, "identity")
    assert loaded.task.outputs == task.outputs
    verdict = metav.verify(loaded, owner)
    assert verdict.reason is None
    assert verdict.score == metav.verify(fp, owner).score


# What cannot be fingerprinted ----------------------------------------------------------------------------------------


def test_too_few_negatives_for_the_rate_are_reported_with_how_many_would_do():
    said = r"only 5 independent models calibrate, .* false-positive rate of 0\.01 lies far above them; .* negatives=36"
    assert any(re.match(said, text) for text in warnings_of())
    runs = {entry.run for entry in small_zoo().negatives}
    assert math.ceil(FEWEST_NEGATIVES * len(runs) / 5) == 36


def test_enough_negatives_that_are_told_apart_need_no_warning(monkeypatch):
    monkeypatch.setattr("metav.fingerprinting.FEWEST_NEGATIVES", 5)
    assert warnings_of(target_fpr=0.3) == []


def test_few_derived_models_found_are_told_with_the_share(monkeypatch):
    monkeypatch.setattr("metav.fingerprinting.WEAK_TPR", 1.01)
    found = warnings_of(target_fpr=0.3)
    assert any(re.match(r"only \d+\.\d% \(\d/5, .* of the derived calibration models match", text) for text in found)


def test_an_owner_that_does_not_match_is_told_first(monkeypatch):
    """A rule that nobody reaches."""
    blind = Calibration(threshold=1e6, slope=1.0, target_fpr=0.01, negatives=np.zeros(20), positives=np.zeros(5))
    monkeypatch.setattr("metav.statistics.calibration_models.calibrate", lambda *_, **__: blind)
    found = warnings_of()
    assert len(found) == 1
    assert found[0].startswith("the owner's model itself does not match (score 0.000), so that this fingerprint finds")


@pytest.mark.parametrize(("recipe", "warned"), [("drawn", True), ("told", False)])
def test_an_owner_that_stands_apart_is_told_with_numbers_where_no_recipe_was(recipe, warned):
    row = StandingRow(quantity="confidence", part="training", owner=-0.5, lowest=-3.0, median=-2.0, highest=-1.5)
    apart = OwnerStanding(rows=(row,), models=9, recipe=recipe)
    found = warnings_of(zoo=dataclasses.replace(small_zoo(), standing=apart))
    told = [text for text in found if text.startswith("the owner's model stands apart")]
    assert bool(told) is warned
    if warned:
        assert "confidence on training data -0.5" in told[0]
        assert "-3 to -1.5" in told[0]
        assert "recipe=" in told[0]


def warnings_of(**changes) -> list[str]:
    """What the making of a small fingerprint warns of."""
    standing = None if "zoo" in changes else dataclasses.replace(small_zoo(), standing=None)
    options = {"zoo": standing, "options": small_options(), "progress": False, **changes}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metav.fingerprint(small_owner(), small_task(), **options)
    return [str(entry.message) for entry in caught]


def changed_owner() -> nn.Module:
    owner = copy.deepcopy(small_owner())
    with torch.no_grad():
        owner.head.bias[0] += 1e-3
    return owner


def changed_task() -> metav.Task:
    task = small_task()
    return metav.Classification(task.examples[:300], task.targets[:300], epochs=4, learning_rate=1e-2)


class Fits(nn.Module):
    def forward(self, inputs):
        return inputs.flatten(1)[:, :10] / 0.0


def one_class(is_positive: bool) -> metav.Zoo:
    zoo = small_zoo()
    return dataclasses.replace(zoo, models=tuple(entry for entry in zoo if entry.is_positive is is_positive))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda: {"owner": changed_owner()},
            ZooError,
            r"built for another owner .* build it again with metav.build_zoo",
        ),
        (lambda: {"task": changed_task()}, ZooError, r"built for another task .* build it again with metav.build_zoo"),
        (lambda: {"owner": HeadFirst(64, 9)}, ModelError, r"shape \(2, 9\), expected \(2, 10\) outputs"),
        (lambda: {"owner": HeadFirst(63, 10)}, ModelError, r"the model failed on inputs of shape \(2, 1, 8, 8\)"),
        (lambda: {"owner": Fits()}, ModelError, "NaN or infinite values"),
        (lambda: {"owner": "model"}, ModelError, "owner must be a torch.nn.Module, got str; pass the trained model"),
        (lambda: {"task": "digits"}, InputError, r"task of class str lacks loss\(\), train\(\), metric\(\)"),
        (lambda: {"zoo": [1]}, InputError, "zoo must be a Zoo or None, got list; make one with metav.build_zoo"),
        (lambda: {"zoo": one_class(True)}, ZooError, "and 0 negatives; it needs"),
        (lambda: {"zoo": one_class(False)}, ZooError, "has 0 positives"),
        (lambda: {"zoo": dataclasses.replace(small_zoo(), models=())}, ZooError, "has 0 positives and 0 negatives"),
        (lambda: {"architectures": [HeadFirst]}, InputError, "architectures are for a zoo that is still to be built"),
        (
            lambda: {"recipe": HeadFirst},
            InputError,
            "recipe is for a zoo that is still to be built; pass them to build",
        ),
        (lambda: {"independent": [small_owner()]}, InputError, "independent are for a zoo that is still to be built"),
        (lambda: {"queries": 0}, InputError, "queries must be a whole number from 1, got 0"),
        (lambda: {"queries": 2.5}, InputError, "queries must be a whole number from 1"),
        (lambda: {"queries": True}, InputError, "queries must be a whole number from 1"),
        (
            lambda: {"queries": 1700},
            InputError,
            "1700 queries need 425 different natural inputs, and the task has 400; ask for queries=1602 at most",
        ),
        (lambda: {"target_fpr": 0.0}, InputError, r"target_fpr must be a number in \(0, 1\), got 0\.0"),
        (lambda: {"target_fpr": float("nan")}, InputError, "target_fpr must be a number in"),
        (lambda: {"target_fpr": "5 %"}, InputError, "target_fpr must be a number in"),
        (lambda: {"seed": 0.5}, InputError, "seed must be a whole number, got 0.5"),
        (lambda: {"seed": None}, InputError, "seed must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        small_call(options=small_options(steps=1), **change())


def test_an_architecture_that_does_not_fit_is_refused_before_any_training():
    with pytest.raises(ModelError, match="expected"):
        small_call(zoo=None, architectures=[lambda: HeadFirst(64, 7)])


def test_bars_tell_the_time_left_of_the_whole_job_and_change_no_bit(capfd):
    silent = small_call(options=small_options(steps=2), progress=False)
    shown = small_call(options=small_options(steps=2), progress=True)
    assert shown.commitment == silent.commitment
    text = capfd.readouterr().err
    assert re.search(r"whole job, about \d.* left", text)
    assert text.index("whole job") < text.index("optimise") < text.index("verifiers") < text.index("calibrate")


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_progress_is_silent_off_a_terminal(progress, shown, capfd):
    small_call(options=small_options(steps=1), progress=progress)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert bool(captured.err) == shown
