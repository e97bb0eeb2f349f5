"""Every error that metav raises on purpose: one class per thing that a user can act on."""

from __future__ import annotations


class MetavError(Exception):
    """Base of all errors of metav."""


class InputError(MetavError, ValueError):
    """Data, shapes or options that cannot be used; the message says what was expected."""


class ModelError(MetavError, ValueError):
    """A model, or a callable that builds one, whose outputs do not fit the task."""


class ObfuscationError(MetavError, ValueError):
    """An ownership obfuscation that makes no sense for this model or task."""


class ZooError(MetavError, ValueError):
    """A zoo of surrogate models that cannot serve: no negatives, no positives, or too few models for its shares."""


class CacheError(MetavError, OSError):
    """A cache folder that cannot be read or written."""


class ArtefactError(MetavError, ValueError):
    """A fingerprint file that is missing, truncated, altered or of an unknown version."""


class SuspectError(MetavError):
    """A suspect that failed, or answered in a way that cannot be scored; becomes an INCONCLUSIVE verdict.

    reason: a short code for programs, such as "failed" or "not_finite".
    message: the same for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MissingDependencyError(MetavError, ImportError):
    """An optional library that this call needs; the message says how to install it."""
