"""Tensors as bytes in the safetensors format: one text for one content, read in bounded time and memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensors: TypeAlias = Mapping[str, NDArray[Any]]

HEADER_LIMIT = 2**20
"""Largest header in bytes: room for some ten thousand tensors."""
MOST_AXES = 32
_LENGTH = 8
"""Bytes of the header's length, and the multiple that its text is padded to."""
_TYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "I16": "<i2",
        "U16": "<u2",
        "F16": "<f2",
        "I32": "<i4",
        "U32": "<u4",
        "F32": "<f4",
        "F64": "<f8",
        "I64": "<i8",
        "U64": "<u8",
    }.items()
}
_NAMES = {dtype.newbyteorder("="): name for name, dtype in _TYPES.items()}
_RANKS = {name: rank for rank, name in enumerate(_TYPES)}

_Entry: TypeAlias = tuple[str, str, tuple[int, ...]]
"""Name, type and shape of a tensor."""


def pack(tensors: Tensors) -> bytes:
    """Return tensors as bytes: the same ones, to the bit, as the library safetensors writes.

    tensors: by name, of at most MOST_AXES axes.

    Raises ValueError for a type that the format lacks, too many axes, and more tensors than a header holds.
    """
    entries = []
    for name, array in tensors.items():
        kind = _NAMES.get(array.dtype.newbyteorder("="))
        if kind is None or array.ndim > MOST_AXES:
            raise ValueError(f"tensor {name} is of {array.dtype} with {array.ndim} axes, which a file cannot hold")
        entries.append((name, kind, array.shape))
    header = _header(entries)
    if len(header) > _LENGTH + HEADER_LIMIT:
        raise ValueError(f"{len(entries)} tensors are more than a file holds")
    parts = [header]
    for name, kind, _ in _in_order(entries):
        parts.append(np.ascontiguousarray(tensors[name], dtype=_TYPES[kind]).tobytes())
    return b"".join(parts)


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors that `pack` made into bytes, read-only and without a copy.

    Raises ValueError for any other bytes.
    """
    length = int.from_bytes(content[:_LENGTH], "little")
    start = _LENGTH + length
    if len(content) < _LENGTH or length > HEADER_LIMIT or start > len(content):
        raise ValueError(f"a header of {length} bytes, expected at most {HEADER_LIMIT} and no more than there are")
    found = json.loads(content[_LENGTH:start])
    if not isinstance(found, dict):
        raise ValueError("a header that is no table")
    entries = [_entry(name, entry) for name, entry in found.items()]
    # all that a header says twice, and the order, is compared here at once
    if _header(entries) != content[:start]:
        raise ValueError("a header that metav would write otherwise")
    tensors = {}
    for name, kind, shape in _in_order(entries):
        dtype, count = _TYPES[kind], math.prod(shape)
        if start + count * dtype.itemsize > len(content):
            raise ValueError(f"tensor {name} ends behind the last byte")
        stored = np.frombuffer(content, dtype, count, start).reshape(shape)
        tensors[name] = stored.astype(dtype.newbyteorder("="), copy=False)
        start += count * dtype.itemsize
    if start != len(content):
        raise ValueError(f"{len(content) - start} bytes behind the last tensor")
    return tensors


def _entry(name: str, entry: Any) -> _Entry:
    kind, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
    if not isinstance(kind, str) or kind not in _TYPES or not isinstance(shape, list) or len(shape) > MOST_AXES:
        raise ValueError(f"tensor {name} of unknown type or shape")
    if not all(type(size) is int and 0 <= size < 2**40 for size in shape):
        raise ValueError(f"tensor {name} of the shape {shape}")
    return name, kind, tuple(shape)


def _in_order(entries: Iterable[_Entry]) -> list[_Entry]:
    """Return entries in the format's order: wide types first, so that each is aligned, then by name."""
    return sorted(entries, key=lambda entry: (-_RANKS[entry[1]], entry[0]))


def _header(entries: Iterable[_Entry]) -> bytes:
    table, end = {}, 0
    for name, kind, shape in _in_order(entries):
        start, end = end, end + math.prod(shape) * _TYPES[kind].itemsize
        table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text
