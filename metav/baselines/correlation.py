"""Fingerprints from the correlation between a model's answers: SAC."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metav.baselines.base import Baseline, FitContext, most_natural, probabilities
from metav.baselines.inputs import cutmix
from metav.support.arrays import FloatArray
from metav.tasks.kinds import TaskNeeds


class SAC(Baseline):
    """Correlation of answers between pairs of CutMix images; the score is 1 minus the mean difference, in [0, 1].

    C_ij is the cosine between a model's probabilities on inputs i and j, and the distance is the mean of |C_owner -
    C_suspect| over all pairs. It does not change where a thief renames the classes. The inputs are CutMix images of two
    natural ones each; other inputs than images get a random run of features from their partner.

    Source: Guan, Liang, He: "Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural Networks",
        NeurIPS 2022, variant SAC-m.
    """

    name = "SAC"
    needs: ClassVar[TaskNeeds] = TaskNeeds(classes=True)
    least_queries = 2

    def _fit(self, context: FitContext) -> Tensor:
        natural = context.natural(most_natural(context.task, 2 * context.queries, context.queries))
        order = torch.randperm(len(natural), generator=context.generator("pairs"))
        # rolled by less than its length: a partner is never the image itself
        partners = order.roll(-min(context.queries, len(natural) - 1))
        first, second = (indices[: context.queries].to(natural.device) for indices in (order, partners))
        return cutmix(natural[first], natural[second], context.generator("boxes"))

    def _score(self, responses: FloatArray) -> float:
        return 1.0 - correlation_distance(probabilities(self._reference), probabilities(responses))


def correlation_distance(owner: NDArray[np.float64], suspect: NDArray[np.float64]) -> float:
    """Return the mean absolute difference of two correlation matrices, in [0, 1], from probabilities (N, K)."""
    return float(np.abs(correlation(owner) - correlation(suspect)).mean())


def correlation(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosines (N, N) between the rows of answers (N, K)."""
    directions = answers / np.linalg.norm(answers, axis=1, keepdims=True)
    cosines: NDArray[np.float64] = directions @ directions.T
    return cosines
