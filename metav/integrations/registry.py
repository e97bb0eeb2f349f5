"""The table of integrations: one row and one file for each framework that trains models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """One framework.

    name: of it, for people.
    home: of what users import, as "module:name".
    libraries: that have it, any of which will do; none for PyTorch itself.
    when: at which point of its training the fingerprint is made.
    """

    name: str
    home: str
    libraries: tuple[str, ...]
    when: str


INTEGRATIONS: tuple[Integration, ...] = (
    Integration(
        name="a loop of one's own",
        home="metav.integrations.loop:fingerprinting",
        libraries=(),
        when="at the end of the context",
    ),
    Integration(
        name="Lightning",
        home="metav.integrations.lightning:FingerprintCallback",
        libraries=("lightning", "pytorch_lightning"),
        when="`on_fit_end`, global rank zero",
    ),
    Integration(
        name="Hugging Face Trainer",
        home="metav.integrations.huggingface:FingerprintCallback",
        libraries=("transformers",),
        when="`on_train_end`, world process zero",
    ),
    Integration(
        name="accelerate",
        home="metav.integrations.accelerate:fingerprinting",
        libraries=("accelerate",),
        when="at the end of the context, main process",
    ),
    Integration(
        name="skorch",
        home="metav.integrations.skorch:FingerprintCallback",
        libraries=("skorch",),
        when="`on_train_end`",
    ),
)
"""All of them."""
