"""A cached model is reused only while all that it was made from is the same, down to what its code refers to."""

from __future__ import annotations

import copy
import functools
import threading
import types
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from small_models import HeadFirst
from small_zoos import small_task
from torch import Tensor, nn

from metav.models.content_identity import UnidentifiedError, content_identity
from metav.support.randomness import isolated_rng
from metav.zoo.building import build_zoo

CHEAP = {"positives": 1, "negatives": 2, "families": ["weight_noise"], "snapshots": 0, "free_negatives": False}


def defined(source: str, **names: Any) -> types.ModuleType:
    """Code as a module of its own has it, made anew at each call."""
    module = types.ModuleType("users_own")
    vars(module).update({"nn": nn, "torch": torch, **names})
    exec(source, vars(module))
    return module


def rolled(batch: Tensor, steps: int) -> Tensor:
    return batch.roll(steps, dims=-1)


class Rolling:
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, batch: Tensor) -> Tensor:
        return batch.roll(self.steps, dims=-1)


class Scaling(nn.Module):
    """Its scale stands in no `repr`."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, batch: Tensor) -> Tensor:
        return batch * self.scale


def enclosing(steps: int) -> Any:
    return lambda batch: batch.roll(steps, dims=-1)


def with_default(steps: int) -> Any:
    def augment(batch: Tensor, steps: int = steps) -> Tensor:
        return batch.roll(steps, dims=-1)

    return augment


def with_helper(steps: int) -> Any:
    source = "def helper(batch):\n    return batch.roll({}, dims=-1)\ndef augment(batch):\n    return helper(batch)\n"
    return defined(source.format(steps)).augment


class Hidden(nn.Module):
    """A network whose attributes change what it computes, at equal weights and an equal `repr`."""

    def __init__(self, scale: float = 1.0, activation: Any = torch.relu, spread: float = 0.1) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(24, 10), nn.Linear(64, 24)
        self.scale, self.activation = scale, activation
        nn.init.normal_(self.body.weight, std=spread)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.head(self.activation(self.body(inputs.flatten(1))))


DERIVED = """
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, inputs):
        return {} * self.layer(inputs.flatten(1))
class Network(Base):
    pass
"""
HELPED = """
def helper(inputs):
    return {} * inputs.flatten(1)
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
    def forward(self, inputs):
        return self.layer(helper(inputs))
"""
TASK = """
class Base:
    def loss(self, outputs, targets):
        return {} * inner.loss(outputs, targets)
class Task(Base):
    name, input_shape, lower, upper = inner.name, inner.input_shape, inner.lower, inner.upper
    def __init__(self, margin):
        self.margin = margin
    def metric(self, model):
        return inner.metric(model)
    def natural_queries(self, count, *, seed):
        return inner.natural_queries(count, seed=seed)
    def digest(self):
        return "mine"
    def bootstrap(self, seed, fraction=0.5):
        return self
    def train(self, model, *, seed, teacher=None, parameters=None, epochs=None):
        return inner.train(model, seed=seed)
"""


def own_task(margin: float = 1.0, factor: float = 1.0) -> Any:
    """A user's task that states its digest by hand, and forgets something."""
    return defined(TASK.format(factor), inner=small_task(epochs=0.05)).Task(margin)


class Recipe:
    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    def __call__(self, seed: int) -> nn.Module:
        return trained_by_recipe(seed, self.epochs)


def trained_by_recipe(seed: int, epochs: float) -> nn.Module:
    return small_task(epochs=epochs).train(HeadFirst(64, 10), seed=seed)


def recipe_with_module(epochs: float) -> Any:
    """A recipe that takes a helper out of a module of the user's."""
    helpers = defined(f"def train(seed):\n    return trained(seed, {epochs})\n", trained=trained_by_recipe)
    return defined("def recipe(seed):\n    return helpers.train(seed)\n", helpers=helpers).recipe


def other_owner(owner: nn.Module, scale: float) -> nn.Module:
    changed = Hidden(scale)
    changed.load_state_dict(owner.state_dict())
    return changed


