"""The table of suspect kinds, and the way from what a user has to a suspect that can be asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metav.errors import InputError
from metav.support.model_answers import is_structured
from metav.support.model_interface import PLAIN, ModelInterface
from metav.suspects.base import Suspect
from metav.suspects.callables import Accepts, CallableSuspect
from metav.suspects.modules import ModuleSuspect
from metav.suspects.recordings import READERS, RecordedSuspect


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectKind:
    """One kind of suspect.

    name: of the kind.
    expected: what a user may pass, as the message for anything else lists it.
    recognises: whether a thing is of this kind.
    open: makes the suspect; given the thing and what callables are given (`accepts`).
    endings: of the files that it reads, in lower case.
    """

    name: str
    expected: str
    recognises: Callable[[Any], bool]
    open: Callable[[Any, Accepts | None], Suspect]
    endings: tuple[str, ...] = ()


def _is_module(thing: Any) -> bool:
    torch = sys.modules.get("torch")  # a module or tensor can exist only where PyTorch is loaded
    return torch is not None and isinstance(thing, torch.nn.Module)


def _is_answers(thing: Any) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(thing, np.ndarray | list | tuple) or (torch is not None and isinstance(thing, torch.Tensor)):
        return True
    return isinstance(thing, Mapping) and is_structured(thing)


SUSPECT_KINDS: tuple[SuspectKind, ...] = (
    SuspectKind(
        name="module",
        expected="a torch.nn.Module",
        recognises=_is_module,
        open=lambda thing, _: ModuleSuspect(thing),
    ),
    SuspectKind(
        name="recording",
        expected="an array of recorded answers, or the path of a file of them",
        recognises=_is_answers,
        open=lambda thing, _: RecordedSuspect(thing),
        endings=tuple(READERS),
    ),
    SuspectKind(
        name="callable",
        expected="a callable from queries to answers (such as model.predict_proba)",
        recognises=lambda thing: callable(thing) and not isinstance(thing, type),
        open=lambda thing, accepts: CallableSuspect(thing, accepts=accepts),
    ),
)
"""All kinds, in the order in which they are tried; a path goes to the kind that names its ending."""

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")
_READABLE = "this version reads modules, callables and recorded answers"


def open_suspect(thing: Any, *, accepts: Accepts | None = None, interface: ModelInterface = PLAIN) -> Suspect:
    """Return the suspect behind a torch.nn.Module, a callable, recorded answers or their path.

    accepts: what a callable is given, "numpy" or "torch"; None tries (see `CallableSuspect`).
    interface: how a model or function is called, and which part of its answer counts.

    Raises InputError on anything else.
    """
    if accepts not in (None, "numpy", "torch"):
        raise InputError(f'accepts must be "numpy", "torch" or None, got {accepts!r}')
    opened = thing if isinstance(thing, Suspect) else _opened(thing, accepts)
    if not interface.is_plain:
        if isinstance(opened, ModuleSuspect):
            interface.check_call(opened.module.forward, f"forward of {type(opened.module).__qualname__}")
        opened.interface = interface
    return opened


def _opened(thing: Any, accepts: Accepts | None) -> Suspect:
    if isinstance(thing, str | os.PathLike):
        return _kind_of_path(os.fspath(thing)).open(os.fspath(thing), accepts)
    for kind in SUSPECT_KINDS:
        if kind.recognises(thing):
            return kind.open(thing, accepts)
    if isinstance(thing, type):
        raise InputError(f"the suspect is the class {thing.__qualname__}, expected a trained model: pass an instance")
    expected = ", or ".join(kind.expected for kind in SUSPECT_KINDS)
    raise InputError(f"a suspect of type {type(thing).__name__} cannot be asked; expected {expected}")


def _kind_of_path(path: str) -> SuspectKind:
    """Return the kind that reads a file; InputError for an address, and for endings that none reads."""
    ending = Path(path).suffix.lower()
    for kind in SUSPECT_KINDS:
        if ending in kind.endings or kind.recognises(path):
            return kind
    if path.lower().startswith(("http://", "https://")):
        raise InputError(f"{path} is an address; {_READABLE}: pass a callable that sends the queries there")
    if ending == ".onnx":
        raise InputError(f"{path} is an ONNX file; {_READABLE}: pass a callable that runs the ONNX session")
    if ending in _PICKLES:
        raise InputError(
            f"{path} looks like a pickle, and unpickling a suspect would run its code; load weights into a model "
            "yourself (torch.load with weights_only=True, or safetensors) and pass the module"
        )
    known = ", ".join(ending for kind in SUSPECT_KINDS for ending in kind.endings)
    raise InputError(f"{path} has an unknown ending; expected recorded answers in one of {known}")
