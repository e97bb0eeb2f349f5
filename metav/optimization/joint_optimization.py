"""The joint optimisation of queries and verifiers on the surrogates of the share "optimize"."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from metav import _core
from metav.models.ensembles import Ensemble
from metav.optimization.query_transforms import transform_queries
from metav.optimization.settings import OptimizationSettings
from metav.optimization.shares import role_of
from metav.statistics.roc_aruc import aruc
from metav.support.arrays import FloatArray, as_array
from metav.support.progress import progress_bar
from metav.support.randomness import derive_seed
from metav.tasks.base import Task
from metav.zoo.zoo import Zoo

HELD_OUT_GOAL = 0.995
"""ARUC on the share "select", which is not optimised on, at which the joint optimisation stops."""


class JointOptimization:
    """The state of one joint optimisation of queries and verifiers.

    owner: the owner's model.
    task: gives the bounds of an input.
    zoo: surrogates; "optimize" is optimised on, "select" decides which queries are the best.
    start: queries (N, *input shape) to start at, float32.
    settings: of the optimisation.
    seed: of every random choice.
    """

    def __init__(
        self,
        owner: nn.Module,
        task: Task,
        zoo: Zoo,
        start: FloatArray,
        *,
        settings: OptimizationSettings,
        seed: int,
    ) -> None:
        options = settings.options
        self.options = options
        self.task = task
        self.random = np.random.default_rng(derive_seed(seed, "sampling"))
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "transforms"))
        surrogates = zoo.share("optimize")
        held_out = zoo.share("select")
        self.roles = bytes([_core.ROLE_OWNER, *(role_of(item) for item in surrogates)])
        self.families = ["owner", *(item.family for item in surrogates)]
        self.held_out_roles = np.array([item.is_positive for item in held_out])
        self.queries = start.copy()
        tensor = torch.from_numpy(self.queries)
        share = min(1.0, (2 * options.sampled + 1) / len(self.roles))
        self.ensemble = Ensemble([owner, *(item.model for item in surrogates)], tensor, share=share)
        self.held_out = Ensemble([item.model for item in held_out])
        self.view = settings.view
        # as features: the view of answers that stay as they are is not worked out again at each update
        with torch.no_grad():
            self.cached = _core.apply_view(as_array(self.ensemble.responses(tensor)), self.view)
        count, outputs = self.cached.shape[1:]
        # several verifiers: queries that suit only one of them would be of little use to those trained later
        self.verifiers = [
            _core.Verifier("mlp", count, outputs, hidden=options.hidden, seed=derive_seed(seed, "joint", number))
            for number in range(options.repeats)
        ]
        for verifier in self.verifiers:
            verifier.standardize(self.cached)
        self.updater = _core.QueryOptimizer(
            start, as_array(task.lower), as_array(task.upper), radius=settings.radius, levels=settings.levels
        )

    def run(self, progress: bool | None) -> tuple[FloatArray, tuple[tuple[int, float], ...], int]:
        """Return the best queries on the held-out share, (step, held-out ARUC) per evaluation, and the number of steps.

        progress: None shows a bar on a terminal, False never, True always.
        """
        history: list[tuple[int, float]] = []
        best, best_key, since = self.queries.copy(), (-1.0, -np.inf), 0
        step = 0
        with progress_bar(total=self.options.steps, description="optimise", enabled=progress) as bar:
            for step in range(1, self.options.steps + 1):
                self._step()
                bar.update(1)
                if step % self.options.evaluate_every and step < self.options.steps:
                    continue
                key = self._held_out_quality()
                history.append((step, key[0]))
                bar.set_postfix_str(f"held-out ARUC {key[0]:.3f}")
                since = 0 if key > best_key else since + 1
                if key > best_key:
                    best, best_key = self.queries.copy(), key
                if since >= self.options.patience or key[0] >= HELD_OUT_GOAL:
                    break
        return best, tuple(history), step

    def _step(self) -> None:
        options = self.options
        chosen = self._sample()
        inputs = torch.from_numpy(self.queries).requires_grad_(True)
        seen = inputs
        if self.random.random() < options.transform:
            seen = transform_queries(inputs, self.task.lower, self.task.upper, self.generator)
        answers = self.ensemble.responses(seen, chosen)
        responses = as_array(answers)
        fresh = _core.apply_view(responses, self.view)
        self.cached[chosen] = fresh
        settings = options.step_settings()
        roles = bytes(self.roles[index] for index in chosen)
        gradient, own = np.zeros_like(fresh), np.empty_like(fresh)
        for verifier in self.verifiers:
            for _ in range(options.verifier_updates - 1):
                verifier.step(self.cached, self.roles, **settings)
            verifier.step(fresh, roles, gradient=own, **settings)
            gradient += own
        gradient = _core.view_gradient(responses, gradient, self.view)
        (query_gradient,) = torch.autograd.grad(answers, inputs, torch.from_numpy(gradient))
        self.updater.update(as_array(query_gradient), self.queries, learning_rate=options.query_learning_rate)

    def _sample(self) -> list[int]:
        """Return the indices of the owner and of as many models of each class as wanted, spread over the families."""
        chosen = [0]
        for role in (_core.ROLE_POSITIVE, _core.ROLE_NEGATIVE):
            pools: dict[str, list[int]] = {}
            for index, family in enumerate(self.families):
                if self.roles[index] == role:
                    pools.setdefault(family, []).append(index)
            chosen += _spread(list(pools.values()), self.options.sampled, self.random)
        return chosen

    def _held_out_quality(self) -> tuple[float, float]:
        with torch.no_grad():
            responses = as_array(self.held_out.responses(torch.from_numpy(self.queries)))
        features = _core.apply_view(responses, self.view)
        logits = np.mean([verifier.logits(features) for verifier in self.verifiers], axis=0, dtype=np.float64)
        scores = 1 / (1 + np.exp(-logits))
        derived = self.held_out_roles
        signs = np.where(derived, 1.0, -1.0)
        return aruc(scores[derived], scores[~derived]), -float(np.logaddexp(0, -signs * logits).mean())


def _spread(pools: list[list[int]], count: int, random: np.random.Generator) -> list[int]:
    """Return `count` indices drawn without replacement.

    One pool after the other gives an index, so that small families are seen as often as large ones.
    """
    queues = [list(random.permutation(pool)) for pool in pools]
    order = list(random.permutation(len(queues)))
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        for place in order:
            if queues[place] and len(chosen) < count:
                chosen.append(int(queues[place].pop()))
    return chosen
