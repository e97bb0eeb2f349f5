"""What owner and surrogates answer to a set of queries, share by share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.statistics.calibration_models import CalibrationModels
from metav.support.arrays import FloatArray, as_array

if TYPE_CHECKING:
    from torch import nn

    from metav.zoo.zoo import Zoo, ZooModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Raw responses (models, queries, outputs), float32, of the models of each share of the zoo.

    owner: the owner's, (1, queries, outputs).
    optimize: the owner's, followed by those of the share "optimize", its free negatives last.
    optimize_roles: one byte per row of `optimize`, such as ROLE_POSITIVE of the core.
    optimize_free: which rows of `optimize` are free negatives, (models,).
    select: those of the share "select", without free negatives.
    select_free: those of its free negatives, which only the final verifiers see.
    calibrate: those of the share "calibrate", its free negatives last.
    select_derived, calibrate_derived: which of these models derive from the owner's, (models,).
    calibrate_free: which of them are free negatives, (models,).
    calibrate_families: family of each calibration model.
    other_families: those of the owner, of `optimize` and `select`, in order, the free negatives of the latter last.
    optimize_runs: the training run of each row of `optimize`, as snapshots of one belong together; the owner's is "".
        None: each row is a run of its own.
    optimize_finished: which rows of `optimize` are no snapshots, (models,); None: all.
    """

    owner: FloatArray
    optimize: FloatArray
    optimize_roles: bytes
    optimize_free: NDArray[np.bool_]
    select: FloatArray
    select_free: FloatArray
    select_derived: NDArray[np.bool_]
    calibrate: FloatArray
    calibrate_derived: NDArray[np.bool_]
    calibrate_free: NDArray[np.bool_]
    calibrate_families: tuple[str, ...]
    other_families: tuple[str, ...] = ()
    optimize_runs: tuple[str, ...] | None = None
    optimize_finished: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, owner: nn.Module, zoo: Zoo, queries: FloatArray) -> Shares:
        """Return what the owner's model and all surrogates answer to queries (N, *input shape); needs PyTorch."""
        own = ask_models([owner], queries)

        def answers(models: Sequence[nn.Module]) -> FloatArray:
            return ask_models(models, queries) if models else own[:0]

        free = {entry.run for entry in zoo.free}
        optimize, calibration = (zoo.share(name, free=True) for name in ("optimize", "calibrate"))
        select = zoo.share("select")
        select_free = [item for item in zoo.share("select", free=True) if item.run in free]
        return cls(
            owner=own,
            optimize=np.concatenate([own, answers([item.model for item in optimize])]),
            optimize_roles=bytes([_core.ROLE_OWNER, *(role_of(item) for item in optimize)]),
            optimize_free=np.array([False, *(item.run in free for item in optimize)]),
            select=answers([item.model for item in select]),
            select_free=answers([item.model for item in select_free]),
            select_derived=np.array([item.is_positive for item in select]),
            calibrate=answers([item.model for item in calibration]),
            calibrate_derived=np.array([item.is_positive for item in calibration]),
            calibrate_free=np.array([item.run in free for item in calibration]),
            calibrate_families=tuple(item.family for item in calibration),
            other_families=("owner", *(item.family for item in (*optimize, *select, *select_free))),
            optimize_runs=("", *(item.run for item in optimize)),
            optimize_finished=np.array([True, *(item.fraction == 1.0 for item in optimize)]),
        )

    def models(self, parts: NDArray[np.int64]) -> CalibrationModels:
        """Return all models as a fingerprint keeps them; parts: of all of them, in the order of `sizes`."""
        groups = (self.optimize[:1], self.optimize[1:], self.select, self.select_free, self.calibrate)
        names = ("owner", "optimize", "select", "select", "calibrate")
        roles = np.frombuffer(self.optimize_roles, dtype=np.uint8)
        without = np.zeros(len(self.select_free), dtype=np.bool_)
        finished = np.ones(len(parts), dtype=np.bool_)
        if self.optimize_finished is not None:
            finished[: len(self.optimize)] = self.optimize_finished
        return CalibrationModels(
            responses=np.concatenate(groups),
            derived=np.concatenate(
                [roles != _core.ROLE_NEGATIVE, self.select_derived, without, self.calibrate_derived]
            ),
            free=np.concatenate(
                [self.optimize_free, np.zeros(len(self.select), np.bool_), ~without, self.calibrate_free]
            ),
            families=(*self.other_families, *self.calibrate_families),
            parts=parts,
            finished=finished,
            shares=tuple(name for name, group in zip(names, groups, strict=True) for _ in range(len(group))),
        )

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """How many models there are: in `optimize`, in `select`, in `select_free` and in `calibrate`."""
        return len(self.optimize), len(self.select), len(self.select_free), len(self.calibrate)

    @classmethod
    def of_models(cls, models: CalibrationModels, responses: FloatArray) -> Shares:
        """Return the shares of a fingerprint's models, with their responses as an access lets them out."""
        optimize, select = models.of_share("owner", "optimize"), models.of_share("select")
        calibrate, free = models.calibrating, models.free
        roles = np.where(models.derived[optimize], _core.ROLE_POSITIVE, _core.ROLE_NEGATIVE).astype(np.uint8)
        roles[0] = _core.ROLE_OWNER
        return cls(
            owner=responses[:1],
            optimize=responses[optimize],
            optimize_roles=roles.tobytes(),
            optimize_free=free[optimize],
            select=responses[select & ~free],
            select_free=responses[select & free],
            select_derived=models.derived[select & ~free],
            calibrate=responses[calibrate],
            calibrate_derived=models.derived[calibrate],
            calibrate_free=free[calibrate],
            calibrate_families=tuple(np.array(models.families)[calibrate].tolist()),
        )


def ask_models(models: Sequence[nn.Module], queries: FloatArray) -> FloatArray:
    """Return raw responses (models, queries, outputs) of models in eval mode; needs PyTorch.

    queries: (n, *input shape).
    """
    import torch

    from metav.models.ensembles import OnEachDevice, answers_of
    from metav.models.running import evaluating
    from metav.models.staging import HOST, on_device

    given, answers = OnEachDevice(torch.from_numpy(queries)), []
    for model in models:
        with evaluating(model):
            # a copy, so that pinned memory is not kept
            answers.append(as_array(on_device(answers_of(model, given.on(model)), HOST)).copy())
    return np.stack(answers)


def role_of(item: ZooModel) -> int:
    """Return the role of a surrogate in the core: ROLE_POSITIVE or ROLE_NEGATIVE."""
    return _core.ROLE_POSITIVE if item.is_positive else _core.ROLE_NEGATIVE
