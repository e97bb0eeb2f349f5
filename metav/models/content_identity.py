"""The identity of what models are made with, by content: data, attributes, code, and all that the code refers to."""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import importlib
import itertools
import random
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metav.models.code_origin import is_found_by_name, library_of
from metav.models.identity import source_identity, stated_name
from metav.models.stored_tensors import StoredTensor

IGNORED = "not_in_identity"
"""The class attribute that names those attributes of its objects on which no model depends: counters, locks, caches."""
_CLASS_NOISE = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__annotate__"),
        *("__firstlineno__", "__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__"),
        *("__annotate_func__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "_abc_impl"),
    )
)
"""Entries of a class that say nothing of what it computes, or say it twice."""
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
"""Endings of the attributes in which a module keeps its hooks."""
_DRAWS: tuple[Any, ...] = (random.random, np.random.rand)
_GLOBAL_GENERATORS = (torch.default_generator, *(draw.__self__ for draw in _DRAWS))
"""Generators that are seeded before anything draws from them, so that their state says nothing."""
_SCALARS = (str, int, float, complex, bool, type(None), type(...), type(NotImplemented))
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)
_LIKE_THEIR_TEXT = (
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, range, slice),
    *(types.GenericAlias, types.UnionType, type(Callable[[], int]), type(Iterable[int])),
)


class UnidentifiedError(Exception):
    """Something whose content cannot be read; the message says where and what it is."""


def content_identity(thing: object, name: str) -> str:
    """Return a hexadecimal SHA-256 over all that an object is and refers to: equal content, equal identity.

    thing: a model, a task, a function, a class, data, ...
    name: what it is called in the message.

    Of functions the compiled code enters, with defaults, what they enclose and the global names that they use, of
    objects their attributes and class, of classes what they define and their bases. Installed packages enter by name
    and version, classes and functions that state an `identity_name` by that. Attributes that a class lists in
    `not_in_identity` do not enter.

    Raises UnidentifiedError where something has no readable content, such as a lock, an open file or a generator.
    """
    reader = _Reader(name)
    try:
        return reader.digest(thing).hex()
    except RecursionError as error:
        raise UnidentifiedError(f"{name} is nested too deeply") from error


def _joined(kind: str, *parts: bytes | memoryview | str) -> bytes:
    sha = hashlib.sha256()
    for part in (kind, *parts):
        encoded = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        sha.update(len(encoded).to_bytes(8, "big"))  # lengths keep neighbouring parts apart
        sha.update(encoded)
    return sha.digest()


