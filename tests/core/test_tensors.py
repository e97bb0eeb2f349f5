"""How tensors reach the C core: NumPy, the DLPack exchange table, `__dlpack__`; and what is refused on every route."""

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hostile import FROM_OBJECT, Exchange, Exporter, Hostile, OldExporter, new_capsule
from hypothesis import given, settings
from hypothesis import strategies as st

from metav import _core

SHAPE = (2, 3, 4)
VALUES = np.arange(24, dtype=np.float32).reshape(SHAPE)


def to_torch(array: Any) -> Any:
    """The same memory as a torch tensor."""
    return pytest.importorskip("torch").from_numpy(array)


ROUTES: dict[str, Callable[[Any], Any]] = {"numpy": lambda array: array, "exchange": to_torch, "method": Exporter}
every_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())


def view(tensor: Any, **options: Any) -> Any:
    """The simplest call that imports a tensor."""
    return _core.apply_view(tensor, "identity", **options)


# All routes ----------------------------------------------------------------------------------------------------------


@every_route
def test_values_arrive(route: Callable[[Any], Any]) -> None:
    np.testing.assert_array_equal(view(route(VALUES.copy())), VALUES)


@every_route
def test_results_are_written_in_place(route: Callable[[Any], Any]) -> None:
    target = np.zeros(SHAPE, dtype=np.float32)
    out = route(target)
    assert view(VALUES, out=out) is out
    np.testing.assert_array_equal(target, VALUES)


@every_route
def test_the_step_writes_its_gradient_through_every_route(route: Callable[[Any], Any]) -> None:
    verifier = _core.Verifier("mlp", 3, 4)
    expected, actual = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    verifier.step(VALUES, b"\x01\x00", gradient=expected, update=False)
    verifier.step(route(VALUES.copy()), b"\x01\x00", gradient=route(actual), update=False)
    np.testing.assert_array_equal(actual, expected)
    assert (expected != 0).any()


@every_route
@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "int64", "bool", "complex64"])
def test_another_dtype_is_refused_by_name(route: Callable[[Any], Any], dtype: str) -> None:
    with pytest.raises(TypeError, match=f"responses has dtype {dtype}.*expected float32"):
        view(route(VALUES.astype(dtype)))


@every_route
@pytest.mark.parametrize("array", [VALUES[0], VALUES[None], VALUES.ravel()], ids=["2d", "4d", "1d"])
def test_another_number_of_dimensions_is_refused(route: Callable[[Any], Any], array: Any) -> None:
    with pytest.raises(ValueError, match=r"responses has shape .*expected \(models, queries, outputs\)"):
        view(route(array.copy()))


@every_route
@pytest.mark.parametrize("cut", [np.s_[:, :, ::2], np.s_[:, 1:], np.s_[::2, :, ::2]])
def test_tensors_with_gaps_are_refused(route: Callable[[Any], Any], cut: Any) -> None:
    wide = np.zeros((4, 6, 8), dtype=np.float32)
    with pytest.raises(ValueError, match=r"responses is not contiguous.*contiguous\(\)"):
        view(route(wide[cut]))


