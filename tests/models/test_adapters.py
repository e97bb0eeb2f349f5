"""Users' models as models from one tensor to one tensor: what is left as it is, what is adapted, and how."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from output_cases import (
    MASK,
    Dense,
    Masked,
    Net,
    classification,
    multi_label,
    segmentation,
    steps,
    two_classes,
    vectors,
)
from small_models import bits
from torch import nn
from torch.nn import functional

import metav
from metav.errors import InputError, ModelError
from metav.models.adapters import AdaptedModel, adapted_architecture, adapted_like, bare, output_name
from metav.models.architectures import OwnerArchitecture, build
from metav.models.ensembles import Ensemble
from metav.models.identity import architecture_identity, state_digest
from metav.models.running import copied
from metav.support.model_interface import ModelInterface
from metav.support.randomness import isolated_rng

QUERIES = torch.from_numpy(vectors()[:8].copy())


class Moved(nn.Module):
    def forward(self, answers):
        return answers.movedim(1, -1)


def both(_, features, scores):
    return {"first": -scores, "second": scores}


def made(model, task=None, **interface):
    return (classification() if task is None else task).adapted(model, ModelInterface(**interface))


@pytest.mark.parametrize(
    ("model", "task"),
    [
        (Net, classification),
        (lambda: nn.Sequential(nn.Linear(6, 3)), classification),
        (lambda: Net(outputs=2), two_classes),
        (lambda: Net(outputs=4), multi_label),
        (lambda: Dense(3), segmentation),
        (lambda: Dense(3, stride=2), segmentation),
    ],
)
def test_a_model_from_a_tensor_to_a_tensor_is_left_as_it_is(model, task, untouched_rng):
    with isolated_rng(0):
        given = model().train()
    before = bits(given)
    assert task().adapted(given) is given
    assert given.training
    assert bits(given) == before


def test_an_adapted_model_shares_its_weights_and_trains_them():
    model = Net(both)
    adapted = made(model, output="second")
    assert isinstance(adapted, AdaptedModel)
    assert bare(adapted) is model
    assert output_name(adapted) == "second"
    assert torch.equal(adapted(QUERIES), model(QUERIES)["second"])
    adapted(QUERIES).sum().backward()
    assert model.head.weight.grad is not None


def test_training_and_metric_take_the_users_own_model():
    task, model = classification(epochs=8), Net(lambda _, f, z: (f, z))
    seen = []
    assert task.train(model, seed=0, on_epoch=lambda share, trained: seen.append(trained)) is model
    assert seen
    assert all(trained is model for trained in seen)
    with torch.no_grad():
        held = task.validation_indices
        right = (model(task.examples[held])[1].argmax(dim=1) == task.targets[held]).float().mean()
    assert task.metric(model) == pytest.approx(float(right))
    assert task.metric(model) > task.baseline
    student = task.train(Net(), seed=1, teacher=model)
    assert task.metric(student) > task.baseline


@pytest.mark.parametrize("clone", [copy.deepcopy, copied, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_an_adapted_model_answers_the_same_and_shares_nothing(clone):
    model = metav.adapt_model(Masked(), input="values", constants={"mask": MASK, "scale": 2.0})
    twin = clone(model)
    answers = model(QUERIES)
    assert torch.equal(twin(QUERIES), answers)
    assert state_digest(twin) == state_digest(model)
    nn.init.zeros_(twin.inner.body.weight)
    assert torch.equal(model(QUERIES), answers)


def first(answer):
    return answer["first"]


def test_the_identity_changes_with_all_that_decides_the_answer():
    model = Net(both)
    identities = [
        architecture_identity(metav.adapt_model(model, output=output)) for output in ("first", "second", 0, first)
    ]
    masked = Masked()
    for constants in ({"mask": MASK}, {"mask": 2 * MASK}, {"mask": MASK, "scale": 2.0}):
        identities.append(architecture_identity(metav.adapt_model(masked, input="values", constants=constants)))
    assert len(set(identities)) == len(identities)
    again = metav.adapt_model(copy.deepcopy(masked), input="values", constants={"mask": MASK.copy()})
    assert architecture_identity(again) == identities[4]


def test_constants_are_no_weights_and_go_where_the_model_goes():
    model = metav.adapt_model(Masked(), input="values", constants={"mask": MASK})
    assert [name for name in model.state_dict() if "mask" in name] == []
    assert model.double()(QUERIES.double()).dtype == torch.float64
    half = metav.adapt_model(Masked(), input="values", constants={"mask": MASK[0]})
    assert torch.equal(half(QUERIES), half.inner.body(QUERIES * torch.from_numpy(MASK)))


def test_models_of_the_same_class_are_adapted_like_the_owner():
    owner = made(Net(both), output="second")
    other = Net(both)
    adapted = adapted_like(other, owner)
    assert torch.equal(adapted(QUERIES), other(QUERIES)["second"])
    assert adapted_like(adapted, owner).inner is not adapted
    assert adapted_like(other, Net()) is other
    fresh = OwnerArchitecture(owner)()
    assert fresh(QUERIES).shape == (8, 3)


def test_architectures_are_adapted_where_they_need_it():
    task = classification()
    plain = adapted_architecture(Net, task.adapted)
    assert plain is Net
    pairs = adapted_architecture(lambda: Net(lambda _, f, z: (f, z)), task.adapted)
    assert build(pairs, 1)(QUERIES).shape == (8, 3)
    assert not torch.equal(build(pairs, 1)(QUERIES), build(pairs, 2)(QUERIES))


def test_adapted_models_run_together_as_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("METAV_CACHE_DIR", str(tmp_path))
    models = [metav.adapt_model(Net(both), output="second").eval() for _ in range(6)]
    together, alone = Ensemble(models, QUERIES), Ensemble(models)
    assert torch.allclose(together.responses(QUERIES), alone.responses(QUERIES), atol=1e-5)


# One number, and chances ---------------------------------------------------------------------------------------------


def test_one_logit_is_trained_by_the_binary_cross_entropy():
    task, model = two_classes(), Net(outputs=1)
    scores = task.adapted(model)(QUERIES)
    assert scores.shape == (8, 2)
    labels = task.targets[:8]
    wanted = functional.binary_cross_entropy_with_logits(model(QUERIES)[:, 0], labels.float())
    assert task.loss(scores, labels).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("shape", [lambda z: z, lambda z: z[:, 0]])
def test_a_chance_is_told_from_a_logit_whatever_the_answers_happen_to_be(shape):
    task = two_classes()
    logits, chances = Net(lambda _, f, z: shape(z), 1), Net(lambda _, f, z: shape(z).sigmoid(), 1)
    with torch.no_grad():
        for model in (logits, chances):
            model.head.weight.mul_(1e-3)
            model.head.bias.fill_(0.6)
        assert ((logits(QUERIES) > 0) & (logits(QUERIES) < 1)).all()
    assert not task.adapted(logits).are_chances
    adapted = task.adapted(chances)
    assert adapted.are_chances
    expected = chances(QUERIES).reshape(-1)
    assert torch.allclose(adapted(QUERIES).softmax(dim=1)[:, 1], expected, atol=1e-5)


def test_chances_of_labels_become_log_odds():
    model = Net(lambda _, f, z: z.sigmoid(), 4)
    adapted = multi_label().adapted(model)
    assert torch.allclose(adapted(QUERIES).sigmoid(), model(QUERIES), atol=1e-5)
    assert torch.isfinite(adapted(1e6 * QUERIES)).all()


def test_classes_behind_the_places_are_moved_before_them():
    task = steps()
    first = Dense(3, axes=1)
    behind = nn.Sequential(first, Moved())
    adapted = task.adapted(behind)
    assert torch.equal(adapted(task.examples[:4]), first(task.examples[:4]))
    assert task.adapted(first) is first


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metav.adapt_model(len), ModelError, "model must be a torch.nn.Module, got builtin_function"),
        (lambda: metav.adapt_model(Net(), input="images"), InputError, "forward of Net has no input 'images'"),
        (lambda: metav.adapt_model(Net(), input=3), InputError, "input must be the name of a parameter"),
        (lambda: metav.adapt_model(Net(), output=2.5), InputError, "output must be a name, a number or a function"),
        (lambda: metav.adapt_model(Net(), output=True), InputError, "output must be a name, a number or a function"),
        (lambda: metav.adapt_model(Net(), constants=[1]), InputError, "constants must map names"),
        (
            lambda: metav.adapt_model(Masked(), input="mask", constants={"mask": MASK}),
            InputError,
            "'mask' cannot carry the queries and be constant",
        ),
        (lambda: metav.adapt_model(Net(both))(QUERIES), ModelError, "several parts may count: first"),
        (lambda: metav.adapt_model(Net(both), output=5)(QUERIES), ModelError, "has no part 5, but first"),
        (lambda: metav.adapt_model(Net(both), output=len)(QUERIES), ModelError, "gives int, expected one tensor"),
        (
            lambda: made(Net(lambda m, f, z: (z, -z) if m.training else z)),
            ModelError,
            r"answers several tensors .*: 0 \(2, 3\), 1 \(2, 3\)",
        ),
        (lambda: made(Net(both), output=lambda answer: answer["third"]), ModelError, "does not fit the model"),
        (lambda: made(Net(lambda _, f, z: z[0]), output=0), ModelError, r"is \(3,\), expected a tensor of shape"),
    ],
)
def test_what_cannot_be_adapted_is_refused_with_what_there_is(call, error, message):
    with pytest.raises(error, match=message):
        call()
