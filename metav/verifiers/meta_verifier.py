"""The meta-verifier of a fingerprint: weighted members of the C core, each on its part of the queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.errors import InputError
from metav.support.arrays import FloatArray
from metav.verifiers.views import paired_features

QueryPart: TypeAlias = Literal["adaptive", "natural", "all"]

QUERY_PARTS: tuple[str, ...] = get_args(QueryPart)
"""Which queries a member reads: the optimised ones ("adaptive"), the natural ones, or all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One verifier of the core and the queries that it reads.

    Its logit enters the sum as weight * (logit - center) / spread, so that members of different kinds share one unit.

    name: "kind:part", such as "mlp:adaptive", or "kind:part:view" where it reads another view than the fingerprint.
    verifier: the fitted verifier.
    start, stop: it reads the queries [start, stop).
    weight: of its logit in the sum, >= 0.
    center, spread: shift and unit of its logit; spread > 0.
    reference: the owner's responses (queries, outputs) to those queries, for a member that also reads how far a
        response lies from them; its verifier then takes the features of `paired_features`. None for other members.
    view: how a member with a reference reads responses; for others the verifier holds the view.
    part: number of the repetition of the final training that it comes from; it did not train on the calibration models
        of that number.
    """

    name: str
    verifier: _core.Verifier
    start: int
    stop: int
    weight: float
    center: float
    spread: float
    reference: FloatArray | None = None
    view: str = "identity"
    part: int = 0

    def raw_logits(self, responses: FloatArray) -> NDArray[np.float64]:
        """Return the logits (models,) of responses (models, queries, outputs), before centring."""
        part = np.ascontiguousarray(responses[:, self.start : self.stop])
        if self.reference is not None:
            part = paired_features(part, self.reference, self.view)
        return self.verifier.logits(part).astype(np.float64)

    def standard_logits(self, responses: FloatArray) -> NDArray[np.float64]:
        """Return the logits (models,) in units of the member's own spread."""
        return (self.raw_logits(responses) - self.center) / self.spread


@dataclass(frozen=True, slots=True)
class MetaVerifier:
    """The members whose weighted logits decide; weights sum to 1."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise InputError("a meta-verifier needs at least one member, got none")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the members with a weight, e.g. ("mlp:adaptive", "matched:natural")."""
        return tuple(member.name for member in self.members if member.weight > 0)

    @property
    def summary(self) -> str:
        """How many members of each kind have a weight, for people: "5 mlp:adaptive, 5 matched:natural"."""
        return ", ".join(f"{count} {kind}" for kind, count in Counter(self.kinds).items())

    def logits(self, responses: FloatArray) -> NDArray[np.float64]:
        """Return the weighted logits (models,) of raw responses (models, queries, outputs)."""
        return self._summed(self.members, responses)

    def logits_of_part(self, responses: FloatArray, part: int) -> NDArray[np.float64]:
        """Return the logits (models,) by the members of one repetition alone, which did not train on its models."""
        members = [member for member in self.members if member.part == part]
        share = sum(member.weight for member in members)
        if not share > 0:
            raise InputError(f"a meta-verifier of {len(self.members)} members has none of part {part}")
        return self._summed(members, responses) / share

    @staticmethod
    def _summed(members: Sequence[Member], responses: FloatArray) -> NDArray[np.float64]:
        total = np.zeros(responses.shape[0], dtype=np.float64)
        for member in members:
            if member.weight > 0:
                total += member.weight * member.standard_logits(responses)
        return total

    def tensors(self) -> dict[str, FloatArray]:
        """Return all parameters, keyed "verifier.<member number>.<parameter>", and the references of members."""
        found: dict[str, FloatArray] = {}
        for number, member in enumerate(self.members):
            own = member.verifier.parameters()
            if member.reference is not None:
                own["reference"] = member.reference
            found |= {f"verifier.{number}.{name}": value for name, value in own.items()}
        return found

    def specification(self) -> list[dict[str, Any]]:
        """Return what, besides the tensors, rebuilds the meta-verifier: one plain dictionary per member."""
        return [
            {
                "name": member.name,
                "kind": member.verifier.kind,
                "view": member.verifier.view if member.reference is None else member.view,
                "hidden": member.verifier.hidden,
                "outputs": member.verifier.outputs if member.reference is None else member.reference.shape[1],
                "start": member.start,
                "stop": member.stop,
                "weight": member.weight,
                "center": member.center,
                "spread": member.spread,
                "part": member.part,
            }
            for member in self.members
        ]


def restore_meta_verifier(
    specification: Sequence[Mapping[str, Any]], tensors: Mapping[str, FloatArray]
) -> MetaVerifier:
    """Return the meta-verifier that `specification()` and `tensors()` describe.

    Raises ValueError or KeyError where the two do not fit each other.
    """
    members = []
    parameters: dict[str, dict[str, FloatArray]] = {}
    for key, value in tensors.items():
        prefix, _, name = key.rpartition(".")
        parameters.setdefault(prefix, {})[name] = value
    for number, entry in enumerate(specification):
        own = parameters.get(f"verifier.{number}", {})
        reference = own.pop("reference", None)
        verifier = _core.Verifier(
            entry["kind"],
            int(entry["stop"]) - int(entry["start"]),
            int(entry["outputs"]) * (1 if reference is None else 2),
            view=entry["view"] if reference is None else "identity",
            hidden=int(entry["hidden"]),
        )
        verifier.load_parameters(own)
        members.append(
            Member(
                name=str(entry["name"]),
                verifier=verifier,
                start=int(entry["start"]),
                stop=int(entry["stop"]),
                weight=float(entry["weight"]),
                center=float(entry["center"]),
                spread=float(entry["spread"]),
                reference=reference,
                view="identity" if reference is None else str(entry["view"]),
                part=int(entry.get("part", 0)),  # a file of format version 1 has none
            )
        )
    return MetaVerifier(tuple(members))
