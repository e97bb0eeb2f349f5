"""Values as JSON: plain copies of results, and the one canonical text that digests are taken over."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from metav.errors import InputError


def plain(value: Any) -> Any:
    """Return a copy made of dict, list, str, int, float, bool and None only.

    NaN and infinity, which JSON lacks, become None.

    Raises InputError on anything that has no such copy.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray):
        return [plain(entry) for entry in (sorted(value) if isinstance(value, Set) else value)]
    raise InputError(f"{value!r} of type {type(value).__name__} cannot be written as JSON; expected numbers and text")


def readable_json(value: Any) -> str:
    """Return a value as JSON for people and programs: indented, in the order given."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Return the one ASCII text of a value: sorted keys, no blanks.

    Raises ValueError on NaN and infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
