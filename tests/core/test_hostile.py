"""Every tensor argument of every entry point against tensors that are wrong, lie, or change meanwhile.

What must come out is a BufferError, TypeError or ValueError that names the argument and says what to do, with the
memory released once and the other arguments as they were.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from core_entries import ENTRIES, Entry
from hostile import BORROW, FROM_OBJECT, SHAPE, BareTensor, Exchange, Exporter, Hostile, new_capsule

from metav import _core

REMEDY = r"(?s)use |pass |expected |must |convert |guard "


def torch() -> Any:
    return pytest.importorskip("torch", reason="needs torch, which is not installed here")


ARGUMENTS = [pytest.param(entry, name, id=f"{entry.name}-{name}") for entry in ENTRIES for name in entry.shapes]
# These two work under the interpreter lock, so that no other thread can come between.
LOCKED = ("QueryOptimizer", "Verifier.load_parameters")
RELEASING = [argument for argument in ARGUMENTS if argument.values[0].name not in LOCKED]
WRITERS = [pytest.param(entry, name, id=f"{entry.name}-{name}") for entry in ENTRIES for name in entry.writes]


# How to spoil an argument --------------------------------------------------------------------------------------------


def misaligned(array: Any) -> Any:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(np.float32).reshape(array.shape)
    assert moved.ctypes.data % 4 != 0
    return moved


def lying(**options: Any) -> Callable[[Any], Any]:
    return lambda array: Hostile(**({"shape": array.shape, "memory": array} | options))


def without_shape(array: Any) -> Any:
    producer = Hostile(shape=array.shape, memory=array)
    producer.managed.shape = None
    return producer


def as_torch(change: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda array: change(torch(), torch().from_numpy(array))


def fake(_: Any, tensor: Any) -> Any:
    mode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode()
    with mode:
        return torch().zeros(tensor.shape)


def wrapper(module: Any, tensor: Any) -> Any:
    class Wrapper(module.Tensor):  # type: ignore[misc, name-defined]
        __torch_function__ = module._C._disabled_torch_function_impl

        @classmethod
        def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            raise NotImplementedError

    return module.Tensor._make_wrapper_subclass(Wrapper, tensor.shape, dtype=tensor.dtype)


HUGE = 2**62
SPOILED: dict[str, Callable[[Any], Any]] = {
    "text": lambda _: "text",
    "list": lambda array: array.tolist(),
    "float64": lambda array: array.astype(np.float64),
    "int32": lambda array: array.astype(np.int32),
    "complex": lambda array: array.astype(np.complex64),
    "swapped bytes": lambda array: array.astype(">f4"),
    "structured": lambda array: array.view([("x", np.float32)]),
    "rank 0": lambda array: np.array(1, np.float32),
    "gaps": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "fortran": lambda array: np.repeat(array[..., None], 2, axis=-1)[..., 0],
    "negative strides": lambda array: array[::-1],
    "zero strides": lambda array: np.lib.stride_tricks.as_strided(array, strides=(0,) * array.ndim),
    "misaligned": misaligned,
    "legacy misaligned": lambda array: Exporter(misaligned(array)),
    "NULL data": lying(data=None),
    "NULL shape": without_shape,
    "offset past memory": lying(byte_offset=2**64 - 4),
    "odd offset": lying(byte_offset=2),
    "another device": lying(device_type=2),
    "unknown device": lying(device_type=-5),
    "major 0": lying(major=0),
    "major 2": lying(major=2),
    "wrong name": lying(name=b"dltensor_"),
    "used": lying(name=b"used_dltensor_versioned"),
    "nameless": lying(name=None),
    "vectors": lying(lanes=4),
    "bfloat16": lying(code=4, bits=16),
    "NULL deleter": lying(deleter=None, device_type=2),
    "negative size": lambda array: Hostile(shape=(-1, *array.shape[1:]), memory=array),
    "2^62 sizes": lambda array: Hostile(shape=(HUGE,) * array.ndim, memory=array),
    "0 by 2^62": lambda array: Hostile(shape=(0, *(HUGE,) * array.ndim)[: max(array.ndim, 2)], memory=array),
    "rank 1000": lying(ndim=1000),
    "rank -1": lying(ndim=-1),
    "requires_grad": as_torch(lambda module, tensor: tensor.clone().requires_grad_()),
    "parameter": as_torch(lambda module, tensor: module.nn.Parameter(tensor)),
    "negative bit": as_torch(lambda module, tensor: module._neg_view(tensor)),
    "conjugate bit": as_torch(lambda module, tensor: tensor.to(module.complex64).conj()),
    "fake": as_torch(fake),
    "wrapper subclass": as_torch(wrapper),
    "meta": as_torch(lambda module, tensor: tensor.to("meta")),
    "sparse": as_torch(lambda module, tensor: tensor.to_sparse()),
    "expanded": as_torch(lambda module, tensor: module.zeros(()).expand(tensor.shape)),
    "torch bfloat16": as_torch(lambda module, tensor: tensor.bfloat16()),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
@pytest.mark.parametrize(("entry", "name"), ARGUMENTS)
def test_a_spoiled_argument_is_refused_by_name(entry: Entry, name: str, spoil: Callable[[Any], Any]) -> None:
    arrays = entry.arrays()
    spoiled = spoil(arrays[name].copy())
    kept = {other: array.copy() for other, array in arrays.items()}
    with pytest.raises((BufferError, TypeError, ValueError), match=REMEDY) as caught:
        entry.call(entry.make(), arrays | {name: spoiled})
    assert name in str(caught.value)
    assert len(str(caught.value)) < 250
    for other, array in arrays.items():
        np.testing.assert_array_equal(array, kept[other])
    if isinstance(spoiled, Hostile):
        refused_unread = spoiled.name != b"dltensor_versioned" or spoiled.managed.major != 1
        assert spoiled.deleted == (0 if refused_unread or not spoiled.managed.deleter else 1)


@pytest.mark.parametrize(("entry", "name"), ARGUMENTS)
def test_an_argument_of_another_shape_is_refused_by_name(entry: Entry, name: str) -> None:
    arrays = entry.arrays()
    for wrong in (arrays[name][..., :-1].copy(), arrays[name][None]):
        if wrong.ndim != arrays[name].ndim and name in entry.any_rank:
            continue
        with pytest.raises(ValueError, match=r"expected|must have") as caught:
            entry.call(entry.make(), arrays | {name: wrong})
        bounds = {"natural", "lower", "upper"}
        named = bounds if name in bounds else {name, "out", "gradient", "feature_gradient", "roles", "queries"}
        assert any(word in str(caught.value) for word in named)


@pytest.mark.parametrize(("entry", "name"), WRITERS)
def test_results_are_not_written_to_memory_that_may_only_be_read(entry: Entry, name: str) -> None:
    for make in (lambda array: array, Exporter):
        arrays = entry.arrays()
        arrays[name].flags.writeable = False
        kept = arrays[name].copy()
        with pytest.raises(BufferError, match=f"{name} is read-only.*pass a writable"):
            entry.call(entry.make(), arrays | {name: make(arrays[name])})
        np.testing.assert_array_equal(arrays[name], kept)


@pytest.mark.parametrize(("entry", "name"), WRITERS)
def test_results_may_not_overlap_any_input(entry: Entry, name: str) -> None:
    arrays = entry.arrays()
    for other, array in arrays.items():
        if other == name:
            continue
        target = array.reshape(-1)[-arrays[name].size :].reshape(arrays[name].shape)
        with pytest.raises(ValueError, match=f"{name} shares memory with {other}; pass"):
            entry.call(entry.make(), arrays | {name: target})


# Tensors that change meanwhile ---------------------------------------------------------------------------------------


class Disturbing(Exporter):
    """A producer whose export runs something else first."""

    def __init__(self, array: Any, disturb: Callable[[], Any]) -> None:
        super().__init__(array)
        self.disturb = disturb

    def __dlpack__(self, **options: Any) -> Any:
        self.disturb()
        return super().__dlpack__(**options)


PAIRS = [
    pytest.param(entry, first, last, id=f"{entry.name}-{first}-{last}")
    for entry in ENTRIES
    for first, last in zip(entry.shapes, list(entry.shapes)[1:], strict=False)
]
CHANGES: dict[str, Callable[[Any], Any]] = {
    "grown": lambda tensor: tensor.resize_(100_000),
    "shrunk": lambda tensor: tensor.resize_(1),
    "set": lambda tensor: tensor.set_(torch().zeros(tensor.shape)),
    "new data": lambda tensor: setattr(tensor, "data", torch().zeros(tensor.shape)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize(("entry", "first", "last"), PAIRS)
def test_an_argument_that_a_later_one_changes_is_refused(
    entry: Entry, first: str, last: str, change: Callable[[Any], Any]
) -> None:
    arrays = entry.arrays()
    victim = torch().from_numpy(arrays[first]).clone()
    evil = Disturbing(arrays[last], lambda: change(victim))
    with pytest.raises(BufferError, match=f"{first} was resized or got other memory.*pass a copy"):
        entry.call(entry.make(), arrays | {first: victim, last: evil})


@pytest.mark.parametrize(("entry", "first", "last"), PAIRS)
def test_an_array_that_a_later_argument_resizes_is_refused(entry: Entry, first: str, last: str) -> None:
    arrays = entry.arrays()
    victim = arrays[first].copy()
    evil = Disturbing(arrays[last], lambda: victim.resize(100_000, refcheck=False))
    with pytest.raises(BufferError, match=f"{first} was resized or got other memory"):
        entry.call(entry.make(), arrays | {first: victim, last: evil})


@pytest.mark.parametrize(("entry", "name"), RELEASING)
def test_an_argument_that_changes_during_the_work_is_reported(entry: Entry, name: str) -> None:
    """The type's table tells another address the second time that it is asked, which is after the work."""
    arrays = entry.arrays()
    asked = []

    def from_object(producer: Any, out: Any) -> int:
        out[0] = ctypes.addressof(producer.managed)
        return 0

    def borrow(producer: Any, out: Any) -> int:
        asked.append(name)
        for field, *_ in BareTensor._fields_:
            setattr(out[0], field, getattr(producer.managed, field))
        out[0].byte_offset = 0 if len(asked) == 1 else 4
        return 0

    functions = FROM_OBJECT(from_object), BORROW(borrow)
    pointers = [ctypes.cast(function, ctypes.c_void_p) for function in functions]
    table = Exchange(major=1, minor=3, from_object=pointers[0], borrow=pointers[1])

    class Producer(Hostile):
        __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(table), b"dlpack_exchange_api", None)

    producer = Producer(shape=arrays[name].shape, memory=arrays[name])
    with pytest.raises(BufferError, match=f"{name} was resized or got other memory.*guard it with a lock"):
        entry.call(entry.make(), arrays | {name: producer})
    assert len(asked) == 2
    assert producer.deleted == 1


