"""What all baselines share: how they are fitted on an owner's model, and how they ask a suspect."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metav import _core
from metav.errors import InputError, ModelError, ZooError
from metav.models.running import device_of, frozen_copy, predict
from metav.optimization.shares import role_of
from metav.support.arguments import MOST_QUERIES, count, seed_number
from metav.support.arithmetic import fixed_arithmetic
from metav.support.arrays import FloatArray, as_array
from metav.support.randomness import derive_seed, isolated_rng
from metav.support.torch_state import standard_torch_state
from metav.suspects import Suspect, open_suspect
from metav.tasks.base import Task
from metav.tasks.classification import log_probabilities
from metav.tasks.kinds import ANY_TASK, TaskNeeds
from metav.tasks.user_tasks import as_task
from metav.zoo.zoo import Zoo, ZooModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitContext:
    """What a scheme is fitted on.

    owner: a frozen copy of the owner's model.
    task: what it has learned.
    zoo: the surrogates.
    queries: number N of queries.
    seed: of every random choice.
    """

    owner: nn.Module
    task: Task
    zoo: Zoo
    queries: int
    seed: int

    @property
    def device(self) -> torch.device:
        """The device that the owner's model and the surrogates run on."""
        return device_of(self.owner)

    @property
    def lower(self) -> Tensor:
        """Lower bound of an input, on the device."""
        return self.task.lower.to(self.device)

    @property
    def upper(self) -> Tensor:
        """Upper bound of an input, on the device."""
        return self.task.upper.to(self.device)

    def natural(self, count: int) -> Tensor:
        """Return `count` natural inputs, float32 (count, *input shape), on the device."""
        inputs = self.task.natural_queries(count, seed=derive_seed(self.seed, "natural"))
        return inputs.to(device=self.device, dtype=torch.float32)

    def generator(self, label: str) -> torch.Generator:
        """Return a generator of random numbers for one purpose, which `label` names."""
        return torch.Generator().manual_seed(derive_seed(self.seed, label))

    def surrogates(self, *, snapshots: bool) -> list[ZooModel]:
        """Return all models of the zoo that may be trained on; without `snapshots` the fully trained ones."""
        return surrogates_of(self.zoo, snapshots=snapshots)


class Baseline(ABC):
    """A fingerprinting scheme to compare with: `fit` it on an owner's model, then `score` suspects.

    A subclass names itself and writes `_fit`, which finds the queries, and `_score`, which judges the answers to them.

    name: of the scheme, in tables.
    needs: what a task must have.
    least_queries, least_positives, least_negatives: the fewest queries and surrogates of each class that it works with.
    fit_takes_minutes: whether experiments leave it out where it would be fitted again and again.
    differs_in_queries_alone: whether it is metav but for queries that are not optimised, so that tables show it beside
        metav everywhere.
    """

    name: ClassVar[str]
    needs: ClassVar[TaskNeeds] = ANY_TASK
    fit_takes_minutes: ClassVar[bool] = False
    differs_in_queries_alone: ClassVar[bool] = False
    least_queries: ClassVar[int] = 1
    least_positives: ClassVar[int] = 0
    least_negatives: ClassVar[int] = 0

    _queries: FloatArray | None = None
    _reference: FloatArray
    _reads_classes: bool

    @final
    def fit(self, owner: nn.Module, task: Task, zoo: Zoo, *, queries: int, seed: int) -> Self:
        """Find the queries of an owner's model, and what else the scheme needs; return itself.

        zoo: the surrogates; a scheme that needs none ignores it.
        queries: most inputs that a suspect will be sent.
        seed: of every random choice; the same seed gives the same result.

        Owner, surrogates and the global random state are untouched.

        Raises InputError on a task that the scheme cannot do, or too few queries; ZooError on too few surrogates.
        """
        task = as_task(task)
        seed = seed_number(seed)
        self._check(owner, task, zoo, queries)
        self._queries = None
        with standard_torch_state(), fixed_arithmetic(), isolated_rng(derive_seed(seed, "baseline", self.name)):
            context = FitContext(
                owner=frozen_copy(owner),
                task=task,
                zoo=zoo,
                queries=queries,
                seed=derive_seed(seed, "baseline", self.name),
            )
            found = as_array(self._fit(context))
            self._reads_classes = task.kind.answers_classes
            outputs = int(predict(context.owner, torch.from_numpy(found[:1])).numel())
            self._reference = self._ask(context.owner, found, outputs)
        self._queries = found
        return self

    @final
    def score(self, suspect: nn.Module | Suspect) -> float:
        """Return how likely a suspect derives from the owner's model, in [0, 1].

        suspect: anything that `metav.verify` takes; it is asked for its answers to `queries` alone.

        A higher score is likelier to be a derived model's; there is no threshold.

        Raises InputError before `fit`; SuspectError where the suspect fails, or answers what cannot be scored.
        """
        return float(self._score(self._ask(suspect, self.queries, self._reference.shape[1])))

    @classmethod
    def supports(cls, task: Task) -> bool:
        """Return whether the scheme makes sense for a task."""
        return cls.needs.met_by(task.kind)

    @property
    def queries(self) -> FloatArray:
        """The queries (N, *input shape), float32, in the order of recorded answers; raises InputError before `fit`."""
        if self._queries is None:
            raise InputError(f"{self.name} has no queries yet; call fit(owner, task, zoo, queries=..., seed=...) first")
        return self._queries

    @abstractmethod
    def _fit(self, context: FitContext) -> Tensor:
        """Return the queries (N, *input shape); whatever else `_score` needs is kept on the instance."""

    @abstractmethod
    def _score(self, responses: FloatArray) -> float:
        """Return the score of one suspect's responses (N, K) to the queries; `self._reference` holds the owner's."""

    def _ask(self, suspect: nn.Module | Suspect, queries: FloatArray, outputs: int) -> FloatArray:
        return open_suspect(suspect).answer(queries, outputs=outputs, labels=self._reads_classes).responses

    def _check(self, owner: nn.Module, task: Task, zoo: Zoo, queries: int) -> None:
        if not isinstance(owner, nn.Module):
            raise ModelError(f"owner must be a torch.nn.Module, got {type(owner).__name__}; pass the trained model")
        if not self.supports(task):
            raise InputError(
                f"{self.name} is defined for {', '.join(self.needs.kinds)}, not for {task.name}; take one of the "
                "baselines that support this task"
            )
        count(f"queries of {self.name}", queries, least=self.least_queries, most=MOST_QUERIES)
        if not self.least_positives and not self.least_negatives:
            return
        if not isinstance(zoo, Zoo):
            raise ZooError(f"{self.name} learns from surrogates: pass a zoo of metav.build_zoo, not {zoo!r}")
        models = surrogates_of(zoo, snapshots=True)
        positives = sum(entry.is_positive for entry in models)
        negatives = len(models) - positives
        if positives < self.least_positives or negatives < self.least_negatives:
            raise ZooError(
                f"{self.name} needs at least {self.least_positives} derived and {self.least_negatives} independent "
                f"surrogates, the zoo has {positives} and {negatives}: build a larger one (positives=, negatives=)"
            )


