"""What the fuzzers do with a string of bytes: one call of one entry point with hostile tensors, and the laws it obeys.

The bytes choose the entry point and, for each of its tensors, the route and the fields of what is passed. Whatever they
choose, the call succeeds, or raises one of the documented exceptions with a message that names an argument; each
capsule that was accepted is released exactly once; and memory that may not be written stays as it was.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from core_entries import ENTRIES, Entry
from hostile import Exporter, Hostile

ALLOWED = (BufferError, TypeError, ValueError, OverflowError, RuntimeError)
# A capsule that claims more memory than there is cannot be told from an honest one, so large sizes are impossible ones.
SIZES = [0, 1, 2, 3, 4, 5, 6, -1, 2**61, 2**62, 2**63 - 1, -(2**63)]
STRIDES = [0, 1, 2, 3, 5, 15, 16, -1, -5, 2**40, 2**62, -(2**63)]
SPECIAL = np.array([0, -0.0, 1, -1, 1e-38, 1e-45, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)
OFFSETS = [0, 1, 4, 8, 2**63, 2**64 - 4]
NAMES = [b"dltensor_versioned", b"dltensor_", b"used_dltensor_versioned", None]
ROOM = 4096  # floats around each tensor, so that a wrong read inside them is no crash but a wrong write is seen


class Bytes:
    """The input, read from the front; zeros when it has ended, which choose what is honest."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def next(self, below: int = 256) -> int:
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.at += 1
        return byte % below


def spoil_values(choice: Bytes, array: Any) -> Any:
    """Sets a few entries to special numbers."""
    flat = array.reshape(-1)
    for _ in range(choice.next(4)):
        if flat.size:
            flat[choice.next() % flat.size] = SPECIAL[choice.next(len(SPECIAL))]
    return array


def lying_capsule(choice: Bytes, array: Any) -> Hostile:
    """A capsule with some fields changed, always over memory that is larger than any small shape."""
    memory = np.zeros(ROOM, np.float32)
    memory[: array.size] = array.reshape(-1)
    shape = list(array.shape)
    strides: Any = "dense"
    fields: dict[str, Any] = {}
    for _ in range(1 + choice.next(3)):
        field = choice.next(13)
        value = choice.next()
        if field == 0 and shape:
            shape[value % len(shape)] = SIZES[choice.next(len(SIZES))]
        elif field == 1:
            strides = [STRIDES[choice.next(len(STRIDES))] for _ in shape]
        elif field == 2:
            shape = [*shape, 1 + value % 2] if value % 3 else shape[:-1]
        else:
            fields |= spoiled_field(field, value)
    if strides != "dense":  # as many as the shape has by now
        strides = [*strides, *shape][: len(shape)]
    producer = Hostile(shape=tuple(shape), strides=strides, memory=memory, **fields)
    if choice.next(16) == 15:
        producer.managed.shape = None
    if choice.next(16) == 15:
        producer.managed.strides = None
    return producer


def spoiled_field(field: int, value: int) -> dict[str, Any]:
    table: list[dict[str, Any]] = [
        {"data": None},
        {"code": value % 8},
        {"bits": [8, 16, 32, 64][value % 4]},
        {"lanes": value % 4},
        {"device_type": value % 20 - 2},
        {"major": value % 4},
        {"flags": value % 8},
        {"byte_offset": OFFSETS[value % len(OFFSETS)]},
        {"name": NAMES[value % len(NAMES)]},
        {"deleter": None},
    ]
    return table[field - 3]


def spoil_array(choice: Bytes, array: Any) -> Any:
    """An ndarray that differs from what is wanted."""
    kind = choice.next(9)
    if kind == 0:
        return array.astype(["float64", "float16", "int32", ">f4", "complex64", "bool", "float32"][choice.next(7)])
    if kind == 1:
        return array[::-1]
    if kind == 2:
        return array[..., ::2]
    if kind == 3:
        return array[: choice.next(5)]
    if kind == 4:
        return array.T
    if kind == 5:
        return array[None] if choice.next(2) else array.reshape(-1)
    if kind == 6:
        array.flags.writeable = False
    if kind == 7:
        return np.zeros(array.nbytes + 4, np.uint8)[1 : 1 + array.nbytes].view(np.float32).reshape(array.shape)
    if kind == 8:
        return [None, "text", 3, array.tolist(), np.ndarray][choice.next(5)]
    return array


def make_tensor(choice: Bytes, array: Any) -> Any:
    route = choice.next(5)
    if route == 1:
        return Exporter(spoil_values(choice, array))
    if route == 2:
        return lying_capsule(choice, array)
    if route == 3:
        return spoil_array(choice, array)
    return spoil_values(choice, array)


def check_released(producer: Hostile) -> None:
    managed = producer.managed
    unread = producer.name != b"dltensor_versioned" or managed.major != 1
    expected = 0 if unread or not managed.deleter else producer.exported
    assert producer.deleted == expected, f"released {producer.deleted} times, exported {producer.exported} times"


def run_case(data: bytes) -> str:
    """Runs one case; the name of what came out, or an AssertionError if a law is broken."""
    choice = Bytes(data)
    entry: Entry = ENTRIES[choice.next(len(ENTRIES))]
    arrays = entry.arrays(seed=choice.next(4))
    tensors = {name: make_tensor(choice, array) for name, array in arrays.items()}
    if choice.next(8) == 7 and entry.writes:  # an output over an input
        names = list(tensors)
        tensors[entry.writes[0]] = tensors[names[choice.next(len(names))]]
    readable = [name for name, tensor in tensors.items() if isinstance(tensor, np.ndarray) and name not in entry.writes]
    kept = {name: tensors[name].tobytes() for name in readable}
    outcome = "done"
    try:
        entry.call(entry.make(), tensors)
    except ALLOWED as error:
        outcome = type(error).__name__
        message = str(error)
        assert 10 < len(message) < 400, message
    if outcome == "done":
        for name in readable:
            shared = any(tensors[name] is tensors[other] for other in entry.writes)
            assert shared or tensors[name].tobytes() == kept[name], f"{entry.name} wrote to its input {name}"
    for producer in {id(tensor): tensor for tensor in tensors.values()}.values():
        if isinstance(producer, Hostile):
            check_released(producer)
            assert not producer.memory[ROOM // 2 :].any()
    return outcome
