"""A zoo in parts, each trained by a job of its own, and put together afterwards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from metav.errors import InputError, ZooError
from metav.support.files import PathLike, path_text
from metav.support.model_interface import ModelInterface
from metav.support.torch_state import in_standard_torch_state
from metav.tasks.base import Task
from metav.zoo.building import NEGATIVES, POSITIVES, SNAPSHOTS, BuildOptions
from metav.zoo.cache import ZooCache
from metav.zoo.folder_format import PLAN_FILE, ZooState, read_plan, write_plan, zoo_state
from metav.zoo.plan import KINDRED, PlannedModel
from metav.zoo.preparation import prepare_zoo
from metav.zoo.stages import recipes_in_advance
from metav.zoo.told_recipes import MOST_SEED
from metav.zoo.trained_models import train_all
from metav.zoo.training import ZooContext


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of a zoo.

    number: from 1 to `of`.
    of: how many there are.

    Raises InputError for other numbers.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST_SEED:
            raise InputError(f"a part must be i/n with 1 <= i <= n, got {self.number}/{self.of}; 1/1 is the whole zoo")

    @classmethod
    def read(cls, text: str) -> Part:
        """Return the part that a text like 2/8 names."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise InputError(f"a part must be i/n, such as 2/8, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def of_plan(self, plan: Sequence[PlannedModel]) -> list[PlannedModel]:
        """Return this part: every n-th model, so that all parts take about as long.

        Models of the told recipe are dealt out and trained first: they take longest, and most goes wrong there.
        """
        dealt = sorted(plan, key=lambda planned: planned.family != KINDRED)
        return dealt[self.number - 1 :: self.of]


@in_standard_torch_state
def train_part(
    owner: nn.Module,
    task: Task,
    part: Part,
    *,
    folder: PathLike,
    positives: int = POSITIVES,
    negatives: int = NEGATIVES,
    snapshots: int = SNAPSHOTS,
    **options: Unpack[BuildOptions],
) -> ZooState:
    """Train one part of the zoo that `build_zoo` builds with the same arguments, and return what the folder holds then.

    part: which one. Parts can be trained at the same time, on several machines that share the folder, or whose folders
        are put together afterwards. What is there already is not trained again.
    folder: keeps the models; `build_zoo` and `metav.fingerprint` take it as `cache`.
    positives, negatives, snapshots, options: as for `build_zoo`.

    Raises what `build_zoo` does, and ZooError for a folder of another zoo, and for one that has no parts.
    """
    context, plan = _prepared(owner, task, (positives, negatives, snapshots), options)
    store = ZooCache(folder)
    _write_plan(store, {planned.run: context.key(planned) for planned in plan})
    train_all(part.of_plan(plan), context, store, options.get("jobs"), options.get("progress"))
    return zoo_state(folder)


@in_standard_torch_state
def check_complete(
    owner: nn.Module,
    task: Task,
    *,
    folder: PathLike,
    positives: int = POSITIVES,
    negatives: int = NEGATIVES,
    snapshots: int = SNAPSHOTS,
    **options: Unpack[BuildOptions],
) -> None:
    """Raise ZooError, saying how many, where a folder lacks models of the zoo that `build_zoo` is to build from it.

    folder, positives, negatives, snapshots, options: as for `train_part`.
    """
    state = zoo_state(folder)
    context, plan = _prepared(owner, task, (positives, negatives, snapshots), options)
    _check_plan(Path(path_text(folder)), {planned.run: context.key(planned) for planned in plan})
    if state.missing:
        raise ZooError(
            f"{path_text(folder)} holds {state.trained} of {state.planned} models, {state.missing[0]} is missing; "
            "train the other parts with metav zoo train, and put their files into one folder"
        )


def _prepared(
    owner: nn.Module, task: Task, sizes: tuple[int, int, int], options: BuildOptions
) -> tuple[ZooContext, tuple[PlannedModel, ...]]:
    """Return what the models of a zoo are made from, and the models with their recipes."""
    given: dict[str, Any] = {name: value for name, value in options.items() if name not in ("cache", "progress")}
    interface = ModelInterface(
        output=given.pop("output", None),
        input=given.pop("input", None),
        constants=given.pop("constants", None) or {},
    )
    prepared = prepare_zoo(owner, task, sizes=sizes, is_cached=True, interface=interface, **given)
    context = prepared.context
    if context.unidentified:
        reasons = "; ".join(context.unidentified.values())
        raise ZooError(f"models cannot be kept in a folder, since it cannot be seen what they depend on ({reasons})")
    plan = recipes_in_advance(prepared.plan, context)
    if plan is None:
        raise ZooError(
            "without a told recipe those of a zoo follow from the models that were trained before, so that parts "
            "cannot be trained apart; tell the recipe, or build the zoo in one go, in several jobs"
        )
    return context, plan


def _write_plan(store: ZooCache, plan: Mapping[str, str]) -> None:
    if not (store.folder / PLAN_FILE).exists():
        write_plan(store.folder, plan)
    _check_plan(store.folder, plan)


def _check_plan(folder: Path, plan: Mapping[str, str]) -> None:
    found = read_plan(folder) or {}
    if found == plan:
        return
    if set(found) != set(plan):
        why = f"{len(found)} models of other families, numbers or seed instead of {len(plan)}"
    else:
        unlike = sum(found[run] != key for run, key in plan.items())
        why = f"{unlike} of {len(plan)} models made from another owner, data, recipe or architectures"
    raise ZooError(f"{folder} is for another zoo: {why}; name another folder, or give the options of the other parts")
