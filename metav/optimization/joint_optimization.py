"""The joint optimisation of fingerprint and verifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from metav import _core
from metav.boundary_queries import boundary_queries
from metav.calibration import Calibration, calibrate
from metav.curves import aruc
from metav.ensembles import Ensemble
from metav.errors import ZooError
from metav.optimization_options import OptimizationOptions, starts_on_border
from metav.progress import progress_bar
from metav.query_selection import choose_queries
from metav.randomness import derive_seed
from metav.selection import Candidate, Shares, as_array, fit_candidates, refit, role_of, select_members
from metav.transforms import transform_queries
from metav.verifiers import FloatArray, MetaVerifier
from metav.zoo import Zoo

HELD_OUT_GOAL = 0.995  # held-out ARUC at which the joint optimisation is done
POOL_SURROGATES = 192  # of each class; 60 to 132 gained nothing on development owners, or lost by it


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationResult:
    """What the optimisation found: queries (N, *input shape), the first `adaptive` optimised; verifier; rule."""

    queries: FloatArray
    adaptive: int
    outputs: int
    meta_verifier: MetaVerifier
    calibration: Calibration
    candidates: tuple[Candidate, ...]
    held_out_aruc: tuple[tuple[int, float], ...]
    steps: int


def optimize(
    owner: nn.Module,
    task: Any,
    zoo: Zoo,
    *,
    options: OptimizationOptions,
    target_fpr: float = 0.05,
    seed: int = 0,
    progress: bool | None = None,
) -> OptimizationResult:
    """Joint optimisation over the zoo's `optimize` share, selection on `select`, calibration on `calibrate`.

    Errors: ZooError where a share lacks positives or negatives, ModelError where models do not fit each other.
    """
    _check_shares(zoo)
    view = options.view or task.view
    made = _make_queries(owner, task, zoo, view, options, seed, progress)
    adaptive, shares = made.adaptive, Shares.of(owner, zoo, made.queries)
    candidates = fit_candidates(shares, adaptive, view, options, seed, progress)
    final = refit(select_members(candidates), shares, view, options, seed)
    return OptimizationResult(
        queries=made.queries,
        adaptive=adaptive,
        outputs=shares.select.shape[2],
        meta_verifier=final.meta_verifier,
        calibration=calibrate(final.positives, final.negatives, target_fpr=target_fpr),
        candidates=tuple(candidates),
        held_out_aruc=made.history,
        steps=made.steps,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queries:
    """Queries, the first `adaptive` optimised; the held-out ARUC per evaluation, and the number of steps."""

    queries: FloatArray
    adaptive: int
    history: tuple[tuple[int, float], ...]
    steps: int


def _make_queries(
    owner: nn.Module, task: Any, zoo: Zoo, view: str, options: OptimizationOptions, seed: int, progress: bool | None
) -> _Queries:
    """The optimised queries, then the natural ones; where few are wanted, the best of a pool, optimised once more."""
    runs = zoo.summary()
    surrogates = min(runs["positives"], runs["negatives"])
    asked, options = options, options.for_zoo(view, surrogates)
    size, wanted, rest = _counts(task, surrogates, options)
    on_border = size if starts_on_border(view, surrogates) else 0
    start = as_array(_starting_queries(owner, task, on_border, size + rest, seed))
    levels = options.levels if options.levels is not None else getattr(task, "levels", None)
    if levels is not None:
        start = _to_levels(start, task, levels)

    def optimized(start: FloatArray, seed: int) -> tuple[FloatArray, tuple[tuple[int, float], ...], int]:
        if not len(start):
            return start, (), 0
        joint = _JointOptimization(owner, task, zoo, start, view=view, levels=levels, options=options, seed=seed)
        return joint.run(progress)

    best, history, steps = optimized(start[:size], seed)
    made = np.concatenate([best, start[size:]])
    if len(made) == options.queries:
        return _Queries(queries=made, adaptive=size, history=history, steps=steps)
    # a number of natural queries that was asked for is kept; otherwise they have to be better than optimised ones
    fixed = options.adaptive is not None
    candidates = made[:size] if fixed else made
    chosen = choose_queries(Shares.of(owner, zoo, candidates), view, wanted)
    best = np.ascontiguousarray(made[[number for number in chosen if number < size]])
    others = made[size:] if fixed else made[[number for number in chosen if number >= size]]
    # a second radius around queries that have moved would add to one that was asked for
    if asked.radius is None:
        best, more, further = optimized(best, derive_seed(seed, "kept"))
        history = (*history, *((steps + step, value) for step, value in more))
        steps += further
    return _Queries(queries=np.concatenate([best, others]), adaptive=len(best), history=history, steps=steps)


def _starting_queries(owner: nn.Module, task: Any, on_border: int, count: int, seed: int) -> torch.Tensor:
    """Queries (count, *input shape), float32: the first on the owner's decision boundary, the others natural."""
    natural: torch.Tensor = task.natural_queries(count, seed=derive_seed(seed, "natural")).to(torch.float32)
    if not on_border:
        return natural
    border = boundary_queries(owner, task, on_border, seed=derive_seed(seed, "boundary"))
    return torch.cat([border, natural[len(border) :]])


