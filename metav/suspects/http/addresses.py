"""From an address to the protocol that is spoken there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from metav.errors import InputError
from metav.suspects.http.credentials import checked_address, shown_address
from metav.suspects.http.mlflow_scoring import MlflowTransport
from metav.suspects.http.open_inference import MODEL_PATH, OpenInferenceTransport
from metav.suspects.transports import Transport


def is_address(thing: Any) -> bool:
    """Whether something is the address of a service."""
    return isinstance(thing, str) and thing.lower().startswith(("http://", "https://"))


def transport_to(
    url: str,
    *,
    constants: Mapping[str, Any] | None = None,
    **options: Any,
) -> Transport:
    """Return the way to a service whose protocol its address tells.

    url: .../v2/models/NAME (Open Inference Protocol) or .../invocations (MLflow).
    constants, options: of `OpenInferenceTransport` or `MlflowTransport`.

    Raises InputError where the address tells nothing.
    """
    path = urlsplit(checked_address(url)).path
    if MODEL_PATH.fullmatch(path):
        return OpenInferenceTransport(url, constants=constants, **options)
    if path.rstrip("/").endswith("/invocations"):
        if constants:
            raise InputError(
                "constants are for ONNX files and the Open Inference Protocol; MLflow takes one input here"
            )
        return MlflowTransport(url, **options)
    raise InputError(
        f"{shown_address(url)} does not tell its protocol; expected .../v2/models/NAME/infer (Open Inference "
        "Protocol) or .../invocations (MLflow). For any other service write a template, a .yaml or .toml file, and "
        "pass its path"
    )
