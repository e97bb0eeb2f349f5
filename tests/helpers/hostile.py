"""Producers of tensors that offer one route only, or lie about what they have. Needs NumPy alone."""

import ctypes
from typing import Any

import numpy as np

SHAPE = (2, 3, 4)


class Exporter:
    """An object that offers nothing but `__dlpack__`, for the third route."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> Any:
        return self.array.__dlpack__(max_version=max_version)


class OldExporter(Exporter):
    """A producer from before `max_version`."""

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return self.array.__dlpack__()


class Capsule(ctypes.Structure):
    """DLManagedTensorVersioned with its DLTensor unrolled."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Hostile:
    """A producer whose capsule says what the test wants."""

    def __init__(
        self,
        *,
        shape: tuple[int, ...] = SHAPE,
        strides: Any = "dense",
        name: bytes | None = b"dltensor_versioned",
        memory: Any = None,
        **fields: Any,
    ) -> None:
        self.memory = np.ones(24, dtype=np.float32) if memory is None else memory
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.exported = self.deleted = 0
        self.deleter = DELETER(self._count)
        dense = [1] * len(shape)
        for index in range(len(shape) - 2, -1, -1):
            dense[index] = dense[index + 1] * max(1, min(shape[index + 1], 2**20))
        values = dense if strides == "dense" else strides
        self.strides = None if values is None else (ctypes.c_int64 * len(values))(*values)
        defaults: dict[str, Any] = {
            "major": 1,
            "minor": 3,
            "deleter": ctypes.cast(self.deleter, ctypes.c_void_p),
            "data": self.memory.ctypes.data,
            "device_type": 1,
            "ndim": len(shape),
            "code": 2,
            "bits": 32,
            "lanes": 1,
            "shape": ctypes.addressof(self.shape),
            "strides": None if self.strides is None else ctypes.addressof(self.strides),
        }
        self.managed = Capsule(**(defaults | fields))
        self.name = name

    def _count(self, _: Any) -> None:
        self.deleted += 1

    def __dlpack__(self, **_: Any) -> Any:
        self.exported += 1
        return new_capsule(ctypes.addressof(self.managed), self.name, None)


class Exchange(ctypes.Structure):
    """The DLPack function table of a tensor type."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("from_object", ctypes.c_void_p),
        ("to_object", ctypes.c_void_p),
        ("borrow", ctypes.c_void_p),
        ("current_stream", ctypes.c_void_p),
    )


class BareTensor(ctypes.Structure):
    """DLTensor, what `borrow` fills."""

    _fields_ = Capsule._fields_[5:]


FROM_OBJECT = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))
BORROW = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(BareTensor))
