"""Fingerprints from what the owner's model gets wrong: AKH."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metav.baselines.base import Baseline, FitContext, agreement
from metav.errors import InputError
from metav.models.running import predict
from metav.optimization.query_transforms import transform_queries
from metav.support.arrays import FloatArray
from metav.tasks.classification import log_probabilities
from metav.tasks.kinds import TaskNeeds

ROUNDS = 10
"""How often mistakes are searched on transformed inputs, each time by another random transform.

Where there are still too few, inputs that are classified rightly fill up the queries.
"""


class AKH(Baseline):
    """The owner's own mistakes; the score is the share of them that a suspect repeats, in [0, 1].

    natural_mistakes: after `fit`, how many of the queries are mistakes on natural inputs.
    mistakes: after `fit`, how many of the queries are mistakes on any inputs.

    The Anna Karenina heuristic asks inputs that the owner's model classifies wrongly, and compares the labels. The
    paper has more mistakes than queries. Where an owner makes fewer on natural inputs, mistakes on shifted, blurred or
    noisy ones follow, whose class is known, and at last those that it came closest to mistaking. Mistakes on held-out
    inputs come first.

    Source: Godinot, Le Merrer, Penzo, Taiani, Tredan: "Queries, Representation & Detection: The Next 100 Model
        Fingerprinting Schemes", AAAI 2025.
    """

    name = "AKH"
    needs: ClassVar[TaskNeeds] = TaskNeeds(classes=True)
    natural_mistakes: int = 0
    mistakes: int = 0

    def _fit(self, context: FitContext) -> Tensor:
        examples, targets = _labelled(context)
        generator = context.generator("mistakes")
        held_out = torch.zeros(len(examples), dtype=torch.bool)
        if context.task.validation_indices is not None:
            held_out[context.task.validation_indices] = True
        leads = self._leads(context, examples, targets)
        wrong = _shuffled(torch.nonzero(leads < 0)[:, 0], generator)
        found = [examples[wrong[torch.argsort(~held_out[wrong], stable=True)]]]
        self.natural_mistakes = min(len(wrong), context.queries)
        for _ in range(ROUNDS):
            if sum(map(len, found)) >= context.queries:
                break
            changed = transform_queries(examples, context.task.lower, context.task.upper, generator)
            wrong = torch.nonzero(self._leads(context, changed, targets) < 0)[:, 0]
            found.append(changed[_shuffled(wrong, generator)])
        self.mistakes = min(sum(map(len, found)), context.queries)
        found.append(examples[torch.argsort(torch.where(leads < 0, torch.inf, leads), stable=True)])
        return torch.cat(found)[: context.queries]

    def _leads(self, context: FitContext, inputs: Tensor, targets: Tensor) -> Tensor:
        return lead_of_truth(log_probabilities(predict(context.owner, inputs)), targets)

    def _score(self, responses: FloatArray) -> float:
        return agreement(responses, self._reference.argmax(axis=1))


def lead_of_truth(scores: Tensor, targets: Tensor) -> Tensor:
    """Return by how much (n,) the true class leads the best other one in scores (n, classes).

    It is negative for a mistake.
    """
    truth = scores.gather(1, targets[:, None])[:, 0]
    return truth - scores.scatter(1, targets[:, None], -torch.inf).amax(dim=1)


def _labelled(context: FitContext) -> tuple[Tensor, Tensor]:
    examples, targets = context.task.examples, context.task.targets
    if examples is None or targets is None:
        raise InputError("AKH needs a task with labelled `examples` and `targets`; give it a metav.Classification")
    if context.queries > len(examples):
        raise InputError(
            f"AKH needs queries to lie in 1..{len(examples)} (the inputs of this task), got {context.queries}"
        )
    return examples, targets


def _shuffled(indices: Tensor, generator: torch.Generator) -> Tensor:
    return indices[torch.randperm(len(indices), generator=generator)]
