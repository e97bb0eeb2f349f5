"""What an owner's model is asked before anything is trained, and the messages that name what stands in the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_cases import CASES, Function, examples, function_of_mlp, mlp, tokens, trained
from torch import nn
from torch.utils.checkpoint import checkpoint

import metav
from metav.errors import ModelError
from metav.tasks.model_checks import check_backward, check_differentiable, check_trainable, no_gradient_reason


@pytest.fixture(scope="module")
def task():
    return metav.Classification(*examples(), epochs=1, batch_size=16, validation=0.0)


class Stairs(torch.autograd.Function):
    """An operation without a gradient of its own."""

    @staticmethod
    def forward(context, inputs):
        return inputs.clone()

    @staticmethod
    def backward(context, gradient):
        raise NotImplementedError("this operation has no gradient")


NOT_DIFFERENTIABLE = {
    r"ends before body\.0 \(Flatten\)": lambda: function_of_mlp(lambda body, x: body(x.detach())),
    r"ends before table \(Embedding\)": tokens,
    r"is 0 everywhere \(round\)": lambda: function_of_mlp(lambda body, x: body((x * 8).round() / 8)),
    r"is 0 everywhere \(sign\)": lambda: nn.Sequential(Function(lambda self, x: x.sign()), mlp()),
    r"ends in 1 \(Argmax\)": lambda: nn.Sequential(mlp(), Argmax()),
    r"Can't call numpy\(\).*it fails in 0 \(Function\)": lambda: nn.Sequential(
        Function(lambda self, x: torch.from_numpy(np.tanh(x.numpy()))), mlp()
    ),
    r"this operation has no gradient": lambda: function_of_mlp(lambda body, x: body(Stairs.apply(x))),
    r"NaN or infinite": lambda: function_of_mlp(lambda body, x: body(x + (x * 0.0).square().sqrt())),
    r"torch\.autograd\.grad|\.grad\(\)": lambda: function_of_mlp(
        lambda body, x: checkpoint(body, x, use_reentrant=True)
    ),
}


class Argmax(nn.Module):
    def forward(self, scores):
        return nn.functional.one_hot(scores.argmax(dim=1), 3).float()


@pytest.mark.parametrize("message", NOT_DIFFERENTIABLE)
def test_where_a_gradient_ends_is_named_before_anything_is_trained(message, task, monkeypatch):
    monkeypatch.setattr("metav.fingerprinting.build_zoo", lambda *_, **__: pytest.fail("a zoo was built"))
    model = NOT_DIFFERENTIABLE[message]()
    with pytest.raises(ModelError, match=rf"(?s)queries cannot be optimised on the owner's model: .*{message}"):
        metav.fingerprint(model, task)
    with pytest.raises(ModelError, match=r"adaptive=0\.0"):
        check_differentiable(model, task)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_without_a_gradient_can_be_asked_natural_inputs(task):
    owner = trained("numbers of tokens, cast and looked up")
    zoo = metav.build_zoo(owner, task, positives=14, negatives=6, snapshots=0, free_negatives=False)
    assert "adversarial_train" not in {entry.family for entry in zoo}
    options = metav.OptimizationOptions(adaptive=0.0, repeats=1, refit_steps=20)
    fp = metav.fingerprint(owner, task, zoo=zoo, queries=12, options=options, target_fpr=0.3)
    assert metav.verify(fp, owner).logit is not None
    assert not np.setdiff1d(fp.queries, task.examples.numpy()).size


def test_sure_probabilities_and_unused_parts_pass(task):
    sure = nn.Sequential(mlp(), Function(lambda self, x: (1e4 * x).softmax(dim=1)))
    assert no_gradient_reason(sure, task) is None
    extra = Function(lambda self, x: self.body(x), body=mlp(), unused=nn.Linear(2, 2))
    check_differentiable(extra, task)
    check_trainable(extra, task)


def test_the_model_that_is_checked_stays_as_it_was(task):
    model = trained("`Conv2d`, `BatchNorm2d`").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_trainable(model, task)
    check_differentiable(model, task)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in model.modules())
    assert all(entry.grad is None and entry.requires_grad for entry in model.parameters())


class FailsInTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, inputs):
        if self.training:
            raise RuntimeError("exported for inference")
        return self.body(inputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (FailsInTraining, "fails in training mode on a batch of 4"),
        (lambda: trained("`torch.no_grad` inside"), "no gradient reaches the model's weights"),
        (lambda: trained("`quantize_dynamic`"), r"quantised weights in 1 \(Linear\), 3 \(Linear\).*the float model"),
        (lambda: Function(lambda self, x: x[:, 0, :3]), "the model has no parameters to train"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_trained(model, message, task, monkeypatch):
    monkeypatch.setattr("metav.zoo.building.train_plan", lambda *_, **__: pytest.fail("a model was trained"))
    with pytest.raises(ModelError, match=message):
        metav.build_zoo(model(), task)


def test_a_forward_on_another_device_is_told_where_it_was_asked(task):
    model = function_of_mlp(lambda body, x: body(x) + torch.zeros(3, device="meta"))
    with pytest.raises(ModelError, match="asked on cpu, where its first parameter lies: keep all its parts there"):
        metav.build_zoo(model, task)


def test_a_failing_pass_back_of_others_is_refused_too(task):
    with pytest.raises(ModelError, match="fails in the pass back to its inputs"):
        check_backward(function_of_mlp(lambda body, x: body(Stairs.apply(x))), task)
    check_backward(tokens(), task)
    options = {"positives": 1, "negatives": 2}
    with pytest.raises(ModelError, match=r"architectures\[0\] does not fit the task: .*pass back"):
        metav.build_zoo(
            mlp(), task, architectures=lambda: function_of_mlp(lambda body, x: body(Stairs.apply(x))), **options
        )


@pytest.mark.parametrize("name", ["`Conv2d`, `BatchNorm2d`", "`BatchNorm1d` without running statistics"])
def test_a_last_batch_of_one_stops_no_training(name):
    inputs, labels = examples(33)
    task = metav.Classification(inputs, labels, epochs=2, batch_size=16, validation=0.0)
    assert len(task.training_indices) % 16 == 1
    owner = task.train(CASES[name][0](), seed=0)
    for family in ("finetune_all", "prune_then_finetune", "distill", "extract_labels", "adversarial_train"):
        derived = getattr(metav.obfuscations, family)(owner, task, strength=0.5, seed=1)
        assert all(torch.isfinite(entry).all() for entry in derived.parameters())