def test_another_thread_that_replaces_the_storage_does_no_harm() -> None:
    """The call holds the storage that it reads: it succeeds, or says that the tensor changed."""
    module = torch()
    tensor = module.ones(200, 40, 10)
    out = np.zeros(tensor.shape, np.float32)
    stop = threading.Event()
    outcomes = set()

    def replace() -> None:
        while not stop.is_set():
            tensor.data = module.ones(tensor.shape)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(200):
            try:
                _core.apply_view(tensor, "identity", out=out)
                outcomes.add("done")
                assert (out == 1).all()
            except BufferError as error:
                outcomes.add(str(error))
    finally:
        stop.set()
        thread.join()
    assert all(text == "done" or text.startswith("responses was resized") for text in outcomes)


def test_a_handle_in_use_is_refused_with_a_remedy() -> None:
    """While load_parameters reads its tensors, the handle belongs to it; a thread and a callback are told."""
    verifier = _core.Verifier("local", *SHAPE[1:])
    parameters: dict[str, Any] = dict(verifier.parameters())
    responses = np.ones(SHAPE, np.float32)
    messages = []

    def use() -> None:
        try:
            verifier.scores(responses)
        except RuntimeError as error:
            messages.append(str(error))

    def disturb() -> None:
        use()
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    parameters["bias"] = Disturbing(parameters["bias"], disturb)
    verifier.load_parameters(parameters)
    assert len(messages) == 2
    assert all("in use" in message and "give each thread its own" in message for message in messages)
    verifier.scores(responses)