def surrogates_of(zoo: Zoo, *, snapshots: bool) -> list[ZooModel]:
    """Return the models of a zoo that may be trained on: none of the share "test".

    snapshots: whether copies from the middle of a training are wanted beside the finished models.
    """
    return [entry for entry in zoo.models if entry.share != "test" and (snapshots or entry.fraction == 1.0)]


def models_of(entries: Sequence[ZooModel], is_positive: bool) -> list[nn.Module]:
    """Return the models of one class, derived or independent, in order."""
    return [entry.model for entry in entries if entry.is_positive is is_positive]


def roles_of(entries: Sequence[ZooModel]) -> bytes:
    """Return the roles for the core of the owner, followed by these surrogates."""
    return bytes([_core.ROLE_OWNER, *(role_of(entry) for entry in entries)])


def answers_of(models: Sequence[nn.Module], queries: Tensor) -> FloatArray:
    """Return raw responses (models, N, K) to queries (N, *input shape), float32."""
    return np.stack([as_array(predict(model, queries).reshape(len(queries), -1)) for model in models])


def features_of(model: nn.Module, queries: Tensor, *, classes: bool) -> Tensor:
    """Return a model's differentiable responses (N, K): probabilities for a classifier, raw outputs for other tasks.

    classes: whether the model is a classifier.
    """
    outputs: Tensor = model(queries)
    outputs = outputs.reshape(len(queries), -1)
    return log_probabilities(outputs).exp() if classes else outputs


def as_features(responses: FloatArray, *, classes: bool) -> NDArray[np.float64]:
    """Return recorded responses (N, K) as `features_of` gives them: probabilities for a classifier, else as they are.

    classes: whether a classifier answered, with logits, probabilities or one-hot labels.
    """
    return probabilities(responses) if classes else responses.astype(np.float64)


def probabilities(responses: FloatArray) -> NDArray[np.float64]:
    """Return the class probabilities (N, K) of a classifier's responses, be they logits, probabilities or labels."""
    shares = np.exp(_core.apply_view(responses[None], "logprob")[0].astype(np.float64))
    normalised: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def logistic(logit: float) -> float:
    """Return the sigmoid of a logit in double precision, in which a logit of 30 does not yet give 1."""
    return 1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1.0 + math.exp(logit))


def agreement(responses: FloatArray, labels: NDArray[np.intp]) -> float:
    """Return the share of queries on which the most likely class is the given one: the matching rate of IPGuard."""
    return float((responses.argmax(axis=1) == labels).mean())


def most_natural(task: Task, wanted: int, least: int) -> int:
    """Return how many natural inputs to use: `wanted`, or as many as the task has, but no less than `least`."""
    available = task.natural_count
    return wanted if available is None else max(least, min(wanted, available))
