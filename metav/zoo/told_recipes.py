"""Recipes that the user tells: a callable from a seed to a fresh model, trained as the owner's model was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import InputError, MetavError, ModelError, ZooError
from metav.models.adapters import adapted_like, bare
from metav.models.copying import state_names, unwrapped
from metav.models.identity import tensor_digest
from metav.models.running import copied, frozen, predict
from metav.models.stored_tensors import pickled
from metav.support.model_interface import PLAIN, ModelInterface
from metav.support.randomness import isolated_rng
from metav.tasks.base import Task
from metav.tasks.model_checks import check_backward
from metav.zoo.cache import tensor_state

Recipe = Callable[[int], nn.Module]
"""From a seed to a fresh model, trained from scratch in the way in which the owner's model was trained."""

MOST_SEED = 2**31
"""Seeds of recipes lie below it, since not every generator takes larger ones."""


def check_recipe(recipe: object, jobs: int | None) -> None:
    """Raise InputError for what cannot be called with a seed, or cannot run in `jobs` processes.

    jobs: processes that train; in others than this one the recipe runs only if it can be pickled. None: as many as can.
    """
    if isinstance(recipe, nn.Module) or not callable(recipe):
        raise InputError(
            f"recipe must be a callable from a seed to a fresh trained model, got {type(recipe).__name__}; pass a "
            "function that trains a model from scratch (trained models themselves go into independent=)"
        )
    if jobs == 1:
        return
    try:
        pickled(recipe)
    except Exception as error:
        if jobs is None:  # it then runs in this process
            return
        raise InputError(
            f"the recipe cannot be sent to worker processes ({type(error).__name__}: {error}); use jobs=1, or let "
            "it open files, locks and connections itself when it is called"
        ) from error


def recipe_seed(seed: int) -> int:
    """Return the seed that a recipe is called with, from that of a planned model."""
    return seed % MOST_SEED


def told_model(recipe: Recipe, seed: int, owner: nn.Module, task: Task) -> nn.Module:
    """Return the model of a recipe, with its weights in a copy of the owner's class; the random state is untouched.

    seed: of the planned model.
    owner: of the class that the recipe has to return.

    Raises ModelError for what does not fit the owner's class or the task, ZooError for the owner's own weights.
    """
    number = recipe_seed(seed)
    model = adapted_like(unwrapped(_called(recipe, number)), owner)
    twin = copied(owner)
    names = tuple(type(bare(entry)).__qualname__ for entry in (model, owner))
    state, wanted = state_names(model), tensor_state(twin.state_dict())
    unlike = [name for name in (*wanted, *state) if _shape(state, name) != _shape(wanted, name)]
    remedy = "a recipe must return models of the owner's own class; others can be given as independent="
    if unlike:
        raise ModelError(
            f"recipe({number}) returns a {names[0]} whose {unlike[0]} has shape "
            f"{_shape(state, unlike[0])}, expected {_shape(wanted, unlike[0])} as in the owner's "
            f"{names[1]}; {remedy}"
        )
    twin.load_state_dict(dict(state), strict=False)
    try:
        task.check_model(twin)
    except MetavError as error:
        raise ModelError(f"the model of recipe({number}) does not fit the task: {error}") from error
    if not _answer_alike(model, twin, task):
        raise ModelError(
            f"recipe({number}) returns a {names[0]} that answers otherwise than the owner's {names[1]} with the same "
            f"weights; {remedy}"
        )
    own = tensor_state(copied(owner).state_dict())
    if all(torch.equal(tensor, own[name]) for name, tensor in tensor_state(twin.state_dict()).items()):
        raise ZooError(
            f"recipe({number}) returns the owner's own model; it has to train a fresh one, from initial weights that "
            "are drawn anew"
        )
    return twin


class DistinctCopies:
    """A check that the models of one recipe differ; call it with the seed of each and its weights."""

    def __init__(self) -> None:
        self._seeds: dict[str, int] = {}

    def __call__(self, seed: int, state: Mapping[str, Tensor]) -> None:
        """Raise ZooError where another seed gave the same weights."""
        number = recipe_seed(seed)
        first = self._seeds.setdefault(tensor_digest(state), number)
        if first != number:
            raise ZooError(
                f"the recipe returns the same model for seeds {first} and {number}: use its seed, or no seed of its "
                "own, for the initial weights and the order of the data"
            )


def check_useful(name: str, metric: float, task: Task, least: float | None) -> None:
    """Raise ZooError for a model that is no better than halfway from a constant answer to the owner's model.

    name: of the model, for the message.
    least: the metric of that point; None where it is not known.
    """
    if least is None:
        useless = not math.isfinite(metric)
    else:
        useless = not (metric >= least if task.higher_is_better else metric <= least)
    if useless:
        bound = "a number" if least is None else f"{'at least' if task.higher_is_better else 'at most'} {least:.4g}"
        raise ZooError(
            f"{name} has {task.metric_name} {metric:.4g}, expected {bound} (halfway from a constant answer to the "
            "owner's model); only models that do the task can stand for honest ones: train it as the owner's model "
            "was trained"
        )


def check_given(
    given: Any, owner: nn.Module, task: Task, least: float | None, interface: ModelInterface = PLAIN
) -> list[tuple[nn.Module, float]]:
    """Return frozen copies of the models that the user has, each with its metric.

    given: a sequence of independent models.
    least: see `check_useful`.
    interface: how they are called and what of their answers counts, as far as it suits them.

    Raises ModelError or ZooError for what is no independent model of the task.
    """
    if isinstance(given, nn.Module) or not isinstance(given, Sequence):
        raise InputError(f"independent must be a list of trained models, got {type(given).__name__}; put it in a list")
    found: list[tuple[nn.Module, float]] = []
    known = [(_answers(owner, task), "the owner's own model")]
    for index, model in enumerate(given):
        name = f"independent[{index}]"
        if not isinstance(model, nn.Module):
            raise ModelError(f"{name} must be a torch.nn.Module, got {type(model).__name__}; pass the trained model")
        clone = frozen(copied(model))
        try:
            clone = task.adapted(clone, interface.suiting(clone.forward))
            task.check_model(clone)
            check_backward(clone, task)
        except MetavError as error:
            raise ModelError(f"{name} does not fit the task: {error}") from error
        answers = _answers(clone, task)
        for other, label in known:
            if torch.equal(answers, other):
                raise ZooError(f"{name} is {label} (it gives the same answers); give each independent model once")
        known.append((answers, f"the same model as {name}"))
        metric = float(task.metric(clone))
        check_useful(name, metric, task, least)
        found.append((clone, metric))
    return found


def _called(recipe: Recipe, seed: int) -> nn.Module:
    try:
        with isolated_rng(seed), torch.enable_grad():
            model = recipe(seed)
    except Exception as error:
        raise ModelError(
            f"recipe({seed}) failed ({type(error).__name__}: {error}); it must train a fresh model and return it"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"recipe({seed}) returns {type(model).__name__}, expected a trained torch.nn.Module")
    return model


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _answer_alike(model: nn.Module, twin: nn.Module, task: Task) -> bool:
    first, second = _answers(model, task), _answers(twin, task)
    if first.shape != second.shape:
        return False
    return bool((first - second).abs().max() <= 1e-3 * (1.0 + second.abs().max()))


def _answers(model: nn.Module, task: Task) -> Tensor:
    """Return the answers to a few natural queries, float32; models that draw numbers draw the same ones each time."""
    count = 8 if task.natural_count is None else min(8, task.natural_count)
    with isolated_rng(0):
        return predict(model, task.natural_queries(count, seed=0))
