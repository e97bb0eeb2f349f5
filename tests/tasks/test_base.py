"""Tasks: hard validation, training as a pure function of its seed, metrics, parts of a task."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_models import HeadFirst, bits, digits, owner_of, task_of
from torch import nn

from metav.errors import InputError, ModelError
from metav.models.architectures import reinitialized
from metav.models.running import predict
from metav.tasks.base import Task
from metav.tasks.classification import Classification
from metav.tasks.generation import Generation
from metav.tasks.regression import Regression
from metav.tasks.user_tasks import REQUIRED_METHODS, as_task

TASKS = ("classification", "regression", "generation")


IMAGES, LABELS = digits()


SPOILED = IMAGES[:10].copy()


SPOILED[3, 0, 2, 2] = np.nan


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Classification(SPOILED, LABELS[:10]), "images must be finite, got 1 NaN"),
        (lambda: Classification(np.full((4, 2), np.inf), [0, 1, 0, 1]), "images must be finite"),
        (lambda: Classification(IMAGES[:10], LABELS[:9]), "same length, got 10 and 9"),
        (lambda: Classification(IMAGES[:0], LABELS[:0]), "images is empty"),
        (lambda: Classification(IMAGES[:1], [1], classes=2), "at least two examples"),
        (lambda: Classification(IMAGES[:4].astype(object), LABELS[:4]), "images must be an array of numbers"),
        (lambda: Classification(IMAGES[:4], ["a", 1, None, "b"]), "labels must be an array of numbers"),
        (lambda: Classification(IMAGES[:4], [0.0, 1.0, 0.0, 1.0]), "labels must be integers"),
        (lambda: Classification(IMAGES[:4], np.ones((4, 4), dtype=int)), "several labels per example"),
        (lambda: Classification(IMAGES[:4], np.full((4, 4), 0.25)), "soft labels"),
        (lambda: Classification(IMAGES[:4], [0, 1, 2, -1]), r"labels must lie in 0\.\.2, got -1\.\.2"),
        (lambda: Classification(IMAGES[:4], [0, 1, 2, 9], classes=3), r"labels must lie in 0\.\.2, got 0\.\.9"),
        (lambda: Classification(IMAGES[:4], [0, 0, 0, 0]), "at least 2 classes"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], bounds=(0.0, 0.1)), "images must lie within bounds"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], bounds=(1.0, 0.0)), "lower <= upper"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], bounds=(np.zeros(3), 1.0)), "shape"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], levels=1), "levels must be"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], validation=1.5), "validation must be"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], epochs=0), "epochs must be"),
        (lambda: Classification(IMAGES[:4], [0, 1, 0, 1], learning_rate=float("nan")), "learning_rate must be"),
        (lambda: Regression(np.ones(5), np.ones(5)), "inputs must have at least 2 dimensions"),
        (lambda: Regression(np.ones((5, 2)), [1.0, 2.0, np.nan, 1.0, 1.0]), "targets must be finite"),
        (lambda: Regression(np.ones((5, 2)), np.ones(4)), "same length, got 5 and 4"),
        (lambda: Regression(np.ones((5, 2)) * 1j, np.ones(5)), "inputs must be real"),
        (lambda: Generation(IMAGES[:5], latent=0), "latent must be"),
        (lambda: Generation(IMAGES[:5], latent=3, objective="magic"), "objective must be one of autoencode"),
        (lambda: Generation(SPOILED, latent=3), "samples must be finite"),
    ],
)
def test_unusable_data_is_refused_with_the_reason(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_data_are_copied_and_numpy_and_torch_give_the_same_task():
    images = IMAGES[:40].astype(np.float64)
    task = Classification(images, LABELS[:40].astype(np.uint8))
    same = Classification(torch.tensor(images), torch.tensor(LABELS[:40]))
    assert task.digest() == same.digest()
    images[:] = 5.0
    assert task.digest() == same.digest()
    assert float(task.examples.max()) <= 1.0


@pytest.mark.parametrize("change", [{"epochs": 3}, {"levels": 256}, {"bounds": (0.0, 2.0)}, {"validation": 0.3}])
def test_digest_changes_with_every_option(change):
    assert Classification(IMAGES, LABELS).digest() != Classification(IMAGES, LABELS, **change).digest()


def test_digest_changes_with_one_value_of_the_data():
    changed = IMAGES.copy()
    changed[5, 0, 3, 3] += 0.01
    assert Classification(IMAGES, LABELS).digest() != Classification(changed, LABELS).digest()


@pytest.mark.parametrize("name", TASKS)
def test_training_is_a_pure_function_of_its_seed(name, untouched_rng):
    task, owner = task_of(name), owner_of(name)
    first, again, other = (task.train(reinitialized(owner, 1), seed=seed, epochs=2) for seed in (3, 3, 4))
    assert bits(first) == bits(again)
    assert bits(first) != bits(other)
    assert not any(module.training for module in first.modules())
    assert all(parameter.grad is None for parameter in first.parameters())


@pytest.mark.parametrize("name", TASKS)
def test_training_beats_the_best_constant_answer(name):
    task, model = task_of(name), owner_of(name)
    gain = task.metric(model) - task.baseline
    assert (gain if task.higher_is_better else -gain) > 0.2 * abs(task.baseline)


def test_only_the_given_parameters_are_trained_and_batch_norm_stays_frozen():
    model = reinitialized(owner_of("classification"), 0)
    before = bits(model)
    task_of("classification").train(model, seed=1, parameters=model.head.parameters(), epochs=0.5)
    changed = {name for name, value in bits(model).items() if value != before[name]}
    assert changed == {"head.weight", "head.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", TASKS)
def test_a_student_approaches_its_teacher(name):
    task, teacher = task_of(name), owner_of(name)
    queries = task.natural_queries(40, seed=1)
    student = reinitialized(teacher, 5)
    before = (predict(student, queries) - predict(teacher, queries)).abs().mean()
    task.train(student, seed=2, teacher=teacher)
    assert (predict(student, queries) - predict(teacher, queries)).abs().mean() < 0.5 * before


def test_a_plain_function_can_teach():
    task = task_of("regression")
    model = task.train(
        reinitialized(owner_of("regression"), 0), seed=0, teacher=lambda inputs: 5.0 + 0.0 * inputs[:, :1]
    )
    assert float((predict(model, task.examples) - 5.0).abs().mean()) < 0.5


@pytest.mark.parametrize(("epochs", "calls"), [(0.001, [1.0]), (0.5, [1.0]), (2, [0.5, 1.0])])
def test_on_epoch_reports_the_share_done_without_changing_the_result(epochs, calls):
    task, shares = task_of("classification"), []

    def callback(share: float, model: nn.Module) -> None:
        shares.append(share)
        torch.rand(100)

    watched = task.train(reinitialized(owner_of("classification"), 1), seed=3, epochs=epochs, on_epoch=callback)
    alone = task.train(reinitialized(owner_of("classification"), 1), seed=3, epochs=epochs)
    assert shares == pytest.approx(calls)
    assert bits(watched) == bits(alone)


def test_diverging_training_is_reported():
    task = Regression(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40.0), learning_rate=1e30)
    with pytest.raises(ModelError, match="training diverged"):
        task.train(HeadFirst(3, 1), seed=0)


@pytest.mark.parametrize("count", [65, 129])
def test_batch_norm_survives_a_last_batch_of_one(count):
    task = Classification(IMAGES[:count], LABELS[:count], validation=0.0, epochs=1)
    task.train(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)), seed=0)


def test_metrics_agree_with_their_definitions():
    task, model = task_of("classification"), owner_of("classification")
    held = task.validation_indices
    answers = predict(model, task.examples[held]).numpy().argmax(1)
    assert task.metric(model) == pytest.approx((answers == task.targets[held].numpy()).mean())
    task, model = task_of("regression"), owner_of("regression")
    held = task.validation_indices
    answers = predict(model, task.examples[held]).numpy()[:, 0]
    assert task.metric(model) == pytest.approx(np.abs(answers - task.targets[held].numpy()).mean(), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_bootstrap_is_a_smaller_task_of_the_same_kind_and_bounds(name):
    task = task_of(name)
    part = task.bootstrap(1, 0.4)
    assert type(part) is type(task)
    assert abs(len(part.examples) - 0.4 * len(task.examples)) < 6
    assert torch.equal(part.lower, task.lower)
    assert part.outputs == task.outputs
    assert part.digest() == task.bootstrap(1, 0.4).digest() != task.bootstrap(2, 0.4).digest()
    assert len(torch.unique(part.examples.flatten(1), dim=0)) == len(part.examples)


@pytest.mark.parametrize("indices", [[0], [0, 9999], [-1, 2], [0.5, 1.0], [[0, 1]]])
def test_subset_refuses_bad_indices(indices):
    with pytest.raises(InputError, match="indices must"):
        task_of("regression").subset(indices)


def test_check_model_leaves_no_trace(untouched_rng):
    model = copy.deepcopy(owner_of("classification")).train()
    model.norm.eval()
    before, modes = bits(model), [module.training for module in model.modules()]
    task_of("classification").check_model(model)
    assert bits(model) == before
    assert [module.training for module in model.modules()] == modes


class Broken(nn.Module):
    def forward(self, inputs):
        return torch.full((len(inputs), 10), float("nan"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: HeadFirst(64, 7), r"answers inputs of shape \(2, 1, 8, 8\) with shape \(2, 7\), expected \(2, 10\)"),
        (lambda: HeadFirst(63, 10), r"failed on inputs of shape \(2, 1, 8, 8\)"),
        (lambda: Broken(), "NaN or infinite"),
        (lambda: nn.LSTM(8, 10, batch_first=True), "failed on inputs|one tensor"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_shapes(model, message):
    with pytest.raises(ModelError, match=message):
        task_of("classification").check_model(model())


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            Classification(IMAGES[:40], LABELS[:40], classes=10, epochs=4, levels=17),
            "Classification(40 examples, inputs of 1x8x8, 10 outputs, read as tempered, 17 levels, 4 epochs)",
        ),
        (
            Regression(IMAGES[:40].reshape(40, 64), np.ones((40, 2)), epochs=2.5),
            "Regression(40 examples, inputs of 64, 2 outputs, read as identity, 2.5 epochs)",
        ),
        (
            Generation(IMAGES[:40], latent=5, epochs=1),
            "Generation(40 examples, inputs of 5, 64 outputs, read as identity, 1 epochs)",
        ),
        (Task(), "Task(read as identity, 10 epochs)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_task_says_what_it_is(task, words):
    assert repr(task) == words


def test_an_object_in_place_of_a_task_says_whose_it_is():
    class Own:
        name, input_shape, lower, upper = "mine", (3, 2), torch.zeros(3, 2), torch.ones(3, 2)

        def __getattr__(self, name):
            if name in REQUIRED_METHODS:
                return lambda *_, **__: None
            raise AttributeError(name)

    words = repr(as_task(Own()))
    assert words == "UserTask(of class Own, inputs of 3x2, read as identity, a training loop of its own)"
