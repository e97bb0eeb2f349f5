"""The kinds of verifier, as the core's table states them (`csrc/mv_verifier.c`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metav import _core
from metav.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKind:
    """One kind of verifier.

    name: as options and files state it.
    closed_form: whether it is fitted in closed form, from the owner's and the negatives' answers, not by steps.
    preferred: whether candidates of this kind decide alone where one of them is close to the best. The other kinds look
        as good on the surrogates kept for selection, and do worse on data and architectures that the zoo lacks.
    pairs_with_owner: whether it can also read how far an answer lies from the owner's.
    """

    name: str
    closed_form: bool
    preferred: bool
    pairs_with_owner: bool


VERIFIER_KINDS: Mapping[str, VerifierKind] = {
    name: VerifierKind(name=name, **row) for name, row in _core.verifier_kinds().items()
}
"""All kinds by name, in the order in which `auto` tries them."""


def verifier_kind(name: str) -> VerifierKind:
    """Return a kind by its name.

    Raises InputError for an unknown name.
    """
    if name not in VERIFIER_KINDS:
        raise InputError(f"a verifier must be one of {', '.join(VERIFIER_KINDS)}, got {name!r}")
    return VERIFIER_KINDS[name]
