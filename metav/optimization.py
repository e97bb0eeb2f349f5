"""The joint optimisation of fingerprint and verifier, the selection of the meta-verifier, and its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metav import _core
from metav.calibration import Calibration, calibrate
from metav.curves import aruc, roc_auc
from metav.ensembles import Ensemble
from metav.errors import InputError, ZooError
from metav.progress import progress_bar
from metav.randomness import derive_seed
from metav.transforms import transform_queries
from metav.verifiers import QUERY_PARTS, VERIFIER_KINDS, FloatArray, Member, MetaVerifier
from metav.zoo import Zoo, ZooModel

HELD_OUT_GOAL = 0.995  # held-out ARUC at which the joint optimisation is done
FITTED_LOSS = 1e-3  # loss without augmentation at which a verifier has nothing left to learn
CHECK_EVERY = 25  # updates between two looks at that loss
AUC_SLACK = 0.02  # a candidate this far below the best on the selection share has no say,
SEPARATION_CAP = 5.0  # more deviations than this the few models of the selection share cannot tell apart
SEPARATION_SHARE = 0.85  # nor one that holds the classes apart by less than this share of the best


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationOptions:
    """Everything that steers the joint optimisation; the defaults serve all three tasks.

    queries: number N of queries. adaptive: share of them that is optimised, the rest stays natural. verifier: "auto" or
    one kind. view: how answers are read, None = the task's own. hidden: width of `mlp`. steps: passes through the
    sampled surrogates. sampled: surrogates of each class per pass. verifier_updates: updates of the verifier per pass.
    learning_rate, query_learning_rate: Adam, of the verifier and of the queries (in units of the bounds' range).
    weights: a_F, a_P, a_N of the three terms. radius: largest change of a query, in units of the range, None = free.
    levels: number of levels an input feature can take (256 survives a PNG), None = continuous. mix, noise, dropout:
    response-space augmentation. transform: chance that a pass sees transformed queries. patience: evaluations without
    progress before the optimisation stops. refit_steps: most updates of each candidate verifier on the final queries.
    repeats: final verifiers of each chosen kind, from different initial weights; their logits are averaged.
    """

    queries: int = 100
    adaptive: float = 0.75
    verifier: str = "auto"
    view: str | None = None
    hidden: int = 64
    steps: int = 150
    sampled: int = 8
    verifier_updates: int = 6
    learning_rate: float = 3e-3
    query_learning_rate: float = 3e-2
    weights: tuple[float, float, float] = (0.5, 1.0, 1.0)
    weight_decay: float = 1e-2
    radius: float | None = None
    levels: int | None = None
    mix: float = 0.5
    noise: float = 0.3
    dropout: float = 0.3
    transform: float = 0.5
    evaluate_every: int = 10
    patience: int = 6
    refit_steps: int = 400
    repeats: int = 3

    def __post_init__(self) -> None:
        counts = (
            "queries",
            "hidden",
            "steps",
            "sampled",
            "verifier_updates",
            "evaluate_every",
            "refit_steps",
            "repeats",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("adaptive", "mix", "dropout", "transform"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.verifier != "auto" and self.verifier not in VERIFIER_KINDS:
            raise InputError(f'verifier must be "auto" or one of {", ".join(VERIFIER_KINDS)}, got {self.verifier!r}')

    def step_settings(self) -> dict[str, Any]:
        """The arguments of one verifier update."""
        names = ("learning_rate", "weights", "weight_decay", "mix", "noise", "dropout")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"weights": list(self.weights)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One verifier on one share of the queries, with its quality on the selection share."""

    member: Member
    auc: float
    separation: float


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
    adaptive = round(options.adaptive * options.queries)
    natural = task.natural_queries(options.queries, seed=derive_seed(seed, "natural")).to(torch.float32)
    view = options.view or task.view
    levels = options.levels if options.levels is not None else getattr(task, "levels", None)
    start = _as_array(natural)
    if levels is not None:
        start = _to_levels(start, task, levels)
    history: tuple[tuple[int, float], ...] = ()
    queries, steps = start, 0
    if adaptive:
        joint = _JointOptimization(
            owner, task, zoo, start[:adaptive], view=view, levels=levels, options=options, seed=seed
        )
        best, history, steps = joint.run(progress)
        queries = np.concatenate([best, start[adaptive:]])
    shares = _Shares.of(owner, zoo, queries)
    candidates = _fit_candidates(shares, adaptive, view, options, seed, progress)
    meta_verifier = _refit(select_members(candidates), shares, view, options, seed)
    return OptimizationResult(
        queries=queries,
        adaptive=adaptive,
        outputs=shares.select.shape[2],
        meta_verifier=meta_verifier,
        calibration=_calibrate(meta_verifier, shares, target_fpr),
        candidates=tuple(candidates),
        held_out_aruc=history,
        steps=steps,
    )


def select_members(candidates: Sequence[Candidate]) -> MetaVerifier:
    """Weighs the candidates by the square of how far apart they hold the two classes of the selection share.

    Only those close to the best one count, by AUC and by separation.
    """
    auc = max(candidate.auc for candidate in candidates) - AUC_SLACK
    separations = [min(max(candidate.separation, 0.0), SEPARATION_CAP) for candidate in candidates]
    least = SEPARATION_SHARE * max(separations)
    gains = [s**2 if c.auc >= auc and s >= least else 0.0 for c, s in zip(candidates, separations, strict=True)]
    total = sum(gains)
    if total <= 0:
        raise ZooError(
            "no verifier tells derived from independent models on the selection share; "
            "the zoo is too small or too alike: give more positives and negatives, or more queries"
        )
    return MetaVerifier(
        tuple(replace(c.member, weight=gain / total) for c, gain in zip(candidates, gains, strict=True) if gain > 0)
    )


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
        self.roles = bytes([_core.ROLE_OWNER, *(_role(item) for item in surrogates)])
        self.families = ["owner", *(item.family for item in surrogates)]
        self.held_out_roles = np.array([item.is_positive for item in held_out])
        self.queries = start.copy()
        tensor = torch.from_numpy(self.queries)
        share = min(1.0, (2 * options.sampled + 1) / len(self.roles))
        self.ensemble = Ensemble([owner, *(item.model for item in surrogates)], tensor, share=share)
        self.held_out = Ensemble([item.model for item in held_out])
        with torch.no_grad():
            self.cached = _as_array(self.ensemble.responses(tensor))
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
            start, _as_array(task.lower), _as_array(task.upper), radius=options.radius, levels=levels
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
        fresh = _as_array(answers)
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
        self.updater.update(_as_array(query_gradient), self.queries, learning_rate=options.query_learning_rate)

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
            responses = _as_array(self.held_out.responses(torch.from_numpy(self.queries)))
        logits = np.mean([verifier.logits(responses) for verifier in self.verifiers], axis=0, dtype=np.float64)
        scores = 1 / (1 + np.exp(-logits))
        derived = self.held_out_roles
        signs = np.where(derived, 1.0, -1.0)
        return aruc(scores[derived], scores[~derived]), -float(np.logaddexp(0, -signs * logits).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shares:
    """Raw responses of the shares on the final queries, with roles and families."""

    owner: FloatArray
    optimize: FloatArray
    optimize_roles: bytes
    select: FloatArray
    select_derived: NDArray[np.bool_]
    calibrate: FloatArray
    calibrate_derived: NDArray[np.bool_]

    @classmethod
    def of(cls, owner: nn.Module, zoo: Zoo, queries: FloatArray) -> _Shares:
        tensor = torch.from_numpy(queries)

        def answers(models: Sequence[nn.Module]) -> FloatArray:
            with torch.no_grad():
                return _as_array(Ensemble(models).responses(tensor))

        optimize, select, calibration = (zoo.share(name) for name in ("optimize", "select", "calibrate"))
        own = answers([owner])
        return cls(
            owner=own,
            optimize=np.concatenate([own, answers([item.model for item in optimize])]),
            optimize_roles=bytes([_core.ROLE_OWNER, *(_role(item) for item in optimize)]),
            select=answers([item.model for item in select]),
            select_derived=np.array([item.is_positive for item in select]),
            calibrate=answers([item.model for item in calibration]),
            calibrate_derived=np.array([item.is_positive for item in calibration]),
        )


def _fit_candidates(
    shares: _Shares, adaptive: int, view: str, options: OptimizationOptions, seed: int, progress: bool | None
) -> list[Candidate]:
    """Every kind on the optimised, the natural and all queries, trained on one share and judged on another."""
    count = shares.select.shape[1]
    parts = {"adaptive": (0, adaptive), "natural": (adaptive, count), "all": (0, count)}
    kinds = VERIFIER_KINDS if options.verifier == "auto" else (options.verifier,)
    wanted = [
        (kind, part, parts[part])
        for kind in kinds
        for part in QUERY_PARTS
        if parts[part][1] > parts[part][0] and not (part == "all" and adaptive in (0, count))
    ]
    candidates = []
    with progress_bar(total=len(wanted), description="verifiers", enabled=progress) as bar:
        for kind, part, (start, stop) in wanted:
            verifier = _fit_verifier(
                kind,
                shares.optimize,
                shares.optimize_roles,
                (start, stop),
                view,
                options,
                derive_seed(seed, kind, part),
            )
            candidates.append(_judge(f"{kind}:{part}", verifier, start, stop, shares))
            bar.update(1)
    return candidates


def _refit(
    meta_verifier: MetaVerifier, shares: _Shares, view: str, options: OptimizationOptions, seed: int
) -> MetaVerifier:
    """The chosen members, trained anew on the optimisation and the selection share, each kind `repeats` times."""
    responses = np.concatenate([shares.optimize, shares.select])
    derived = [_core.ROLE_POSITIVE if is_positive else _core.ROLE_NEGATIVE for is_positive in shares.select_derived]
    roles = shares.optimize_roles + bytes(derived)
    members = []
    for member in meta_verifier.members:
        kind, part = member.name.split(":")
        repeats = 1 if kind == "matched" else options.repeats
        for repeat in range(repeats):
            start = derive_seed(seed, "refit", kind, part, repeat)
            verifier = _fit_verifier(kind, responses, roles, (member.start, member.stop), view, options, start)
            members.append(replace(member, verifier=verifier, weight=member.weight / repeats))
    return MetaVerifier(tuple(members))


def _fit_verifier(
    kind: Any,
    responses: FloatArray,
    roles: bytes,
    part: tuple[int, int],
    view: str,
    options: OptimizationOptions,
    seed: int,
) -> _core.Verifier:
    """A verifier of one kind on queries [start, stop), trained until it knows the models given or time is up."""
    own = np.ascontiguousarray(responses[:, part[0] : part[1]])
    final = _core.Verifier(kind, own.shape[1], own.shape[2], view=view, hidden=options.hidden, seed=seed)
    if kind == "matched":
        final.standardize(own)
        negatives = np.frombuffer(roles, dtype=np.uint8) == _core.ROLE_NEGATIVE
        final.fit_matched(own[0], np.ascontiguousarray(own[negatives]))
        return final
    # the view is taken once for all updates: no gradient has to pass it here
    own = _core.apply_view(own, view)
    verifier = _core.Verifier(kind, own.shape[1], own.shape[2], hidden=options.hidden, seed=seed)
    verifier.standardize(own)
    settings = options.step_settings()
    for step in range(1, options.refit_steps + 1):
        verifier.step(own, roles, **settings)
        if step % CHECK_EVERY == 0 and verifier.step(own, roles, update=False, weights=options.weights) < FITTED_LOSS:
            break
    final.load_parameters(verifier.parameters())
    return final


def _judge(name: str, verifier: _core.Verifier, start: int, stop: int, shares: _Shares) -> Candidate:
    """Quality on the selection share; centre and spread put the classes' means at -1 and +1 there."""
    bare = Member(name=name, verifier=verifier, start=start, stop=stop, weight=1.0, center=0.0, spread=1.0)
    logits = bare.raw_logits(shares.select)
    high, low = logits[shares.select_derived], logits[~shares.select_derived]
    distance = float(high.mean() - low.mean())
    deviation = float(np.sqrt((high.var() + low.var()) / 2)) + 1e-9
    member = replace(bare, center=float(high.mean() + low.mean()) / 2, spread=max(distance / 2, 1e-6))
    return Candidate(member=member, auc=roc_auc(high, low), separation=distance / deviation)


def _calibrate(meta_verifier: MetaVerifier, shares: _Shares, target_fpr: float) -> Calibration:
    logits = meta_verifier.logits(shares.calibrate)
    return calibrate(logits[shares.calibrate_derived], logits[~shares.calibrate_derived], target_fpr=target_fpr)


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


def _role(item: ZooModel) -> int:
    return _core.ROLE_POSITIVE if item.is_positive else _core.ROLE_NEGATIVE


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


def _as_array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)


def _to_levels(queries: FloatArray, task: Any, levels: int) -> FloatArray:
    lower, upper = _as_array(task.lower), _as_array(task.upper)
    step = np.where(upper > lower, (upper - lower) / (levels - 1), 1).astype(np.float32)
    snapped = lower + np.rint((queries - lower) / step) * step
    return np.ascontiguousarray(np.clip(snapped, lower, upper), dtype=np.float32)
