"""The Open Inference Protocol v2 (KServe, Triton, MLServer): JSON, and binary tensors where the server offers them.

Source: the protocol's REST specification in the repository kserve/open-inference-protocol; binary tensors as Triton's
extension "binary_tensor_data" describes them.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Mapping
from typing import Any, final
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError, TransportError
from metav.support.arrays import FloatArray
from metav.suspects.http.connection import Connection, Received
from metav.suspects.http.credentials import shown_address
from metav.suspects.http.json_answers import read_json
from metav.suspects.tensor_specifications import (
    Layout,
    TensorSpecification,
    arranged,
    checked_layout,
    chosen,
    constant_for_batch,
    constants_for,
    converted,
)
from metav.suspects.transports import Reply, Transport, sha256

MODEL_PATH = re.compile(r"(?P<server>.*/v2)(?P<model>/models/[^/]+(?:/versions/[^/]+)?)(?:/infer)?/?")
"""Path of a model's address, with or without /infer."""
BINARY = "binary_tensor_data"
HEADER_LENGTH = "inference-header-content-length"
DEFAULT_INPUT = TensorSpecification(name="input-0", dtype="float32", shape=None)
"""The input of a service that says nothing of its inputs."""

_DTYPES = {
    "BOOL": "bool",
    **{f"{sign.upper()}INT{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST_TENSORS, _MOST_SIZES = 1000, 32


@final
class OpenInferenceTransport(Transport):
    """A model behind a server of the Open Inference Protocol.

    url: .../v2/models/NAME, with /versions/V and /infer or without.
    input, constants, output, layout: as for `OnnxSuspect`; what the service says of its inputs is asked first.
    headers, timeout: see `Connection`.
    """

    def __init__(
        self,
        url: str,
        *,
        input: str | int | None = None,
        constants: Mapping[str, Any] | None = None,
        output: str | int | None = None,
        layout: Layout | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        if MODEL_PATH.fullmatch(urlsplit(url).path) is None:
            raise InputError(f"{shown_address(url)} is no model's address; expected .../v2/models/NAME/infer")
        self._connection = Connection(url, headers=headers, timeout=timeout)
        self._input, self._output, self._constants = input, output, dict(constants or {})
        self._layout = checked_layout(layout)
        self._lock = threading.Lock()
        self._known: tuple[list[TensorSpecification], bool] | None = None
        self.endpoint = shown_address(self._address("model", "/infer", url))
        self.description = f"OIP model at {self.endpoint}"
        self.configuration = {
            "protocol": "oip",
            "url": self.endpoint,
            "headers": dict(headers or {}),
            "input": input,
            "constants": {name: np.asarray(value).tolist() for name, value in self._constants.items()},
            "output": output,
            "layout": layout,
        }

    @property
    def largest_batch(self) -> int | None:
        """The batch size that the service says its input is fixed to; None for any."""
        inputs, _ = self._specification()
        return inputs[chosen(inputs, self._input, what="input")].batch

    def answer_batch(self, queries: FloatArray) -> Reply:
        """Send a batch once; see `Transport`. A batch below a fixed size is filled up with copies of its last query."""
        inputs, binary = self._specification()
        place = chosen(inputs, self._input, what="input")
        size = inputs[place].batch
        if size is not None and len(queries) > size:
            raise InputError(
                f"{self.endpoint} takes {size} queries at once, got {len(queries)}: ask in smaller batches"
            )
        filling = np.repeat(queries[-1:], 0 if size is None else size - len(queries), axis=0)
        tensors = self._tensors(inputs, place, np.concatenate([queries, filling]))
        content, headers = _packed(tensors, self._output if isinstance(self._output, str) else None, binary)
        received = self._connection.send("POST", content, headers=headers, url=self._address("model", "/infer"))
        values = self._answer(received)
        return Reply(
            values=values[: len(queries)] if len(filling) else values,
            status=received.status,
            request_sha256=received.request_sha256,
            response_sha256=sha256(received.content),
        )

    def close(self) -> None:
        """Close the connection; what the service said of its inputs is kept."""
        self._connection.close()

    def _address(self, part: str, ending: str = "", url: str | None = None) -> str:
        parts = urlsplit(url or self._connection.url)
        found = MODEL_PATH.fullmatch(parts.path)
        if found is None:
            raise InputError(f"{self._connection.address} is no model's address; expected .../v2/models/NAME/infer")
        path = found["server"] + (found["model"] if part == "model" else "") + ending
        return str(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))

    def _specification(self) -> tuple[list[TensorSpecification], bool]:
        """Return the inputs, and whether binary tensors are offered; asked once."""
        with self._lock:
            if self._known is None:
                told = self._told("model").get("inputs")
                inputs = [_specification(entry) for entry in told[:_MOST_TENSORS]] if isinstance(told, list) else []
                if not inputs:
                    named = DEFAULT_INPUT.name if not isinstance(self._input, str) else self._input
                    inputs = [TensorSpecification(name=named, dtype="float32", shape=None)]
                    inputs += [TensorSpecification(name=name, dtype="float32", shape=None) for name in self._constants]
                extensions = self._told("server").get("extensions")
                self._known = inputs, isinstance(extensions, list) and BINARY in extensions
            return self._known

    def _told(self, part: str) -> dict[str, Any]:
        """Return what the service says of itself or of the model; nothing where it does not say it."""
        try:
            told = read_json(self._connection.send("GET", url=self._address(part)), self._connection)
        except TransportError as error:
            if error.reason in ("refused", "unreadable") and not error.retriable and error.status not in (401, 403):
                return {}
            raise
        return told if isinstance(told, dict) else {}

    def _tensors(self, inputs: list[TensorSpecification], place: int, queries: FloatArray) -> dict[str, NDArray[Any]]:
        entry = inputs[place]
        sent = {entry.name: converted(arranged(queries, entry.shape, self._layout), entry.dtype, name=entry.name)}
        constants = constants_for(inputs, place, self._constants)
        others = {other.name: other for other in inputs if other.name != entry.name}
        return sent | {name: constant_for_batch(others[name], value, len(queries)) for name, value in constants.items()}

    def _answer(self, received: Received) -> NDArray[Any]:
        """Return the output that is meant as an array."""
        try:
            outputs = _unpacked(received, self._connection)
            place = chosen([specification for specification, _ in outputs], self._output, what="output")
        except (InputError, ValueError, TypeError, OverflowError, KeyError) as error:
            reason = self._connection.hidden(error)
            raise received.fault(f"{self.endpoint} answered no outputs that can be read: {reason}") from None
        return outputs[place][1]


def _specification(entry: Any) -> TensorSpecification:
    entry = entry if isinstance(entry, dict) else {}
    shape = entry.get("shape")
    sizes = None
    if isinstance(shape, list) and 0 < len(shape) <= _MOST_SIZES:
        sizes = tuple(size if isinstance(size, int) and size > 0 else None for size in shape)
    return TensorSpecification(
        name=str(entry.get("name", "")),
        dtype=_DTYPES.get(str(entry.get("datatype"))),
        shape=sizes,
    )


def _packed(tensors: Mapping[str, NDArray[Any]], output: str | None, binary: bool) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request, and the headers that go with it."""
    inputs, blobs = [], []
    for name, array in tensors.items():
        tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": _NAMES[array.dtype.name]}
        if binary:
            blobs.append(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = array.ravel().tolist()
        inputs.append(tensor)
    request: dict[str, Any] = {"inputs": inputs}
    if output is not None:
        request["outputs"] = [{"name": output, **({"parameters": {"binary_data": True}} if binary else {})}]
    elif binary:
        request["parameters"] = {"binary_data_output": True}
    head = json.dumps(request).encode()
    if not binary:
        return head, {}
    return head + b"".join(blobs), {HEADER_LENGTH: str(len(head)), "content-type": "application/octet-stream"}


def _unpacked(received: Received, connection: Connection) -> list[tuple[TensorSpecification, NDArray[Any]]]:
    """Return the outputs of an answer; ValueError, TypeError or KeyError where they contradict themselves."""
    told = received.headers.get(HEADER_LENGTH)
    length = len(received.content) if told is None else int(told)
    if not 0 <= length <= len(received.content):
        raise ValueError("its header is longer than the answer")
    answer, rest = read_json(received, connection, length=length), received.content[length:]
    outputs = answer.get("outputs") if isinstance(answer, dict) else None
    if not isinstance(outputs, list) or len(outputs) > _MOST_TENSORS:
        raise ValueError('there is no list of "outputs"')
    found = []
    for entry in outputs:
        array, rest = _tensor(entry, rest)
        found.append((_specification(entry), array))
    return found


def _tensor(entry: Any, rest: bytes) -> tuple[NDArray[Any], bytes]:
    """Return one output, and what is left of the binary part."""
    shape = [int(size) for size in entry["shape"]]
    if len(shape) > _MOST_SIZES or any(size < 0 for size in shape):
        raise ValueError(f"an output has the shape {shape}")
    dtype, parameters = _DTYPES.get(str(entry.get("datatype"))), entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if not isinstance(size, int) or not 0 <= size <= len(rest) or dtype is None:
            raise ValueError("an output claims more binary data than came")
        flat = np.frombuffer(rest[:size], dtype=np.dtype(dtype).newbyteorder("<"))
        rest = rest[size:]
    else:
        flat = np.asarray(entry["data"]).ravel()
    if flat.size != math.prod(shape):
        raise ValueError(f"an output of shape {shape} has {flat.size} numbers")
    return flat.reshape(shape), rest
