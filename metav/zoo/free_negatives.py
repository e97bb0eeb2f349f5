"""Negatives that cost no training: nonsense, other forms of independent models, and classical models.

A verifier that has only seen trained networks extrapolates on anything else: noise, constants and untrained networks
were accused. These models tell it what else may stand behind an API. None of them is trained by gradient steps on a
network, none is kept in a cache, and they are counted apart from the independent models of a zoo.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from metav.models.architectures import Architecture
from metav.models.running import predict
from metav.support.arithmetic import fixed_arithmetic, single_threaded_libraries
from metav.support.randomness import derive_seed, isolated_rng
from metav.tasks.base import Task
from metav.zoo import classical_negatives as classical
from metav.zoo import nonsense_models as nonsense
from metav.zoo.free_material import Material, material_of
from metav.zoo.zoo import ZooModel

FREE_MODELS: Mapping[str, int] = MappingProxyType({"optimize": 45, "select": 13, "calibrate": 13})
"""Free negatives of each share: as many as did away with all accused nonsense in a prototype."""
FREE_CLASSICAL = "classical"
RESCALED = "independent_rescaled"
NOISE = "nonsense_noise"
CONSTANT = "nonsense_constant"
UNTRAINED = "nonsense_untrained"
PERMUTED = "nonsense_permuted"
MIXED = "nonsense_mixed"
ROUND = (
    *(FREE_CLASSICAL, NOISE, UNTRAINED, PERMUTED, CONSTANT, RESCALED, FREE_CLASSICAL),
    *(MIXED, NOISE, PERMUTED, UNTRAINED, CONSTANT, FREE_CLASSICAL),
)
"""The families of one round: the shares "select" and "calibrate" get one round each, so that each has all families."""
FREE_FAMILIES = frozenset(ROUND)
"""The families of free negatives."""

SKLEARN = "sklearn"

Maker = Callable[[Material, Sequence[nn.Module], int, torch.Generator], nn.Module | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeNegative:
    """One kind of free negatives.

    name: of the kind, part of the run's name.
    family: a name in FREE_FAMILIES.
    make: (material, sources, number, generator) -> model, or None where it is not possible; the number counts the
        models of this kind.
    answers: what it suits: "classes", "numbers", "samples".
    sources: how many independent models of the same share it is made from.
    library: a package that has to be installed; None for none.
    """

    name: str
    family: str
    make: Maker
    answers: tuple[str, ...] = ("classes", "numbers", "samples")
    sources: int = 0
    library: str | None = None

    def suits(self, material: Material, sources: int) -> bool:
        """Return whether it can be made of a task, `sources` independent models, and the packages installed."""
        installed = self.library is None or importlib.util.find_spec(self.library) is not None
        return installed and material.answers in self.answers and sources >= self.sources


_CLASSES, _NUMBERS, _SAMPLES = ("classes",), ("numbers",), ("samples",)
_TARGETS = ("classes", "numbers")

FREE_NEGATIVES: tuple[FreeNegative, ...] = (
    FreeNegative(name="random_logits", family=NOISE, make=nonsense.random_logits, answers=_CLASSES),
    FreeNegative(name="random_distribution", family=NOISE, make=nonsense.random_distribution, answers=_CLASSES),
    FreeNegative(name="random_numbers", family=NOISE, make=nonsense.random_numbers, answers=("numbers", "samples")),
    FreeNegative(name="uniform_numbers", family=NOISE, make=nonsense.uniform_numbers, answers=("numbers", "samples")),
    FreeNegative(name="random_network", family=NOISE, make=nonsense.random_network),
    FreeNegative(name="one_class", family=CONSTANT, make=nonsense.one_class, answers=_CLASSES),
    FreeNegative(name="one_distribution", family=CONSTANT, make=nonsense.one_distribution, answers=_CLASSES),
    FreeNegative(name="mean_answer", family=CONSTANT, make=nonsense.mean_answer, answers=("numbers", "samples")),
    FreeNegative(name="zero_answer", family=CONSTANT, make=nonsense.zero_answer, answers=("numbers", "samples")),
    FreeNegative(name="one_example", family=CONSTANT, make=nonsense.one_example, answers=("numbers", "samples")),
    FreeNegative(name="untrained", family=UNTRAINED, make=nonsense.untrained),
    FreeNegative(name="permuted_outputs", family=PERMUTED, make=nonsense.permuted_outputs, sources=1),
    FreeNegative(name="shuffled_rows", family=PERMUTED, make=nonsense.shuffled_rows, sources=1),
    FreeNegative(name="permuted_inputs", family=PERMUTED, make=nonsense.permuted_inputs, answers=_TARGETS, sources=1),
    FreeNegative(name="rotated_latents", family=PERMUTED, make=nonsense.rotated_latents, answers=_SAMPLES, sources=1),
    FreeNegative(
        name="other_sign", family=PERMUTED, make=nonsense.other_sign, answers=("numbers", "samples"), sources=1
    ),
    FreeNegative(name="average", family=MIXED, make=nonsense.average, sources=2),
    FreeNegative(name="patchwork", family=MIXED, make=nonsense.patchwork, sources=2),
    FreeNegative(name="temperature", family=RESCALED, make=nonsense.temperature, answers=_CLASSES, sources=1),
    FreeNegative(name="other_unit", family=RESCALED, make=nonsense.other_unit, answers=_NUMBERS, sources=1),
    FreeNegative(name="other_contrast", family=RESCALED, make=nonsense.other_contrast, answers=_SAMPLES, sources=1),
    FreeNegative(
        name="random_forest", family=FREE_CLASSICAL, make=classical.random_forest, answers=_TARGETS, library=SKLEARN
    ),
    FreeNegative(
        name="gaussian_naive_bayes", family=FREE_CLASSICAL, make=classical.gaussian_naive_bayes, answers=_CLASSES
    ),
    FreeNegative(
        name="neighbors_3",
        family=FREE_CLASSICAL,
        make=partial(classical.nearest_neighbors, neighbors=3),
        answers=_TARGETS,
    ),
    FreeNegative(name="ridge", family=FREE_CLASSICAL, make=classical.ridge, answers=_TARGETS),
    FreeNegative(
        name="support_vectors", family=FREE_CLASSICAL, make=classical.support_vectors, answers=_TARGETS, library=SKLEARN
    ),
    FreeNegative(
        name="decision_tree", family=FREE_CLASSICAL, make=classical.decision_tree, answers=_TARGETS, library=SKLEARN
    ),
    FreeNegative(name="softmax_regression", family=FREE_CLASSICAL, make=classical.softmax_regression, answers=_CLASSES),
    FreeNegative(name="nearest_centroid", family=FREE_CLASSICAL, make=classical.nearest_centroid, answers=_CLASSES),
    FreeNegative(
        name="neighbors_1",
        family=FREE_CLASSICAL,
        make=partial(classical.nearest_neighbors, neighbors=1),
        answers=_TARGETS,
    ),
    FreeNegative(name="random_features", family=FREE_CLASSICAL, make=classical.random_features, answers=_TARGETS),
    FreeNegative(
        name="extra_trees", family=FREE_CLASSICAL, make=classical.extra_trees, answers=_TARGETS, library=SKLEARN
    ),
    FreeNegative(
        name="neighbors_9",
        family=FREE_CLASSICAL,
        make=partial(classical.nearest_neighbors, neighbors=9),
        answers=_TARGETS,
    ),
    FreeNegative(name="kernel_votes", family=FREE_CLASSICAL, make=classical.kernel_votes, answers=_TARGETS),
    FreeNegative(
        name="principal_components", family=FREE_CLASSICAL, make=classical.principal_components, answers=_SAMPLES
    ),
    FreeNegative(name="remembered_samples", family=FREE_CLASSICAL, make=classical.remembered_samples, answers=_SAMPLES),
)
"""All kinds of free negatives. Within a family, and what suits the task, they take turns in this order."""


def is_free(entry: ZooModel) -> bool:
    """Return whether a model is a free negative."""
    return entry.family in FREE_FAMILIES


def free_negatives(
    task: Task,
    zoo_models: Sequence[ZooModel],
    architectures: Sequence[Architecture],
    *,
    seed: int,
    counts: Mapping[str, int] = FREE_MODELS,
) -> tuple[ZooModel, ...]:
    """Return the free negatives of a task, share by share; the same arguments give the same bits.

    zoo_models: the surrogates. What is made from other models' answers is made from finished independent ones of the
        same share, so that the shares stay independent.
    architectures: callables that return fresh models, the owner's own class first.
    seed: of every random choice; the global random state is untouched.
    counts: how many there are in each share.

    Fewer are returned where the task allows none of a share's kinds. What a task, or an installed package, does not
    allow is replaced by other kinds, of the same family where there is one.

    Raises ZooError without an architecture.
    """
    with isolated_rng(derive_seed(seed, "free negatives")), fixed_arithmetic(), single_threaded_libraries():
        dealer = _Dealer(material_of(task, zoo_models, architectures), seed)
        return tuple(
            entry
            for share, count in counts.items()
            for entry in dealer.deal(share, count, [item for item in zoo_models if _is_source(item, share)])
        )


def _is_source(entry: ZooModel, share: str) -> bool:
    return not entry.is_positive and entry.share == share and entry.fraction == 1.0 and not is_free(entry)


@dataclass(frozen=True, slots=True)
class _Dealer:
    """Makes free negatives, kind after kind, and remembers how many of each there are.

    material: what they are made from.
    seed: of every random choice.
    """

    material: Material
    seed: int
    _turns: dict[str, int] = field(default_factory=dict)
    _made: dict[str, int] = field(default_factory=dict)

    def deal(self, share: str, count: int, sources: Sequence[ZooModel]) -> Iterator[ZooModel]:
        """Yield `count` free negatives of a share; fewer where a whole round makes none.

        sources: the independent models of the share.
        """
        suiting = [kind for kind in FREE_NEGATIVES if kind.suits(self.material, len(sources))]
        place, failed = 0, 0
        while count > 0 and failed < len(ROUND):
            made = self._next([kind for kind in suiting if kind.family == ROUND[place % len(ROUND)]], share, sources)
            place, failed = place + 1, failed + 1 if made is None else 0
            if made is not None:
                count -= 1
                yield made

    def _next(self, kinds: Sequence[FreeNegative], share: str, sources: Sequence[ZooModel]) -> ZooModel | None:
        """Return a model of the family's kind whose turn it is, or of the next one that is possible; None for none."""
        for _ in kinds:
            turn = self._turns.get(kinds[0].family, 0)
            self._turns[kinds[0].family] = turn + 1
            made = self._make(kinds[turn % len(kinds)], share, sources)
            if made is not None:
                return made
        return None

    def _make(self, kind: FreeNegative, share: str, sources: Sequence[ZooModel]) -> ZooModel | None:
        number = self._made.get(kind.name, 0)
        own_seed = derive_seed(self.seed, "free", kind.name, number)
        generator = torch.Generator().manual_seed(own_seed)
        chosen = [sources[int(place)] for place in torch.randperm(len(sources), generator=generator)[: kind.sources]]
        task = self.material.task
        model = kind.make(self.material, [task.read(entry.model) for entry in chosen], number, generator)
        if model is None:
            return None
        model = model.to(self.material.device).eval()
        # such as an untrained network of an architecture whose fresh weights overflow on these inputs
        if not bool(torch.isfinite(predict(model, self.material.natural)).all()):
            return None
        self._made[kind.name] = number + 1
        return ZooModel(
            model=model,
            is_positive=False,
            family=kind.family,
            strength=None,
            seed=own_seed,
            run=f"free-{self.seed}/{kind.name}/{number}",
            fraction=1.0,
            share=share,
            architecture=chosen[0].architecture if chosen else -1,
            # what answers at the places that are read is no model of the whole task
            metric=math.nan if task.places else float(task.metric(model)),
        )