class _Reader:
    """Digests of objects, each read once, also where they refer to each other in circles."""

    def __init__(self, name: str) -> None:
        self._steps = [name]
        self._done: dict[int, bytes] = {}
        self._open: dict[int, int] = {}
        self._kept: list[object] = []  # an object that is gone would leave its id to another one

    def digest(self, thing: Any) -> bytes:
        """Return the digest of an object."""
        if type(thing) in _SCALARS:
            return _joined(type(thing).__name__, repr(thing))
        key = id(thing)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            return _joined("circle", str(len(self._open) - self._open[key]))
        self._open[key] = len(self._open)
        self._kept.append(thing)
        try:
            found = self._read(thing)
        except (UnidentifiedError, RecursionError):
            raise
        except Exception as error:
            raise UnidentifiedError(
                f"{''.join(self._steps)} ({type(thing).__name__}) has no content that can be read "
                f"({type(error).__name__}: {error})"
            ) from error
        finally:
            del self._open[key]
        self._done[key] = found
        return found

    @contextmanager
    def _step(self, text: str) -> Iterator[None]:
        """Run the body with another part of the way in messages."""
        self._steps.append(text)
        yield
        self._steps.pop()  # kept after an error, for its message

    def _named(self, entries: Iterable[tuple[str, Any]], form: str = ".{}") -> list[bytes | str]:
        """Return names and digests, sorted by name."""
        parts: list[bytes | str] = []
        for name, value in sorted(entries, key=lambda entry: entry[0]):
            with self._step(form.format(name)):
                parts += [name, self.digest(value)]
        return parts

    def _all(self, values: Iterable[Any]) -> list[bytes | str]:
        return [self.digest(value) for value in values]

    def _read(self, thing: Any) -> bytes:
        name = stated_name(thing)
        if name is not None:
            return _joined("stated", name)
        if any(thing is generator for generator in _GLOBAL_GENERATORS):
            return _joined("global generator", type(thing).__name__)
        for kinds, read in _READERS:
            if isinstance(thing, kinds):
                return read(self, thing)
        return self._reduced(thing)

    def _bytes(self, thing: bytes | bytearray | memoryview) -> bytes:
        return _joined("bytes", bytes(thing))

    def _text(self, thing: Any) -> bytes:
        return _joined(type(thing).__name__, repr(thing))

    def _sequence(self, thing: tuple[Any, ...] | list[Any]) -> bytes:
        if type(thing) not in (tuple, list, torch.Size):
            return self._reduced(thing)
        parts = []
        for index, value in enumerate(thing):
            with self._step(f"[{index}]"):
                parts.append(self.digest(value))
        return _joined(type(thing).__name__, *parts)

    def _set(self, thing: Any) -> bytes:
        if type(thing) not in (set, frozenset):
            return self._reduced(thing)
        return _joined(type(thing).__name__, *sorted(self.digest(value) for value in thing))

    def _mapping(self, thing: Mapping[Any, Any]) -> bytes:
        if type(thing) not in (dict, types.MappingProxyType):
            return self._reduced(thing)
        parts = []
        for key, value in thing.items():
            with self._step(f"[{key!r:.40}]"):
                parts += [self.digest(key), self.digest(value)]
        return _joined("dict", *parts)

    def _tensor(self, thing: Tensor) -> bytes:
        if thing.is_quantized:
            return _joined("quantized", self.digest(thing.int_repr()), self.digest(thing.dequantize()))
        if thing.layout != torch.strided:
            return self._reduced(thing)
        values = thing.detach().cpu().contiguous().resolve_conj().resolve_neg().reshape(-1)
        content = values.view(torch.uint8).numpy().data if values.numel() else b""
        kind = "Tensor" if isinstance(thing, StoredTensor) else type(thing).__name__
        return _joined("tensor", kind, str(thing.dtype), str(tuple(thing.shape)), content)

    def _array(self, thing: Any) -> bytes:
        if thing.dtype.hasobject:
            return _joined("objects", str(thing.shape), *self._all(thing.reshape(-1).tolist()))
        is_plain = isinstance(thing, np.ndarray) and thing.flags.c_contiguous and thing.nbytes
        content = thing.reshape(-1).view(np.uint8).view(np.ndarray).data if is_plain else thing.tobytes()
        return _joined("array", type(thing).__name__, thing.dtype.str, str(thing.shape), content)

    @staticmethod
    def _by_name(thing: Any) -> bytes:
        """Return the digest of a class or function of an installed package, or of metav's own."""
        library = library_of(thing.__module__)
        if library is not None:
            return _joined("installed", library, thing.__module__, thing.__qualname__)
        # without the module, so that it may move
        return _joined("metav", thing.__qualname__, source_identity(thing).partition("\n")[2])

    def _function(self, thing: types.FunctionType) -> bytes:
        if is_found_by_name(thing):
            return self._by_name(thing)
        enclosed = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
        return _joined(
            "function",
            self.digest(thing.__code__),
            self.digest(thing.__defaults__),
            *self._named((thing.__kwdefaults__ or {}).items(), "({}=)"),
            "encloses",
            *self._named(enclosed, ", which encloses {}"),
            "uses",
            *self._named(_globals_of(thing), ", which uses {}"),
            "has",
            *self._named(vars(thing).items()),
        )

    def _code(self, thing: types.CodeType) -> bytes:
        names = (thing.co_names, thing.co_varnames, thing.co_freevars, thing.co_cellvars)
        counts = (thing.co_argcount, thing.co_posonlyargcount, thing.co_kwonlyargcount, thing.co_flags)
        exceptions = getattr(thing, "co_exceptiontable", b"")
        return _joined("code", thing.co_code, exceptions, repr(names), repr(counts), *self._all(thing.co_consts))

    def _cell(self, thing: types.CellType) -> bytes:
        try:
            return self.digest(thing.cell_contents)
        except ValueError:
            return _joined("empty")

    def _method(self, thing: types.MethodType) -> bytes:
        with self._step(".__self__"):
            return _joined("method", self.digest(thing.__func__), self.digest(thing.__self__))

    def _built_in(self, thing: Any) -> bytes:
        owner = getattr(thing, "__self__", None)
        place = getattr(thing, "__objclass__", None) or getattr(thing, "__module__", None)
        own = b"" if owner is None or isinstance(owner, types.ModuleType) else self.digest(owner)
        return _joined("built in", str(place), thing.__qualname__, own)

    def _wrapped(self, thing: Any) -> bytes:
        """Return the digest of a descriptor, or of another object around functions."""
        names = ("func", "fget", "fset", "fdel", "__func__", "__wrapped__", "args", "keywords")
        parts = [(name, getattr(thing, name)) for name in names if hasattr(thing, name)]
        own = vars(thing).items() if isinstance(thing, functools.partial) else ()
        return _joined(type(thing).__name__, *self._named([*parts, *own]))

    def _class(self, thing: type) -> bytes:
        if is_found_by_name(thing):
            return self._by_name(thing)
        slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
        own = ((name, value) for name, value in vars(thing).items() if name not in _CLASS_NOISE)
        return _joined(
            "class",
            thing.__name__,
            self.digest(type(thing)),
            *self._all(thing.__bases__),
            *self._named((name, value) for name, value in own if not isinstance(value, slots)),
        )

    def _member(self, thing: enum.Enum) -> bytes:
        return _joined("member", thing.name, self.digest(type(thing)))

    def _module(self, thing: types.ModuleType) -> bytes:
        library = library_of(thing.__name__)
        if library is not None or thing.__name__.partition(".")[0] == "metav":
            return _joined("module", library or "metav", thing.__name__)
        own = {name: value for name, value in vars(thing).items() if not name.startswith("__")}
        with self._step(" (a whole module)"):
            return _joined("module", *self._named(own.items()))

    def _torch_module(self, thing: nn.Module) -> bytes:
        if any("__getstate__" in vars(cls) and library_of(cls.__module__) is None for cls in type(thing).__mro__):
            return self._reduced(thing)
        attributes = self._attributes(thing, vars(thing))
        for name, value in list(attributes.items()):
            if name.endswith(_HOOKS) and isinstance(value, dict):
                attributes[name] = list(value.values())  # their keys count the hooks of the whole process
        return _joined("module of torch", self.digest(type(thing)), *self._named(attributes.items()))

    def _script(self, thing: Any) -> bytes:
        parts = dict(thing.named_modules()) if isinstance(thing, nn.Module) else {"": thing}
        state = thing.state_dict() if isinstance(thing, nn.Module) else {}
        codes = ((name, str(getattr(part, "code", ""))) for name, part in parts.items())
        return _joined("script", *self._named(codes), *self._named(state.items()))

    def _generator(self, thing: torch.Generator) -> bytes:
        return _joined("generator", str(thing.device), self.digest(thing.get_state()))

    def _reduced(self, thing: Any) -> bytes:
        """Return the digest of an object by what pickle would keep of it."""
        found = thing.__reduce_ex__(4)
        if isinstance(found, str):
            return _joined("global", str(getattr(thing, "__module__", "")), found)
        function, arguments, state, items, pairs = (*found, None, None, None)[:5]
        if isinstance(state, dict):
            state = self._attributes(thing, state)
        elif isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = self._attributes(thing, {**(state[0] or {}), **state[1]})
        is_named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
        return _joined(
            "object",
            self.digest(function),
            *self._all(arguments),
            *(self._named(state.items()) if is_named else [self.digest(state)]),
            *self._all(items or ()),
            *(part for pair in pairs or () for part in self._all(pair)),
        )

    @staticmethod
    def _attributes(thing: object, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of an object that count: not those its class ignores, nor what it can work out anew."""
        classes = type(thing).__mro__
        ignored = {name for cls in classes for name in vars(cls).get(IGNORED, ())}
        worked_out = {
            name for cls in classes for name, value in vars(cls).items() if isinstance(value, functools.cached_property)
        }
        return {name: value for name, value in state.items() if name not in ignored | worked_out}


_READERS: tuple[tuple[Any, Callable[[_Reader, Any], bytes]], ...] = (
    ((bytes, bytearray, memoryview), _Reader._bytes),
    (enum.Enum, _Reader._member),
    (Tensor, _Reader._tensor),
    ((np.ndarray, np.generic), _Reader._array),
    ((torch.jit.ScriptModule, torch.jit.ScriptFunction), _Reader._script),
    (nn.Module, _Reader._torch_module),
    (type, _Reader._class),
    (types.FunctionType, _Reader._function),
    (types.CodeType, _Reader._code),
    (types.CellType, _Reader._cell),
    (types.MethodType, _Reader._method),
    (types.ModuleType, _Reader._module),
    (torch.Generator, _Reader._generator),
    ((property, staticmethod, classmethod, functools.cached_property, functools.partialmethod), _Reader._wrapped),
    ((functools.partial, type(functools.lru_cache(repr))), _Reader._wrapped),
    (_BUILT_IN, _Reader._built_in),
    (_LIKE_THEIR_TEXT, _Reader._text),
    ((tuple, list), _Reader._sequence),
    ((set, frozenset), _Reader._set),
    ((dict, types.MappingProxyType), _Reader._mapping),
)
"""Which kinds of objects are read how; the first that fits counts."""


def _globals_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function uses of the names around it and of what it imports, each by its path."""
    found: dict[str, Any] = {}
    for code in _codes(function.__code__):
        instructions = list(dis.get_instructions(code))
        for place, instruction in enumerate(instructions):
            rest = instructions[place + 1 :]
            name = str(instruction.argval)
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name in function.__globals__:
                path, value = _followed(name, function.__globals__[name], rest)
                found[path] = value
            elif instruction.opname == "IMPORT_NAME":
                level = int(instructions[place - 2].argval)
                found.update(_imported("." * level + name, function.__globals__.get("__package__"), rest))
    yield from found.items()


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a function's code and that of all functions inside."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _followed(name: str, value: Any, rest: Iterable[dis.Instruction]) -> tuple[str, Any]:
    """Return what is taken out of a user's module, by the whole path; anything else as it is."""
    for instruction in rest:
        is_users = isinstance(value, types.ModuleType) and library_of(value.__name__) is None
        if not is_users or instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            break
        attribute = str(instruction.argval)
        if not hasattr(value, attribute):
            break
        name, value = f"{name}.{attribute}", getattr(value, attribute)
    return name, value


def _imported(name: str, package: str | None, rest: Iterable[dis.Instruction]) -> Iterator[tuple[str, Any]]:
    """Yield what a function imports when it runs: names of a module, or the module; its name where there is none."""
    try:
        module = importlib.import_module(name, package)
    except ImportError:
        yield f"import {name}", name
        return
    taken = False
    for instruction in itertools.takewhile(lambda entry: entry.opname in ("IMPORT_FROM", "STORE_FAST"), rest):
        if instruction.opname == "IMPORT_FROM":
            taken = True
            yield f"{name}.{instruction.argval}", getattr(module, instruction.argval, None)
    if not taken:
        yield f"import {name}", module
