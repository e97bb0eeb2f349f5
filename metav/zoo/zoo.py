"""The zoo as a value: surrogate models, or suspects, with what is known of the origin of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from metav.errors import ZooError
from metav.support.html_tables import html_table
from metav.support.model_interface import PLAIN, ModelInterface
from metav.tasks.base import Task
from metav.zoo.standing import OwnerStanding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ZooModel:
    """One surrogate or suspect, in eval mode and without gradients, with what is known of its origin.

    Iterating gives (model, is_positive, family).

    model: the model itself.
    is_positive: whether it derives from the owner's model.
    family: name of the obfuscation, or of the kind of independent training.
    strength: of the obfuscation, in (0, 1]; None for an independent model.
    seed: of its training.
    run: name of the training run; snapshots of one run share it and count as one model.
    fraction: share of the training that a snapshot had seen, in (0, 1]; 1.0 for the finished model.
    share: "optimize", "select", "calibrate", or "test" for suspects.
    architecture: index into the architectures used; 0 is the owner's own class, -1 one that was not used.
    metric: the task's, on the owner's data.
    attack: the obfuscation that an independent surrogate went through; None for none.
    """

    model: nn.Module
    is_positive: bool
    family: str
    strength: float | None
    seed: int
    run: str
    fraction: float
    share: str
    architecture: int
    metric: float
    attack: str | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.is_positive, self.family))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Zoo:
    """Surrogate models, or suspects, with their labels.

    models: positives first, each run's snapshots before its finished model.
    owner_digest, task_digest: identities of the owner's model and of the task that they were made for.
    seed: that they were made with.
    metric_name: what the models' metric measures.
    owner_metric: the metric of the owner's model; None where it was not measured.
    free: negatives that cost no training (`metav.zoo.free_negatives`). They are no part of `models`, nor of any count
        of independent models: nobody trained them to compete with the owner's.
    standing: where the owner's model stands among the independent ones; None where it was not measured.
    interface: how the user's models are called, and what of their answers counts.
    """

    models: tuple[ZooModel, ...]
    owner_digest: str
    task_digest: str
    seed: int
    metric_name: str = "metric"
    owner_metric: float | None = None
    free: tuple[ZooModel, ...] = ()
    standing: OwnerStanding | None = None
    interface: ModelInterface = PLAIN

    def __iter__(self) -> Iterator[ZooModel]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    @property
    def positives(self) -> tuple[ZooModel, ...]:
        """The models derived from the owner's, snapshots included."""
        return tuple(entry for entry in self.models if entry.is_positive)

    @property
    def negatives(self) -> tuple[ZooModel, ...]:
        """The independent models, snapshots included."""
        return tuple(entry for entry in self.models if not entry.is_positive)

    @property
    def smaller_class(self) -> int:
        """Training runs of derived or of independent models, whichever are fewer."""
        return min(len({entry.run for entry in group}) for group in (self.positives, self.negatives))

    @property
    def shows_kin(self) -> bool:
        """Whether independent models are known to be trained as the owner's was: by a recipe or the task's own loop."""
        return self.standing is not None and self.standing.recipe != "drawn"

    def share(self, name: str, *, free: bool = False) -> tuple[ZooModel, ...]:
        """Return the models of one share: "optimize", "select", "calibrate" or "test".

        free: whether the free negatives of the share follow them.

        Raises ZooError for another name.
        """
        if name not in ("optimize", "select", "calibrate", "test"):
            raise ZooError(f"share must be optimize, select, calibrate or test, got {name!r}")
        return tuple(entry for entry in (*self.models, *(self.free if free else ())) if entry.share == name)

    def read_by(self, task: Task) -> Zoo:
        """Return the zoo with its models as a fingerprint of the task reads them (`Task.read`)."""
        if task.places is None:
            return self
        models = tuple(replace(entry, model=task.read(entry.model).eval()) for entry in self.models)
        free = tuple(replace(entry, model=task.read(entry.model, is_read=True).eval()) for entry in self.free)
        return replace(self, models=models, free=free)

    def summary(self) -> dict[str, Any]:
        """Return counts of runs and snapshots per family and share, with the range of metrics; fit for JSON."""
        families: dict[str, dict[str, Any]] = {}
        for entry in self.models:
            row = families.setdefault(
                entry.family, {"is_positive": entry.is_positive, "runs": 0, "snapshots": 0, "shares": {}, "metrics": []}
            )
            if entry.fraction < 1.0:
                row["snapshots"] += 1
                continue
            row["runs"] += 1
            row["shares"][entry.share] = row["shares"].get(entry.share, 0) + 1
            row["metrics"].append(entry.metric)
        for row in families.values():
            metrics = row.pop("metrics")
            row["metric"] = [min(metrics), max(metrics)] if metrics else []
        return {
            "positives": len({entry.run for entry in self.positives}),
            "negatives": len({entry.run for entry in self.negatives}),
            "snapshots": sum(entry.fraction < 1.0 for entry in self.models),
            "metric_name": self.metric_name,
            "owner_metric": self.owner_metric,
            "owner": self.owner_digest,
            "task": self.task_digest,
            "seed": self.seed,
            "standing": None if self.standing is None else self.standing.to_dict(),
            "families": families,
            "free": _counted(self.free),
        }

    def __repr__(self) -> str:
        summary = self.summary()
        return (
            f"Zoo({summary['positives']} derived + {summary['negatives']} independent models of "
            f"{len(summary['families'])} families, {summary['snapshots']} snapshots"
            f"{f', {len(self.free)} free negatives' if self.free else ''})"
        )

    def _repr_html_(self) -> str:
        rows = []
        for family, row in self.summary()["families"].items():
            kind = "derived" if row["is_positive"] else "independent"
            metric = " to ".join(f"{value:.4g}" for value in dict.fromkeys(row["metric"]))
            rows.append((family, kind, row["runs"], row["snapshots"], metric))
        for family, shares in self.summary()["free"]["families"].items():
            rows.append((family, "free", sum(shares.values()), 0, ""))
        return html_table([repr(self)], rows, head=("family", "kind", "models", "snapshots", self.metric_name))


def _counted(free: Sequence[ZooModel]) -> dict[str, Any]:
    """Return how many free negatives there are, in all and per family and share."""
    families: dict[str, dict[str, int]] = {}
    for entry in free:
        shares = families.setdefault(entry.family, {})
        shares[entry.share] = shares.get(entry.share, 0) + 1
    return {"models": len(free), "families": families}
