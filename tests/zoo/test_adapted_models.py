"""Zoos of models with several outputs and inputs: in workers, from the cache, by the recipe, beside other classes."""

from __future__ import annotations

import warnings

import pytest
import torch
from output_cases import MASK, OPTIONS, classification, vectors
from torch import nn

import metav
from metav.errors import ModelError
from metav.models.adapters import AdaptedModel
from metav.models.identity import state_digest
from metav.support.randomness import isolated_rng

SIZES = {"positives": 6, "negatives": 6, "snapshots": 1, "free_negatives": False}
FAMILIES = ("finetune_all", "weight_noise", "distill_other", "extract_labels")


class Owner(nn.Module):
    """Several inputs, several outputs that fit."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, mask, values):
        scores = self.head(torch.relu(self.body(values * mask)))
        return {"shifted": scores - 1.0, "logits": scores}


class Other(nn.Module):
    """Of another class, with one input and one name less."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 3)

    def forward(self, values):
        return (self.body(values), values)


class Second(nn.Module):
    """Of a third class, which takes no name that the owner's takes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, inputs):
        return self.body(inputs)


HOW = {"output": "logits", "input": "values", "constants": {"mask": MASK}}


def recipe(seed: int) -> nn.Module:
    """The user's own loop, which calls the user's own model."""
    torch.manual_seed(seed)
    model, optimizer = Owner(), None
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    task = classification()
    for _ in range(15):
        answer = model(mask=torch.from_numpy(MASK), values=task.examples)
        optimizer.zero_grad()
        nn.functional.cross_entropy(answer["logits"], task.targets).backward()
        optimizer.step()
    return model


def build(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        owner = recipe(1)
        changed = {**SIZES, "families": FAMILIES, "architectures": [Other, Second], "recipe": recipe, **HOW, **options}
        independent = [] if options.get("recipe", recipe) is None else [recipe(77)]
        return owner, metav.build_zoo(owner, classification(), independent=independent, **changed)


def digests(zoo):
    return [state_digest(entry.model) for entry in zoo]


def test_a_zoo_is_the_same_from_the_cache(tmp_path):
    _, zoo = build(cache=tmp_path / "cache")
    assert {entry.family for entry in zoo} >= {*FAMILIES, "independent_same_recipe", "independent_given"}
    assert {entry.architecture for entry in zoo} >= {-1, 0, 1}
    queries = torch.from_numpy(vectors()[:5].copy())
    for entry in zoo:
        assert entry.model(queries).shape == (5, 3)
    own = [entry.model for entry in zoo if entry.architecture == 0]
    assert all(isinstance(model, AdaptedModel) and isinstance(model.inner, Owner) for model in own)
    trained = sorted((tmp_path / "cache").rglob("*.*"))
    assert digests(build(cache=tmp_path / "cache")[1]) == digests(zoo)
    assert sorted((tmp_path / "cache").rglob("*.*")) == trained


@pytest.mark.slow
def test_a_zoo_is_the_same_in_workers():
    assert digests(build(jobs=2)[1]) == digests(build()[1])


def test_a_zoo_tells_the_fingerprint_how_models_are_asked():
    owner, zoo = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fp = metav.fingerprint(owner, classification(), zoo=zoo, options=OPTIONS, target_fpr=0.4)
    assert fp.task.output_name == "logits"
    asked = {"input": "values", "constants": {"mask": MASK}}
    # the part with the owner's name is taken where several fit
    assert metav.verify(fp, owner, **asked).score == pytest.approx(fp.check["owner_score"], abs=1e-5)
    other = metav.verify(fp, owner, output="shifted", **asked)
    assert other.score == pytest.approx(fp.check["owner_score"], abs=1e-3)  # a shift of all logits is no difference
    assert metav.verify(fp, owner).reason == "failed"
    suspects = [(owner, True, "own"), (recipe(5), False, "recipe"), (recipe(6), False, "recipe")]
    assert metav.evaluate(fp, suspects, **asked).inconclusive == 0
    assert metav.evaluate(fp, zoo).inconclusive < len(zoo)
    with pytest.raises(metav.InputError, match="output and input and constants are for a zoo"):
        metav.fingerprint(owner, classification(), zoo=zoo, **HOW)


def test_zoos_with_another_output_are_other_zoos():
    first, second = build(families=FAMILIES[:1])[1], build(families=FAMILIES[:1], output="shifted")[1]
    assert first.owner_digest != second.owner_digest
    assert first.interface.output == "logits"


def test_suspects_are_asked_in_the_same_way():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        suspects = metav.build_suspects(
            recipe(1), classification(), positives=3, negatives=4, families=FAMILIES[:2], architectures=[Second], **HOW
        )
    assert all(entry.model(torch.zeros(2, 6)).shape == (2, 3) for entry in suspects)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": [lambda: Masked()]},
            r"architectures\[0\] does not fit the task: .* answers several tensors",
        ),
        ({"independent": [nn.Linear(6, 4)]}, r"independent\[0\] does not fit the task: .* with shape \(2, 4\)"),
        ({"recipe": lambda seed: Second()}, r"returns a Second whose .* has shape .* as in the owner's Owner"),
    ],
)
def test_models_that_do_not_fit_are_named(change, message):
    with isolated_rng(0), pytest.raises(ModelError, match=message):
        metav.build_zoo(recipe(1), classification(), **{**SIZES, "families": FAMILIES[:1], **HOW, **change})


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 3)

    def forward(self, inputs):
        return {"one": self.body(inputs), "two": -self.body(inputs)}
