"""The zoo as a value: surrogate models, or suspects, with what is known of the origin of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from metav.errors import ZooError
from metav.support.html_tables import html_table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ZooModel:
    """One surrogate or suspect, in eval mode and without gradients, with what is known of its origin.

    `run` names the training run: snapshots of one run share it and count as one model. `fraction` is the share of the
    training that a snapshot had seen (1.0: all). `share`: "optimize", "select", "calibrate", or "test" for suspects.
    `architecture` indexes the list used: 0 is the owner's own class. `metric` is the task's, on the owner's data.
    `attack`: the obfuscation that an independent surrogate went through.
    Iterating gives (model, is_positive, family).
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
    """Surrogate models with their labels; positives first, each run's snapshots before its fully trained model."""

    models: tuple[ZooModel, ...]
    owner_digest: str
    task_digest: str
    seed: int
    metric_name: str = "metric"
    owner_metric: float | None = None

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

    def share(self, name: str) -> tuple[ZooModel, ...]:
        """Return the models of one share: "optimize", "select", "calibrate" or "test"."""
        if name not in ("optimize", "select", "calibrate", "test"):
            raise ZooError(f"share must be optimize, select, calibrate or test, got {name!r}")
        return tuple(entry for entry in self.models if entry.share == name)

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
            "families": families,
        }

    def __repr__(self) -> str:
        summary = self.summary()
        return (
            f"Zoo({summary['positives']} derived + {summary['negatives']} independent models of "
            f"{len(summary['families'])} families, {summary['snapshots']} snapshots)"
        )

    def _repr_html_(self) -> str:
        rows = []
        for family, row in self.summary()["families"].items():
            kind = "derived" if row["is_positive"] else "independent"
            metric = " to ".join(f"{value:.4g}" for value in dict.fromkeys(row["metric"]))
            rows.append((family, kind, row["runs"], row["snapshots"], metric))
        return html_table([repr(self)], rows, head=("family", "kind", "models", "snapshots", self.metric_name))
