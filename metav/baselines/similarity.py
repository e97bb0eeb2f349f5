"""Fingerprints from how similar two models' answers are: ModelDiff, DeepJudge's black-box metrics, output distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metav.baselines.base import Baseline, FitContext, agreement, as_features, most_natural, probabilities
from metav.baselines.inputs import EPSILONS, checked_epsilons, nearest_adversarial
from metav.errors import InputError
from metav.models.running import predict
from metav.support.arrays import FloatArray
from metav.suspects import Suspect
from metav.tasks.classification import log_probabilities
from metav.tasks.kinds import TaskNeeds


class ModelDiff(Baseline):
    """How far an adversarial change moves the answer, input by input; the score is a cosine, in [0, 1].

    epsilons: radii of the balls in units of a feature's range, ascending.
    steps: of the gradient descent in each ball.

    A model's decision distance vector holds, for each pair of a natural input and its changed twin, 1 minus the cosine
    between the two answers; the similarity of two models is the cosine between their vectors. It does not change where
    a thief renames the classes. The paper searches for changes that move the owner's answer; here it is projected
    gradient descent on the owner, as in Godinot et al. (AAAI 2025), within the smallest ball where its class changes. N
    queries make N // 2 pairs, natural inputs first.

    Source: Li, Zhang, Liu, Yang, Liu: "ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection",
        ISSTA 2021.
    """

    name = "ModelDiff"
    needs: ClassVar[TaskNeeds] = TaskNeeds(classes=True)
    least_queries = 4

    def __init__(self, *, epsilons: Sequence[float] = EPSILONS, steps: int = 20) -> None:
        self.epsilons, self.steps = checked_epsilons(epsilons, steps), steps

    def _fit(self, context: FitContext) -> Tensor:
        natural = context.natural(context.queries // 2)
        changed = nearest_adversarial(
            context.owner, natural, context.lower, context.upper, epsilons=self.epsilons, steps=self.steps
        )
        return torch.cat([natural, changed])

    def _score(self, responses: FloatArray) -> float:
        own, other = (decision_distances(probabilities(answers)) for answers in (self._reference, responses))
        length = float(np.linalg.norm(own) * np.linalg.norm(other))
        # a suspect that never moves shares no decision with the owner
        return float(np.clip(own @ other / length, 0.0, 1.0)) if length > 0 else 0.0


def decision_distances(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the decision distance vector (N / 2,) of answers (N, K), those to the natural inputs first."""
    natural, changed = np.split(answers, 2)
    lengths = np.linalg.norm(natural, axis=1) * np.linalg.norm(changed, axis=1)
    distances: NDArray[np.float64] = 1.0 - (natural * changed).sum(axis=1) / lengths
    # where the answers are equal, rounding leaves tiny distances, whose vector would still have a direction
    return np.where(distances > 1e-9, distances, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepJudgeDistances:
    """DeepJudge's black-box distances of a suspect from the owner, each 0 for an exact copy.

    robustness: difference of the two accuracies on the adversarial examples, in [0, 1].
    jensen_shannon: mean divergence of the two answers in nats, in [0, log 2].
    """

    robustness: float
    jensen_shannon: float


class DeepJudge(Baseline):
    """Distances on adversarial examples of the owner; the score is 1 minus their mean, in [0, 1].

    epsilons: radii in units of a feature's range, of which each input takes the smallest that changes its class.
    steps: of the gradient descent in each ball.
    candidates: natural inputs per query to choose from.

    Of the paper's metrics, these two need outputs alone: robustness distance RobD and Jensen-Shannon distance JSD, on
    adversarial examples, by projected gradient descent from the natural inputs that the owner's model is surest of. The
    paper compares each with a threshold from independent models and lets them vote; as only scores are wanted here, the
    distances are added, JSD in units of its largest value.

    Raises InputError for fewer than 1 candidate, or epsilons or steps that cannot be used.

    Source: Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song: "Copy, Right? A Testing Framework for Copyright Protection
        of Deep Learning Models", IEEE S&P 2022.
    """

    name = "DeepJudge"
    needs: ClassVar[TaskNeeds] = TaskNeeds(classes=True)

    def __init__(self, *, epsilons: Sequence[float] = EPSILONS, steps: int = 20, candidates: int = 3) -> None:
        if candidates < 1:
            raise InputError(f"candidates must be at least 1, got {candidates}")
        self.epsilons, self.steps, self.candidates = checked_epsilons(epsilons, steps), steps, candidates

    def _fit(self, context: FitContext) -> Tensor:
        count = most_natural(context.task, self.candidates * context.queries, context.queries)
        natural = context.natural(count)
        sureness, classes = log_probabilities(predict(context.owner, natural)).max(dim=1)
        surest = torch.argsort(sureness, descending=True, stable=True)[: context.queries]
        self._truth = classes[surest].numpy()
        return nearest_adversarial(
            context.owner,
            natural[surest.to(natural.device)],
            context.lower,
            context.upper,
            epsilons=self.epsilons,
            steps=self.steps,
        )

    def distances(self, suspect: nn.Module | Suspect) -> DeepJudgeDistances:
        """Return the two distances of a suspect, which is asked as by `score`.

        Raises what `score` raises.
        """
        return self._distances(self._ask(suspect, self.queries, self._reference.shape[1]))

    def _distances(self, responses: FloatArray) -> DeepJudgeDistances:
        return DeepJudgeDistances(
            robustness=abs(agreement(responses, self._truth) - agreement(self._reference, self._truth)),
            jensen_shannon=jensen_shannon(probabilities(self._reference), probabilities(responses)),
        )

    def _score(self, responses: FloatArray) -> float:
        found = self._distances(responses)
        return 1.0 - (found.robustness + found.jensen_shannon / float(np.log(2.0))) / 2


def jensen_shannon(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the mean Jensen-Shannon divergence between rows of probabilities (N, K), in nats; 0 * log 0 is 0."""
    from scipy.special import rel_entr

    middle = (first + second) / 2
    return float((rel_entr(first, middle) + rel_entr(second, middle)).sum(axis=1).mean() / 2)


class OutputDistance(Baseline):
    """How far answers to natural inputs lie from the owner's; the score is 1 / (1 + distance), in (0, 1].

    The distance is the root mean square over queries and outputs of the difference between the two models' answers
    (probabilities of a classifier), in units of the standard deviation of the owner's answers over queries.

    Source: no paper, this is the plainest scheme there is.
    """

    name = "output distance"
    least_queries = 2

    def _fit(self, context: FitContext) -> Tensor:
        return context.natural(context.queries)

    def _score(self, responses: FloatArray) -> float:
        own, other = (as_features(answers, classes=self._reads_classes) for answers in (self._reference, responses))
        spread = float(np.sqrt(own.var(axis=0).mean()))
        distance = float(np.sqrt(np.square(own - other).mean()))
        if spread == 0.0:
            return 1.0 if distance == 0.0 else 0.0
        return 1.0 / (1.0 + distance / spread)
