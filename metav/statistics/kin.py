"""How near independent models may come that were trained as the owner's was, where no surrogate shows it."""

from __future__ import annotations

BEYOND_KIN = 0.6
"""Place between the threshold and the owner's own logit up to which such models may come where no recipe was told. Of
honest models beside twelve fingerprints of six development owners, 107 of 384 lay above the threshold, 4 above this
place; of derived ones 266 and 123 of 288 (`tests/benchmarks/kin_places.py`)."""
NEARLY_THE_OWNER = 0.85
"""The same where the owner stands apart from all independent models: beyond are copies with little done to them."""


def kin_limit(threshold: float, owner: float, *, apart: bool) -> float:
    """Return the logit from which on a suspect matches where no recipe was told.

    threshold: of the decision rule. owner: logit of the owner's own answers.
    apart: whether the owner stands apart from the independent models (`OwnerStanding.apart`).
    """
    return threshold + (NEARLY_THE_OWNER if apart else BEYOND_KIN) * max(owner - threshold, 0.0)
