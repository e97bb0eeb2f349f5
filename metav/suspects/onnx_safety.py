"""What is looked at in an ONNX file before it is run: its size, where its weights lie, whose operators it asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from metav.errors import InputError
from metav.support.text import harmless

LARGEST_FILE = 2**31 - 1
"""Bytes of an .onnx file: Protocol Buffers allow no more."""
LARGEST_MODEL = 32 * 2**30
"""Bytes of a model with all its external weights."""
DEEPEST = 60
"""Graphs within graphs; ONNX files nest two or three."""

PLAIN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Whose operators are part of ONNX Runtime itself."""
FOREIGN_OPERATORS = ("EPContext",)
"""Operators of these domains that load code or binaries of their own."""


def check_onnx(path: Path) -> None:
    """Look at an ONNX file without running anything.

    Raises InputError where it is no ONNX file, too large, asks for operators that are not ONNX Runtime's own, or keeps
    weights outside its own folder.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(f"{_shown(path)} has {size} bytes, more than the {LARGEST_FILE} that an ONNX file can have")
    model = _read(path)
    _check_operators(model, path)
    total = size + sum(_checked_external_size(entries, path) for entries in _external(model, DEEPEST))
    if total > LARGEST_MODEL:
        raise InputError(f"{_shown(path)} has {total} bytes with its external weights, more than {LARGEST_MODEL}")


def _shown(path: Path) -> str:
    return harmless(path, limit=200)


def _read(path: Path) -> Any:
    import onnx

    try:
        model = onnx.load_model(path, load_external_data=False)
    # what a damaged file makes Protocol Buffers raise depends on which of its implementations is installed
    except Exception as error:
        reason = harmless(f"{type(error).__name__}: {error}", limit=300)
        raise InputError(f"{_shown(path)} is no ONNX file ({reason}); export the model again") from error
    if not model.graph.node or not model.graph.output:
        raise InputError(f"{_shown(path)} is no ONNX file: it holds no graph with outputs; export the model again")
    return model


def _messages(message: Any, deepest: int) -> Iterator[Any]:
    """Yield a message and all messages within it, whatever field they stand in."""
    if deepest == 0:
        raise InputError(f"the ONNX file nests its graphs more than {DEEPEST} levels deep; it is refused")
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            repeated = not hasattr(value, "ListFields")
            for inner in value if repeated else (value,):
                yield from _messages(inner, deepest - 1)


def _external(model: Any, deepest: int) -> Iterator[dict[str, str]]:
    """Yield where each external tensor lies: initialisers, attributes, functions, graphs within graphs."""
    import onnx

    for message in _messages(model, deepest):
        if message.DESCRIPTOR.name == "TensorProto" and message.data_location == onnx.TensorProto.EXTERNAL:
            yield {entry.key: entry.value for entry in message.external_data}


def _check_operators(model: Any, path: Path) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for message in _messages(model, DEEPEST):
        if message.DESCRIPTOR.name != "NodeProto" or (message.domain, message.op_type) in own:
            continue
        if message.domain not in PLAIN_DOMAINS or message.op_type in FOREIGN_OPERATORS:
            name = harmless(f"{message.domain}.{message.op_type}", limit=80)
            raise InputError(
                f"{_shown(path)} asks for the operator {name}, which needs a library of custom operators; none is "
                "loaded: run the model yourself and pass a callable, or its recorded answers"
            )


def _checked_external_size(entries: dict[str, str], path: Path) -> int:
    """Return the bytes of one external tensor; InputError where it is not a part of a file in the model's folder."""
    location = entries.get("location", "")
    shown = harmless(repr(location), limit=120)
    folder = path.parent
    target = folder / location
    # as Windows reads it, too: a drive or a backslash leads elsewhere there
    parts = (*target.parts[len(folder.parts) :], *PureWindowsPath(location).parts)
    inside = location and not PureWindowsPath(location).anchor and not Path(location).anchor and ".." not in parts
    resolved = Path(os.path.realpath(target)) if inside and "\0" not in location else None
    if resolved is None or not resolved.is_relative_to(os.path.realpath(folder)):
        raise InputError(
            f"{_shown(path)} keeps weights in {shown}, outside its own folder; external data is read from there alone: "
            "copy the files, no links, beside the model"
        )
    if not resolved.is_file():
        raise InputError(f"{_shown(path)} keeps weights in {shown}, which is no file; copy it beside the model")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        offset = -1
    if offset < 0 or length < 0 or offset + length > resolved.stat().st_size:
        raise InputError(
            f"{_shown(path)} keeps weights in {shown} beyond the end of that file; it is damaged: copy both files again"
        )
    return length or resolved.stat().st_size - offset