# Autograd ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "name"), WRITERS)
def test_a_write_into_a_torch_tensor_counts_as_a_change(entry: Entry, name: str) -> None:
    module = torch()
    tensors = {other: module.from_numpy(array) for other, array in entry.arrays().items()}
    written = tensors[name]
    weight = module.ones(written.shape, requires_grad=True)
    loss = (weight * written).sum()
    versions = {other: tensor._version for other, tensor in tensors.items()}
    entry.call(entry.make(), tensors)
    for other, tensor in tensors.items():
        assert tensor._version == versions[other] + (other == name), other
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(("entry", "name"), WRITERS)
def test_a_refused_call_is_no_change(entry: Entry, name: str) -> None:
    module = torch()
    arrays = entry.arrays()
    written = module.from_numpy(arrays[name])
    first = next(iter(arrays))
    with pytest.raises(TypeError):
        entry.call(entry.make(), arrays | {first: "text", name: written})
    assert written._version == 0


@pytest.mark.parametrize(("entry", "name"), WRITERS)
def test_views_share_the_version_and_inference_tensors_have_none(entry: Entry, name: str) -> None:
    module = torch()
    arrays = entry.arrays()
    base = module.zeros((2, *arrays[name].shape))
    entry.call(entry.make(), arrays | {name: base[1]})
    assert base._version == 1
    with module.inference_mode():
        target = module.zeros(arrays[name].shape)
    entry.call(entry.make(), entry.arrays() | {name: target})
    np.testing.assert_array_equal(target.numpy(), base[1].numpy())
