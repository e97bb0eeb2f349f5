"""The meta-verifier of a fingerprint: weighted members of the C core, each on its share of the queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.errors import InputError

FloatArray: TypeAlias = NDArray[np.float32]
QueryPart: TypeAlias = Literal["adaptive", "natural", "all"]

QUERY_PARTS: tuple[str, ...] = get_args(QueryPart)
VERIFIER_KINDS: tuple[str, ...] = tuple(_core.verifier_kinds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One verifier of the core and the queries [start, stop) that it reads.

    Its logit enters the sum as weight * (logit - center) / spread, so that members of different kinds share one unit.
    reference: the owner's responses (queries, outputs) to those queries, of a member that also reads how far a response
    lies from them; its verifier then takes the features of `paired_features`. view: how such a member reads responses.
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

    def raw_logits(self, responses: FloatArray) -> NDArray[np.float64]:
        """Logits (models,) of responses (models, queries, outputs), before centring."""
        part = np.ascontiguousarray(responses[:, self.start : self.stop])
        if self.reference is not None:
            part = paired_features(part, self.reference, self.view)
        return self.verifier.logits(part).astype(np.float64)

    def standard_logits(self, responses: FloatArray) -> NDArray[np.float64]:
        """Logits (models,) in units of the member's own spread."""
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

    def logits(self, responses: FloatArray) -> NDArray[np.float64]:
        """Weighted logits (models,) of raw responses (models, queries, outputs)."""
        total = np.zeros(responses.shape[0], dtype=np.float64)
        for member in self.members:
            if member.weight > 0:
                total += member.weight * member.standard_logits(responses)
        return total

    def tensors(self) -> dict[str, FloatArray]:
        """All parameters, keyed "verifier.<member number>.<parameter>", and the references of members that have one."""
        found: dict[str, FloatArray] = {}
        for number, member in enumerate(self.members):
            own = member.verifier.parameters()
            if member.reference is not None:
                own["reference"] = member.reference
            found |= {f"verifier.{number}.{name}": value for name, value in own.items()}
        return found

    def specification(self) -> list[dict[str, Any]]:
        """What, besides the tensors, rebuilds the meta-verifier: one plain dictionary a member."""
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
            }
            for member in self.members
        ]


def reads_distances(view: str) -> bool:
    """Whether a verifier that can shall take `paired_features` under this view.

    Among log-probabilities the distances of the improbable classes would drown the others.
    """
    return not reads_classes(view)


def reads_classes(view: str) -> bool:
    """Whether the answers read under this view are a classifier's: whole, rounded, its best few, or the best alone."""
    return not view.startswith("identity")


def reads_labels(view: str) -> bool:
    """Whether nothing but a suspect's most likely class is read under this view."""
    return view == "label"


def paired_features(responses: FloatArray, owner: FloatArray, view: str) -> FloatArray:
    """Features (models, queries, 2 * outputs): the responses under a view, and how far each lies from the owner's.

    responses (models, queries, outputs), owner (queries, outputs). A verifier finds derived models on all sides of the
    owner's answers, which a function that is nearly linear in the answers cannot tell from independent ones.
    """
    own = _core.apply_view(owner[None], view)
    features = _core.apply_view(responses, view)
    return np.concatenate([features, np.abs(features - own)], axis=2)


def restore_meta_verifier(
    specification: Sequence[Mapping[str, Any]], tensors: Mapping[str, FloatArray]
) -> MetaVerifier:
    """The meta-verifier that `specification()` and `tensors()` describe; ValueError, KeyError where they do not fit."""
    members = []
    for number, entry in enumerate(specification):
        prefix = f"verifier.{number}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
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
            )
        )
    return MetaVerifier(tuple(members))