@every_route
def test_transposed_tensors_are_refused(route: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        view(route(VALUES.copy().transpose(0, 2, 1)))


@every_route
def test_strides_of_dimensions_of_size_one_mean_nothing(route: Callable[[Any], Any]) -> None:
    strided = np.lib.stride_tricks.as_strided(VALUES.copy()[0], shape=(1, 3, 4), strides=(3996, 16, 4))
    np.testing.assert_array_equal(view(route(strided)), VALUES[:1])


@every_route
def test_memory_off_a_float_boundary_is_refused(route: Callable[[Any], Any]) -> None:
    array = np.frombuffer(bytearray(97), dtype=np.uint8)[1:].view(np.float32).reshape(SHAPE)
    assert array.ctypes.data % 4 == 1
    with pytest.raises(BufferError, match="not aligned"):
        view(route(array))


@every_route
def test_results_may_not_share_memory_with_inputs(route: Callable[[Any], Any]) -> None:
    memory = np.zeros((3, 3, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="out shares memory with responses"):
        view(route(memory[:2]), out=route(memory[1:]))
    view(route(memory[:1]), out=route(memory[1:2]))


@every_route
def test_results_of_another_shape_are_refused(route: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"out has shape \(2, 3, 5\), expected .*\(2, 3, 4\)"):
        view(VALUES, out=route(np.zeros((2, 3, 5), dtype=np.float32)))


@pytest.mark.parametrize("route", [ROUTES["numpy"], Exporter])
def test_read_only_memory_may_be_read_but_not_written(route: Callable[[Any], Any]) -> None:
    array = VALUES.copy()
    array.flags.writeable = False
    np.testing.assert_array_equal(view(route(array)), VALUES)
    with pytest.raises(BufferError, match="out is read-only"):
        view(np.ones_like(VALUES), out=route(array))
    np.testing.assert_array_equal(array, VALUES)


@every_route
def test_calls_leave_no_references_behind(route: Callable[[Any], Any]) -> None:
    array = VALUES.copy()
    tensor = route(array)
    out = np.zeros_like(array)
    before = sys.getrefcount(array), sys.getrefcount(tensor), sys.getrefcount(out)
    for _ in range(50):
        view(tensor, out=out)
        with pytest.raises(ValueError, match="expected"):
            _core.Verifier("mlp", 9, 9).scores(tensor)
    gc.collect()
    assert (sys.getrefcount(array), sys.getrefcount(tensor), sys.getrefcount(out)) == before


# NumPy ---------------------------------------------------------------------------------------------------------------


def test_a_foreign_byte_order_is_refused() -> None:
    with pytest.raises(TypeError, match="byte order"):
        view(VALUES.astype(">f4"))


def test_negative_strides_are_refused() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        view(VALUES[::-1])


@pytest.mark.parametrize("thing", [None, 3, "text", [[[1.0]]], b"bytes", np.float32(1), memoryview(b"bytes")])
def test_what_is_no_tensor_is_refused_by_type(thing: Any) -> None:
    with pytest.raises(TypeError, match=f"responses must be a float32 tensor.*got .*{type(thing).__name__}"):
        view(thing)


def test_a_type_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="got type"):
        view(np.ndarray)


def test_subclasses_of_ndarray_are_read(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "values", dtype=np.float32, mode="w+", shape=SHAPE)
    mapped[:] = VALUES
    np.testing.assert_array_equal(view(mapped), VALUES)


# torch ---------------------------------------------------------------------------------------------------------------


def test_tensors_of_autograd_are_refused() -> None:
    torch = pytest.importorskip("torch")
    leaf = torch.zeros(SHAPE, requires_grad=True)
    for tensor in (leaf, leaf * 2, torch.nn.Parameter(torch.zeros(SHAPE))):
        with pytest.raises(BufferError, match=r"responses requires grad.*tensor.detach\(\)"):
            view(tensor)
        with pytest.raises(BufferError, match=r"out requires grad.*tensor.detach\(\)"):
            view(VALUES, out=tensor)
    with torch.no_grad():
        np.testing.assert_array_equal(view((leaf + 1).detach()), np.ones(SHAPE))
    frozen = torch.nn.Parameter(torch.ones(SHAPE), requires_grad=False)
    np.testing.assert_array_equal(view(frozen), np.ones(SHAPE))


def test_tensors_with_the_negative_bit_are_refused() -> None:
    torch = pytest.importorskip("torch")
    negative = torch.full(SHAPE, 3j, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    with pytest.raises(BufferError, match="resolve_neg"):
        view(negative.contiguous() if negative.is_contiguous() else torch._neg_view(torch.ones(SHAPE)))


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("make", ["sparse", "meta", "fake", "expanded", "quantized", "bfloat16"])
def test_tensors_without_plain_memory_are_refused(make: str) -> None:
    torch = pytest.importorskip("torch")
    if make == "fake":
        fake = pytest.importorskip("torch._subclasses.fake_tensor")
        with fake.FakeTensorMode():
            tensor = torch.zeros(SHAPE)
    elif make == "sparse":
        tensor = torch.zeros(SHAPE).to_sparse()
    elif make == "meta":
        tensor = torch.zeros(SHAPE, device="meta")
    elif make == "expanded":
        tensor = torch.zeros((1, 1, 4)).expand(SHAPE)
    elif make == "quantized":
        tensor = torch.quantize_per_tensor(torch.zeros(SHAPE), 0.1, 0, torch.qint8)
    else:
        tensor = torch.zeros(SHAPE, dtype=torch.bfloat16)
    with pytest.raises((BufferError, TypeError, ValueError), match="responses") as caught:
        view(tensor)
    assert len(str(caught.value)) < 200
    with pytest.raises((BufferError, TypeError, ValueError), match="out"):
        view(VALUES, out=tensor)


# Hostile capsules ----------------------------------------------------------------------------------------------------


def test_an_honest_capsule_is_read_and_released_once() -> None:
    producer = Hostile()
    np.testing.assert_array_equal(view(producer), np.ones(SHAPE))
    assert producer.deleted == 1


@pytest.mark.parametrize("options", [{"strides": None}, {"deleter": None}, {"device_type": 3}, {"minor": 99}])
def test_allowed_oddities_are_read(options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(view(Hostile(**options)), np.ones(SHAPE))


def test_the_byte_offset_counts() -> None:
    producer = Hostile(shape=(1, 1, 2), byte_offset=8)
    producer.memory[:] = np.arange(24)
    assert view(producer).ravel().tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("options", "error", "match", "released"),
    [
        ({"major": 2}, BufferError, "DLPack version 2", 0),
        ({"major": 0}, BufferError, "DLPack version 0", 0),
        ({"data": None}, BufferError, "no memory", 1),
        ({"device_type": 2}, BufferError, r"CUDA device 0.*tensor.cpu\(\)", 1),
        ({"device_type": 77}, BufferError, "DLPack type 77", 1),
        ({"code": 2, "bits": 64}, TypeError, "float64", 1),
        ({"code": 200}, TypeError, "dtype", 1),
        ({"lanes": 4}, TypeError, "vectors", 1),
        ({"shape": (-1, 3, 4)}, ValueError, "impossible shape", 1),
        ({"shape": (2**62, 2**62, 2**62)}, ValueError, "impossible shape", 1),
        ({"shape": (0, 2**62, 2**62)}, ValueError, "impossible shape", 1),
        ({"ndim": -1}, ValueError, "-1 dimensions", 1),
        ({"ndim": 1000}, ValueError, "1000 dimensions", 1),
        ({"strides": (0, 4, 1)}, ValueError, "not contiguous", 1),
        ({"strides": (-12, 4, 1)}, ValueError, "not contiguous", 1),
        ({"byte_offset": 2}, BufferError, "not aligned", 1),
        ({"name": b"dltensor_versioned_"}, TypeError, "unused DLPack capsule", 0),
        ({"name": b"used_dltensor_versioned"}, TypeError, "unused DLPack capsule", 0),
        ({"name": None}, TypeError, "unused DLPack capsule", 0),
    ],
)
def test_a_capsule_that_lies_is_refused_and_released(
    options: dict[str, Any], error: type[Exception], match: str, released: int
) -> None:
    producer = Hostile(**options)
    with pytest.raises(error, match=match):
        view(producer)
    assert producer.deleted == released


@pytest.mark.parametrize(("flags", "match"), [(1, "read-only"), (2, "exported as a copy")])
def test_results_are_not_written_where_the_producer_forbids(flags: int, match: str) -> None:
    producer = Hostile(flags=flags)
    np.testing.assert_array_equal(view(producer), np.ones(SHAPE))
    with pytest.raises(BufferError, match=match):
        view(VALUES, out=producer)
    assert producer.deleted == 2


def test_producers_from_before_max_version_are_read_only() -> None:
    np.testing.assert_array_equal(view(OldExporter(VALUES.copy())), VALUES)
    with pytest.raises(BufferError, match="read-only"):
        view(VALUES, out=OldExporter(np.zeros_like(VALUES)))


@pytest.mark.parametrize(
    ("major", "older", "name", "used"),
    [
        (1, False, b"dlpack_exchange_api", True),
        (2, True, b"dlpack_exchange_api", True),
        (2, False, b"dlpack_exchange_api", False),
        (0, False, b"dlpack_exchange_api", False),
        (1, False, b"another name", False),
    ],
)
def test_only_a_table_of_the_known_version_is_used(major: int, older: bool, name: bytes, used: bool) -> None:
    calls = []

    def from_object(producer: Any, out: Any) -> int:
        calls.append("table")
        out[0] = ctypes.addressof(producer.managed)
        return 0

    function = FROM_OBJECT(from_object)
    pointer = ctypes.cast(function, ctypes.c_void_p)
    base = Exchange(major=1, minor=3, from_object=pointer)
    table = Exchange(
        major=major, minor=0, previous=ctypes.addressof(base) if older else None, from_object=None if older else pointer
    )

    class Producer(Hostile):
        __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(table), name, None)

        def __dlpack__(self, **_: Any) -> Any:
            calls.append("method")
            return super().__dlpack__()

    producer = Producer()
    np.testing.assert_array_equal(view(producer), np.ones(SHAPE))
    assert calls == ["table" if used else "method"]
    assert producer.deleted == 1


def test_a_table_that_fails_silently_is_refused() -> None:
    function = FROM_OBJECT(lambda *_: -1)
    table = Exchange(major=1, minor=3, from_object=ctypes.cast(function, ctypes.c_void_p))

    class Producer(Hostile):
        __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(table), b"dlpack_exchange_api", None)

    with pytest.raises(BufferError, match="responses cannot be exported"):
        view(Producer())


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1)), min_size=0, max_size=4),
    strides=st.lists(st.integers(-(2**40), 2**40), min_size=4, max_size=4),
    code=st.integers(0, 7),
    bits=st.sampled_from([8, 16, 32, 64]),
    device=st.integers(-1, 5),
    flags=st.integers(0, 7),
    null=st.booleans(),
)
def test_random_capsules_never_pass_the_validator_by_accident(
    shape: list[int], strides: list[int], code: int, bits: int, device: int, flags: int, null: bool
) -> None:
    """Small honest tensors may pass; everything else is one clear exception, and the memory is released once."""
    producer = Hostile(
        shape=tuple(shape),
        strides=strides[: len(shape)],
        code=code,
        bits=bits,
        device_type=device,
        flags=flags,
        data=None if null else np.ones(200, dtype=np.float32).ctypes.data,
    )
    if len(shape) == 3 and all(0 < size <= 5 for size in shape) and not null:
        producer.managed.data = producer.memory.ctypes.data
        if np.prod(shape) > producer.memory.size:
            return
    elif not null:
        producer.managed.data = producer.memory.ctypes.data
    try:
        view(producer)
    except (TypeError, ValueError, BufferError) as error:
        assert "responses" in str(error) or ">= 1" in str(error)  # noqa: PT017
    else:
        assert (code, bits) == (2, 32)
        assert len(shape) == 3
        assert min(shape) > 0
    assert producer.deleted == 1


class Failing:
    """A producer that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __dlpack__(self, **_: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("raised", "expected", "match"),
    [
        (BufferError("mine"), BufferError, "mine"),
        (RuntimeError("C++ stack " * 100), BufferError, "responses cannot be exported"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (MemoryError(), MemoryError, None),
    ],
)
def test_errors_of_producers_become_clear_ones(
    raised: BaseException, expected: type[BaseException], match: str | None
) -> None:
    with pytest.raises(expected, match=match):
        view(Failing(raised))


def test_a_method_that_returns_no_capsule_is_refused() -> None:
    class Liar:
        def __dlpack__(self, **_: Any) -> Any:
            return 7

    with pytest.raises(TypeError, match="unused DLPack capsule"):
        view(Liar())
