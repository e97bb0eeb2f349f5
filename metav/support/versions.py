"""The version of metav, from the installed distribution: the one place that asks for it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "metav-fingerprint"


def version_of(distribution: str = DISTRIBUTION) -> str:
    """Return the version of an installed distribution, metav's by default; "0+unknown" where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "0+unknown"
