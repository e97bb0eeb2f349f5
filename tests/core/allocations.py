"""Run by test_allocations.py in a process of its own: every allocation failing once, and every one given back.

    python allocations.py fail      LD_PRELOAD=failing_malloc.so PYTHONMALLOC=malloc: malloc's n-th call fails
    python allocations.py testcapi  the interpreter's n-th allocation and all later ones fail (_testcapi.set_nomemory)
    python allocations.py leak      LD_PRELOAD=...: as many blocks are alive after the calls as before

Prints one line for each entry point and ends with an assertion if a law does not hold.
"""

import contextlib
import ctypes
import gc
import importlib.util
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from core_entries import ENTRIES, Entry, make_verifier
from hostile import Exporter, Hostile

from metav import _core

MOST = 5000  # more allocations than any call makes
REPEATS = 30

OTHERS = [
    Entry("apply_view, new array", {"responses": (2, 3, 4)}, (), lambda: None, lambda _, t: new_view(t)),
    Entry("Verifier", {}, (), lambda: None, lambda _, t: _core.Verifier("mlp", 3, 4, hidden=5, view="topk(2)", seed=1)),
    Entry("Verifier.copy", {}, (), make_verifier, lambda handle, _: handle.copy()),
    Entry("Verifier.parameters", {}, (), make_verifier, lambda handle, _: handle.parameters()),
    Entry("repr", {}, (), make_verifier, lambda handle, _: repr(handle)),
    Entry("views", {}, (), lambda: None, lambda *_: _core.views()),
    Entry("verifier_kinds", {}, (), lambda: None, lambda *_: _core.verifier_kinds()),
    Entry("parameter_shapes", {}, (), lambda: None, lambda *_: _core.parameter_shapes("matched", 3, 4)),
    Entry("attributes", {}, (), make_verifier, lambda handle, _: attributes(handle)),
]


def new_view(tensors: Any) -> Any:
    return _core.apply_view(tensors["responses"], "label")


def attributes(handle: Any) -> tuple[Any, ...]:
    return handle.kind, handle.queries, handle.outputs, handle.hidden, handle.view, handle.steps


def numbers(result: Any) -> Any:
    """What a call returned, comparable."""
    if isinstance(result, dict):
        return {name: numbers(value) for name, value in result.items()}
    return result.tolist() if isinstance(result, np.ndarray) else result


Route = Callable[[Any], Any]


def outcome(entry: Entry, handle: Any, route: Route) -> list[Any]:
    """The result and every output of one call on fresh arguments."""
    arrays = entry.arrays()
    result = numbers(entry.call(handle, {name: route(array) for name, array in arrays.items()}))
    comparable = isinstance(result, str | float | tuple | list | dict)
    return [result if comparable else None, *(arrays[name].tolist() for name in entry.writes)]


def survives(entry: Entry, arm: Callable[[int], None], disarm: Callable[[], int], route: Route) -> int:
    """Fails each allocation of one call in turn; returns how many there were. The handle then works as a fresh one."""
    expected = outcome(entry, entry.make(), route)
    calm = 0  # calls in a row that met no failure: the allocations of one call vary a little
    for n in range(1, MOST):
        handle = entry.make()
        tensors = {name: route(array) for name, array in entry.arrays().items()}
        survived = False
        try:
            arm(n)
            entry.call(handle, tensors)
            survived = True
        except MemoryError:
            pass
        finally:
            denied = disarm()
        # An allocation that can be done without is no failure of the call; then the handle has done its work.
        if not survived:
            assert outcome(entry, handle, route) == expected, (entry.name, n)
        calm = calm + 1 if survived and not denied else 0
        if calm == 20:
            return n - calm
    raise AssertionError(f"{entry.name}: more than {MOST} allocations")


def load_shim() -> Any:
    shim = ctypes.PyDLL(None)
    for name in ("denied_allocations", "live_allocations"):
        getattr(shim, name).restype = ctypes.c_long
    return shim


def fail_malloc() -> None:
    shim = load_shim()

    def disarm() -> int:
        denied = shim.denied_allocations()
        shim.fail_allocations(0, 0)
        return int(denied)

    for entry in [*ENTRIES, *OTHERS]:
        for route in (lambda array: array, Exporter):
            count = survives(entry, lambda n: shim.fail_allocations(n, 1), disarm, route)
            print(f"{entry.name}: {count} allocations")
            assert count > 0, entry.name


def fail_interpreter() -> None:
    import _testcapi

    import torch

    def disarm() -> int:
        _testcapi.remove_mem_hooks()
        return 0  # it does not tell

    for entry in [*ENTRIES, *OTHERS]:
        for route in (torch.from_numpy, Exporter):
            count = survives(entry, _testcapi.set_nomemory, disarm, route)
            print(f"{entry.name}: {count} allocations")


def refused(entry: Entry) -> list[Callable[[], Any]]:
    """Calls that fail, at each argument."""

    def spoil(name: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
        arrays = entry.arrays()
        return lambda: entry.call(entry.make(), arrays | {name: make(arrays[name])})

    spoilers: list[Callable[[Any], Any]] = [
        lambda array: array.astype(np.float64),
        lambda array: array[..., ::2],
        lambda array: Hostile(shape=array.shape, memory=array, device_type=2),
        lambda array: Exporter(array.astype(np.int32)),
        lambda array: np.full_like(array, np.nan),
        lambda _: None,
        lambda _: "text",
    ]
    return [spoil(name, make) for name in entry.shapes for make in spoilers]


def routes() -> list[Route]:
    """The second and, with torch, the third way in."""
    if importlib.util.find_spec("torch") is None:
        return [Exporter]
    return [Exporter, importlib.import_module("torch").from_numpy]


def find_leaks() -> None:
    shim = load_shim()
    others = routes()
    for entry in [*ENTRIES, *OTHERS]:
        handle = entry.make()
        calls = [lambda e=entry, h=handle: e.call(h, e.arrays()), *refused(entry)]
        for route in others:
            calls.append(lambda e=entry, r=route: e.call(e.make(), {n: r(a) for n, a in e.arrays().items()}))
        alive = []
        for _ in range(8):
            for call in calls:
                for _ in range(REPEATS):
                    with contextlib.suppress(BufferError, TypeError, ValueError, AttributeError):
                        call()
            gc.collect()
            alive.append(shim.live_allocations())
        # A call that leaks adds REPEATS or more in every round; caches of the interpreter vary less.
        grown = [after - earlier for earlier, after in itertools.pairwise(alive)]
        print(f"{entry.name}: {len(calls)} calls, blocks more in each round {grown}")
        assert min(grown[3:]) < REPEATS, entry.name


if __name__ == "__main__":
    {"fail": fail_malloc, "testcapi": fail_interpreter, "leak": find_leaks}[sys.argv[1]]()