CHANGES: dict[str, Any] = {
    "an augmentation's partial": lambda n, owner: {"augment": functools.partial(rolled, steps=n)},
    "an augmentation's closure": lambda n, owner: {"augment": enclosing(n)},
    "an augmentation's attribute": lambda n, owner: {"augment": Rolling(n)},
    "an augmentation's default": lambda n, owner: {"augment": with_default(n)},
    "an augmentation's helper": lambda n, owner: {"augment": with_helper(n)},
    "an augmentation's buffer": lambda n, owner: {"augment": Scaling(float(n))},
    "an architecture's attribute": lambda n, owner: {"architectures": [lambda: Hidden(float(n))]},
    "an architecture's activation": lambda n, owner: {
        "architectures": [functools.partial(Hidden, activation=(torch.relu, torch.tanh)[n - 1])]
    },
    "an architecture's initial weights": lambda n, owner: {"architectures": [lambda: Hidden(spread=0.1 * n)]},
    "an architecture's base class": lambda n, owner: {"architectures": [defined(DERIVED.format(n)).Network]},
    "an architecture's helper": lambda n, owner: {"architectures": [defined(HELPED.format(n)).Network]},
    "the owner's attribute": lambda n, owner: {"owner": other_owner(owner, float(n))},
    "a task's attribute": lambda n, owner: {"task": own_task(margin=float(n))},
    "a task's base class": lambda n, owner: {"task": own_task(factor=float(n))},
    "a recipe's attribute": lambda n, owner: {"recipe": Recipe(5 + n)},
    "a recipe's module": lambda n, owner: {"recipe": recipe_with_module(5 + n)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_models_are_made_from_is_noticed(change, owner, tmp_path, trainings):
    """Each definition is made anew for each build, so that only its content can tell it apart."""

    def build(version: int) -> list[str]:
        options = {"architectures": [], **CHANGES[change](version, owner)}
        task = options.pop("task", None) or small_task(epochs=0.05, augment=options.pop("augment", None))
        before = len(trainings)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*independent models of the owner's own class are much worse")
            build_zoo(options.pop("owner", owner), task, cache=tmp_path, **CHEAP, **options)
        return sorted(trainings[before:])

    first = build(1)
    assert len(first) == 3
    assert build(1) == []
    concerned = [run for run in first if "recipe" not in change or "same_recipe" in run]
    assert build(2) == concerned
    assert build(1) == build(2) == []


@pytest.mark.parametrize("where", ["task", "architecture", "recipe"])
def test_what_has_no_content_is_not_reused_and_said(where, owner, tmp_path, trainings):
    """The lock stands for open files, connections and whatever else is more than its content."""
    lock = threading.Lock()

    def augment(batch: Tensor) -> Tensor:
        with lock:
            return batch.roll(1, dims=-1)

    def recipe(seed: int) -> nn.Module:
        with lock:
            return trained_by_recipe(seed, 6)

    def network() -> nn.Module:
        with lock:
            return HeadFirst(64, 10)

    options: dict[str, Any] = {"task": small_task(epochs=0.2), "architectures": []}
    options |= {
        "task": {"task": small_task(epochs=0.2, augment=augment)},
        "architecture": {"architectures": [network]},
        "recipe": {"recipe": recipe},
    }[where]
    task = options.pop("task")
    expected = {
        "task": r"task is still the same \(task\.augment, which encloses lock \(lock\) has no content",
        "architecture": r"architectures\[0\] is still the same \(architectures\[0\], which encloses lock",
        "recipe": r"the recipe is still the same .* so that the cache is not used for its models, neither read nor",
    }[where]
    for _ in range(2):
        with pytest.warns(UserWarning, match=expected):
            build_zoo(owner, task, cache=tmp_path, **CHEAP, **options)
    again = [run for run in trainings[3:] if where != "recipe" or "same_recipe" in run]
    assert trainings[3:] == again != []
    assert len(list(tmp_path.iterdir())) == (3 - len(again))


def test_an_architecture_with_a_generator_of_its_own_is_not_reused_and_said(owner, tmp_path):
    numbers = np.random.default_rng()

    def network() -> nn.Module:
        model = HeadFirst(64, 10)
        model.body.bias.data.fill_(numbers.random())
        return model

    with pytest.warns(UserWarning, match="other initial weights at each call with the same seed"):
        build_zoo(owner, small_task(epochs=0.2), cache=tmp_path, architectures=[network], **CHEAP)
    assert not list(tmp_path.iterdir())


def test_a_class_says_what_no_model_depends_on():
    class Counting:
        not_in_identity = ("calls", "lock")

        def __init__(self, rate: float) -> None:
            self.rate, self.calls, self.lock = rate, 0, threading.Lock()

        @functools.cached_property
        def doubled(self) -> float:
            return 2 * self.rate

    first, second = Counting(1.0), Counting(1.0)
    second.calls = 3
    assert second.doubled == 2.0
    assert content_identity(first, "first") == content_identity(second, "second")
    assert content_identity(first, "first") != content_identity(Counting(2.0), "other")
    with pytest.raises(UnidentifiedError, match=r"things\[1\]\['lock'\] \(lock\) has no content"):
        content_identity([1, {"lock": threading.Lock()}], "things")


def test_objects_that_refer_to_each_other_have_an_identity():
    def knot(value: int) -> list[Any]:
        entries: list[Any] = [value, {"inside": None}, {"a", "b", "c"}]
        entries[1]["inside"] = entries
        return entries

    assert content_identity(knot(1), "knot") == content_identity(knot(1), "knot") != content_identity(knot(2), "knot")


def test_content_is_the_same_in_another_process_and_for_a_copy():
    """Neither addresses nor the order of sets, which differ from process to process, may enter."""
    import subprocess
    import sys
    from pathlib import Path

    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_cache_identity import Hidden, Rolling, own_task, isolated_rng, content_identity\n"
        "with isolated_rng(3):\n"
        "    model = Hidden()\n"
        "print(content_identity([model, Rolling(2), own_task(), {'b', 'a', 'd', 'c'}], 'all'))\n"
    )
    here = Path(__file__).parent
    folders = [str(here), str(here.parent / "helpers")]
    with isolated_rng(3):
        model = Hidden()
    own = content_identity([model, Rolling(2), own_task(), {"a", "b", "c", "d"}], "all")
    assert own == content_identity([copy.deepcopy(model), Rolling(2), own_task(), {"d", "c", "b", "a"}], "all")
    found = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == own
