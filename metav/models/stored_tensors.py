"""Tensors that may be larger than memory: what is above the limit lies in a file, and batches are read from it."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from metav.models.staging import HOST, on_device
from metav.support.stored_arrays import PART_BYTES, ArrayPlace, RowWriter, StoredArray, memory_limit, where_it_lies

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_ROWS = 16
"""Parts hold a multiple of so many rows: PyTorch draws normal numbers 16 at a time, so that parts draw the same."""


class StoredTensor(Tensor):
    """A tensor whose values lie in a file. What is taken out of it, by an index or any operation, is a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch documents it
    stored: StoredArray

    @classmethod
    def of(cls, stored: StoredArray) -> StoredTensor:
        """Return the tensor of an array of numbers."""
        tensor: StoredTensor = torch.from_numpy(stored.values).as_subclass(cls)
        tensor.stored = stored
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTensor:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def exceeds_memory(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> bool:
    """Return whether a tensor is kept in a file: whether it takes more bytes than `memory_limit`."""
    return math.prod(shape) * dtype.itemsize > memory_limit()


def row_slices(count: int, row_bytes: int) -> list[slice]:
    """Return one slice for all rows, or slices of some of them each where all take more than `memory_limit`.

    row_bytes: of one row.
    """
    limit = memory_limit()
    if count * row_bytes <= limit:
        return [slice(0, count)]
    each = max(1, min(PART_BYTES, limit // 4) // max(row_bytes, 1) // LEAST_ROWS) * LEAST_ROWS
    begins = list(range(0, count, each))
    if len(begins) > 1 and count - begins[-1] < LEAST_ROWS:
        begins.pop()
    return [slice(begin, end) for begin, end in zip(begins, [*begins[1:], count], strict=True)]


def row_parts(values: Tensor) -> Iterator[Tensor]:
    """Yield a tensor itself, or parts (m, ...) of it where it takes more memory than `memory_limit`."""
    if values.ndim == 0 or not exceeds_memory(values.shape, values.dtype):
        yield values
        return
    row_bytes = math.prod(values.shape[1:]) * values.dtype.itemsize
    for part in row_slices(len(values), row_bytes):
        yield values[part]


class RowCollector:
    """Collects rows in memory, and in a file as soon as they take more than `memory_limit`.

    name: what they are, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name, self._limit = name, memory_limit()
        self._waiting: list[Tensor] = []
        self._size = 0
        self._writer: RowWriter | None = None
        self._dtype: torch.dtype | None = None

    def append(self, rows: Tensor) -> None:
        """Take rows (n, ...) of the shape of those before; InputError where there is no room for them."""
        dtype = rows.dtype if self._dtype is None else torch.promote_types(self._dtype, rows.dtype)
        changes, self._dtype = dtype != self._dtype, dtype
        if self._writer is None:
            self._waiting.append(rows)
            self._size += rows.numel() * dtype.itemsize
            if self._size > self._limit:
                self.spill()
            return
        if changes:
            written = StoredTensor.of(self._writer.finished())
            self._writer = self._new_writer(tuple(rows.shape[1:]))
            for part in row_parts(written):
                self._write(part)
        self._write(rows)

    def spill(self) -> None:
        """Keep the rows so far, at least one, and those that follow in a file."""
        if self._writer is not None:
            return
        self._writer = self._new_writer(tuple(self._waiting[0].shape[1:]))
        for part in self._waiting:
            self._write(part)
        self._waiting.clear()

    def joined(self) -> Tensor:
        """Return all rows."""
        if self._writer is not None:
            return StoredTensor.of(self._writer.finished())
        return torch.cat(self._waiting)

    def _new_writer(self, shape: tuple[int, ...]) -> RowWriter:
        return RowWriter(self._name, torch.empty(0, dtype=self._kept_dtype).numpy().dtype, shape)

    def _write(self, rows: Tensor) -> None:
        if self._writer is not None:
            self._writer.append(rows.detach().to(device="cpu", dtype=self._kept_dtype).numpy())

    @property
    def _kept_dtype(self) -> torch.dtype:
        # NumPy has no bfloat16
        return torch.float32 if self._dtype in (None, torch.bfloat16) else self._dtype


def joined_rows(parts: Iterable[Tensor], name: str = "the values") -> Tensor:
    """Return the rows of all parts as one tensor, in a file where they take more memory than `memory_limit`."""
    collector = RowCollector(name)
    for part in parts:
        collector.append(part)
    return collector.joined()


def gathered_rows(parts: Iterator[Tensor], count: int) -> Tensor:
    """Return `count` rows as `joined_rows` does, of parts that have one dtype and that are not kept meanwhile.

    Small parts that are kept while large batches come and go would break memory into pieces that fit no batch.
    """
    first = next(parts)
    every = itertools.chain([first], parts)
    if exceeds_memory((count, *first.shape[1:]), first.dtype):
        return joined_rows(every)
    rows, begin = torch.empty(count, *first.shape[1:], dtype=first.dtype), 0
    for part in every:
        rows[begin : begin + len(part)] = part
        begin += len(part)
    return rows


def selected_rows(values: Tensor, indices: Tensor) -> Tensor:
    """Return the rows of a tensor at `indices` (m,), in a file where they take more memory than `memory_limit`."""
    row_bytes = math.prod(values.shape[1:]) * values.dtype.itemsize
    slices = row_slices(len(indices), row_bytes)
    return values[indices] if len(slices) == 1 else joined_rows(values[indices[part]] for part in slices)


def changed_columns(values: Tensor, change: Callable[[slice, Tensor], Tensor]) -> Tensor:
    """Return values (n, m) whose columns have been changed, all at once or some at a time; a file is changed in place.

    change: from places of columns and these columns (n, k) to new ones.
    """
    every = slice(0, values.shape[1])
    if not isinstance(values, StoredTensor):
        return change(every, values)
    changed = torch.from_numpy(values.stored.shared())
    each = max(1, PART_BYTES // (len(values) * values.element_size()))
    for begin in range(0, every.stop, each):
        columns = slice(begin, min(begin + each, every.stop))
        changed[:, columns] = change(columns, changed[:, columns].contiguous())
    return values


def rows_on(device: torch.device, values: Tensor, indices: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function from places (m,) among `indices` to these rows of a tensor, on a device.

    All move there at once, or batch by batch where the tensor lies in a file.
    """
    if isinstance(values, StoredTensor):
        return lambda places: on_device(values[indices[places.cpu()]], device)
    rows = values[indices].to(device)
    return lambda places: rows[on_device(places, device)]


def places_on(device: torch.device, *sources: Tensor) -> torch.device:
    """Return where the places of rows are best drawn that `rows_on` takes: on the host where one source is a file."""
    return HOST if any(isinstance(values, StoredTensor) for values in sources) else device


def as_stored(array: NDArray[Any]) -> Tensor | None:
    """Return an array above the limit as a tensor of its dtype: where it lies in a file, or written to one in parts.

    None for an array that memory holds. Byte orders and dtypes that PyTorch lacks become the next that it has.
    """
    if array.ndim == 0 or array.nbytes <= memory_limit():
        return None
    dtype = array.dtype.newbyteorder("=")
    if dtype.kind == "u" and dtype.itemsize > 1:
        dtype = np.dtype(np.int64)
    if dtype.kind == "f" and dtype.itemsize > 8:
        dtype = np.dtype(np.float64)
    placed = where_it_lies(array) if array.dtype == dtype else None
    if placed is not None:
        return StoredTensor.of(placed.opened())
    writer = RowWriter("the values", dtype, tuple(array.shape[1:]))
    for part in row_slices(len(array), array.nbytes // len(array)):
        writer.append(np.asarray(array[part]))
    return StoredTensor.of(writer.finished())


def pickled(thing: object) -> bytes:
    """Return an object as cloudpickle packs it for a process of this machine that ends before this one.

    Arrays that lie in files travel as the places of these.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def reducer_override(self, given: Any) -> Any:
            if isinstance(given, StoredTensor):
                return _opened_tensor, (given.stored.place,)
            if isinstance(given, np.memmap) and given.nbytes > memory_limit():
                place = where_it_lies(given)
                if place is not None:
                    return _opened_array, (place,)
            return super().reducer_override(given)

    with io.BytesIO() as file:
        Pickler(file).dump(thing)
        return file.getvalue()


def _opened_tensor(place: ArrayPlace) -> Tensor:
    return StoredTensor.of(place.opened())


def _opened_array(place: ArrayPlace) -> NDArray[Any]:
    return place.opened().values