def _counts(task: Any, surrogates: int, options: OptimizationOptions) -> tuple[int, int, int]:
    """How many queries are optimised, how many of all are then chosen, and how many natural ones there are."""
    pool = (options.pool or 0) if surrogates >= POOL_SURROGATES else 0
    wanted = options.adaptive_count(pool)
    rest = options.queries - wanted
    if not wanted or wanted >= pool:
        return wanted, wanted, rest
    available = len(task.examples) if hasattr(task, "examples") else options.queries + 2 * pool
    if options.adaptive is None:
        rest = max(0, min(pool, available - wanted))
    return max(wanted, min(pool, available - rest)), wanted, rest


class _JointOptimization:
    """State of one joint optimisation over the adaptive queries."""

    def __init__(
        self,
        owner: nn.Module,
        task: Any,
        zoo: Zoo,
        start: FloatArray,
        *,
        view: str,
        levels: int | None,
        options: OptimizationOptions,
        seed: int,
    ) -> None:
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
        with torch.no_grad():
            self.cached = as_array(self.ensemble.responses(tensor))
        count, outputs = self.cached.shape[1:]
        # several verifiers: queries that only please one of them would not carry over to the next
        self.verifiers = [
            _core.Verifier(
                "mlp", count, outputs, view=view, hidden=options.hidden, seed=derive_seed(seed, "joint", number)
            )
            for number in range(options.repeats)
        ]
        for verifier in self.verifiers:
            verifier.standardize(self.cached)
        self.updater = _core.QueryOptimizer(
            start, as_array(task.lower), as_array(task.upper), radius=options.radius, levels=levels
        )

    def run(self, progress: bool | None) -> tuple[FloatArray, tuple[tuple[int, float], ...], int]:
        """The best queries on the held-out share, the held-out ARUC per evaluation, and the number of steps."""
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
        fresh = as_array(answers)
        self.cached[chosen] = fresh
        settings = options.step_settings()
        roles = bytes(self.roles[index] for index in chosen)
        gradient, own = np.zeros_like(fresh), np.empty_like(fresh)
        for verifier in self.verifiers:
            for _ in range(options.verifier_updates - 1):
                verifier.step(self.cached, self.roles, **settings)
            verifier.step(fresh, roles, gradient=own, **settings)
            gradient += own
        (query_gradient,) = torch.autograd.grad(answers, inputs, torch.from_numpy(gradient))
        self.updater.update(as_array(query_gradient), self.queries, learning_rate=options.query_learning_rate)

    def _sample(self) -> list[int]:
        """The owner and as many positives and negatives as wanted, spread over the families."""
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
        logits = np.mean([verifier.logits(responses) for verifier in self.verifiers], axis=0, dtype=np.float64)
        scores = 1 / (1 + np.exp(-logits))
        derived = self.held_out_roles
        signs = np.where(derived, 1.0, -1.0)
        return aruc(scores[derived], scores[~derived]), -float(np.logaddexp(0, -signs * logits).mean())


def _check_shares(zoo: Zoo) -> None:
    for name in ("optimize", "select", "calibrate"):
        items = zoo.share(name)
        positives = sum(item.is_positive for item in items)
        wanted_negatives = 2 if name == "optimize" else 1
        if positives < 1 or len(items) - positives < wanted_negatives:
            raise ZooError(
                f"the zoo's {name!r} share has {positives} positives and {len(items) - positives} negatives; it needs "
                f"at least 1 and {wanted_negatives}: build a larger zoo (positives=, negatives=)"
            )


def _spread(pools: list[list[int]], count: int, random: np.random.Generator) -> list[int]:
    """Draws without replacement, one pool after the other, so that small families are seen as often as large ones."""
    queues = [list(random.permutation(pool)) for pool in pools]
    order = list(random.permutation(len(queues)))
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        for place in order:
            if queues[place] and len(chosen) < count:
                chosen.append(int(queues[place].pop()))
    return chosen


def _to_levels(queries: FloatArray, task: Any, levels: int) -> FloatArray:
    lower, upper = as_array(task.lower), as_array(task.upper)
    step = np.where(upper > lower, (upper - lower) / (levels - 1), 1).astype(np.float32)
    snapped = lower + np.rint((queries - lower) / step) * step
    return np.ascontiguousarray(np.clip(snapped, lower, upper), dtype=np.float32)
