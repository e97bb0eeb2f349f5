"""The training of one member of the meta-verifier on the responses of surrogates."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metav import _core
from metav.optimization.options import OptimizationOptions
from metav.support.arrays import FloatArray
from metav.verifiers.kinds import VerifierKind, verifier_kind
from metav.verifiers.meta_verifier import Member
from metav.verifiers.views import paired_features, reads_distances

FITTED_LOSS = 1e-3
"""Loss without augmentation at which the training of a verifier stops."""
CHECK_EVERY = 25
"""Updates between two measurements of that loss."""


class VerifierSettings(Protocol):
    """What the final training of verifiers goes by: the resolved settings, or those of a verdict."""

    @property
    def view(self) -> str:
        """How answers are read."""

    @property
    def reads_labels_too(self) -> bool:
        """Whether some verifiers read nothing but labels, beside those that read the view."""

    @property
    def options(self) -> OptimizationOptions:
        """The options of the verifiers' training."""


def fit_member(
    name: str,
    part: tuple[int, int],
    responses: FloatArray,
    roles: bytes,
    free: NDArray[np.bool_],
    settings: VerifierSettings,
    seed: int,
) -> Member:
    """Return a member trained on a part of the queries; its center and spread are still 0 and 1.

    name: "kind:part", such as "mlp:adaptive", or "kind:part:view" where it does not read the view of the settings.
    part: the queries [start, stop) that it reads.
    responses: raw, (models, queries, outputs), the owner's first.
    roles: one byte per model, such as ROLE_POSITIVE of the core.
    free: which models are free negatives, (models,); a closed form goes without them.
    """
    kind_name, _, *own_view = name.split(":")
    kind, (start, stop), options = verifier_kind(kind_name), part, settings.options
    view = own_view[0] if own_view else settings.view
    own = np.ascontiguousarray(responses[:, start:stop])
    reference = own[0] if kind.pairs_with_owner and reads_distances(view) else None
    if reference is None:
        verifier = _fit_verifier(kind, own, roles, free, view, options, seed)
    else:
        verifier = _fit_verifier(kind, paired_features(own, reference, view), roles, free, "identity", options, seed)
    return Member(
        name=name,
        verifier=verifier,
        start=start,
        stop=stop,
        weight=1.0,
        center=0.0,
        spread=1.0,
        reference=None if reference is None else reference.copy(),
        view="identity" if reference is None else view,
    )


def _fit_verifier(
    kind: VerifierKind,
    own: FloatArray,
    roles: bytes,
    free: NDArray[np.bool_],
    view: str,
    options: OptimizationOptions,
    seed: int,
) -> _core.Verifier:
    """Return a verifier of one kind, trained until it fits the models given or `refit_steps` are used up."""
    final = _core.Verifier(kind.name, own.shape[1], own.shape[2], view=view, hidden=options.hidden, seed=seed)
    if kind.closed_form:
        final.standardize(own)
        # free negatives would widen what counts as usual among models of this task
        negatives = (np.frombuffer(roles, dtype=np.uint8) == _core.ROLE_NEGATIVE) & ~free
        final.fit_closed_form(own[0], np.ascontiguousarray(own[negatives]))
        return final
    # the view is applied once for all updates: the queries stay as they are, so no gradient has to pass through it
    own = _core.apply_view(own, view)
    verifier = _core.Verifier(kind.name, own.shape[1], own.shape[2], hidden=options.hidden, seed=seed)
    verifier.standardize(own)
    settings = options.step_settings()
    for step in range(1, options.refit_steps + 1):
        verifier.step(own, roles, **settings)
        if step % CHECK_EVERY == 0 and verifier.step(own, roles, update=False, weights=options.weights) < FITTED_LOSS:
            break
    final.load_parameters(verifier.parameters())
    return final
