"""The table of suspect kinds, and the way from what a user has to a suspect that can be asked."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metav.errors import InputError
from metav.support.model_answers import is_structured
from metav.support.text import harmless
from metav.suspects.base import Suspect
from metav.suspects.callables import Accepts, CallableSuspect
from metav.suspects.http.addresses import is_address, transport_to
from metav.suspects.http.template import TemplateTransport
from metav.suspects.http.template_files import ENDINGS as TEMPLATES
from metav.suspects.modules import ModuleSuspect
from metav.suspects.onnx_files import OnnxSuspect
from metav.suspects.recordings import READERS, RecordedSuspect
from metav.suspects.torch_archives import EXPORTED, SCRIPTED, open_torch_archive
from metav.suspects.transports import TransportSuspect

ENTRY_POINTS = "metav.suspects"
"""Group of entry points under which other distributions offer kinds: each names a `SuspectKind`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectKind:
    """One kind of suspect.

    name: of the kind.
    expected: what a user may pass, as the message for anything else lists it.
    recognises: whether a thing is of this kind; a path comes as a text.
    open: makes the suspect; given the thing, and those of `options` that were passed, by name.
    endings: of the files that it reads, in lower case.
    options: names of what `open_suspect` may pass on.
    """

    name: str
    expected: str
    recognises: Callable[[Any], bool]
    open: Callable[..., Suspect]
    endings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def _is_module(thing: Any) -> bool:
    torch = sys.modules.get("torch")  # a module or tensor can exist only where PyTorch is loaded
    return torch is not None and isinstance(thing, torch.nn.Module)


def _is_answers(thing: Any) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(thing, np.ndarray | list | tuple) or (torch is not None and isinstance(thing, torch.Tensor)):
        return True
    return isinstance(thing, Mapping) and is_structured(thing)


def _by_ending(thing: Any) -> bool:
    """Recognise nothing: a kind that goes by `endings` alone."""
    return False


def _open_service(url: str, **options: Any) -> Suspect:
    return TransportSuspect(transport_to(url, **options))


def _open_template(path: str, **options: Any) -> Suspect:
    return TransportSuspect(TemplateTransport(path, **options))


SUSPECT_KINDS: tuple[SuspectKind, ...] = (
    SuspectKind(
        name="module",
        expected="a torch.nn.Module",
        recognises=_is_module,
        open=ModuleSuspect,
        options=("input", "constants", "output"),
    ),
    SuspectKind(
        name="recording",
        expected="an array of recorded answers, or the path of a file of them",
        recognises=_is_answers,
        open=RecordedSuspect,
        endings=tuple(READERS),
        options=("output",),
    ),
    SuspectKind(
        name="onnx",
        expected="the path of an .onnx file",
        recognises=_by_ending,
        open=OnnxSuspect,
        endings=(".onnx",),
        options=("input", "constants", "output", "layout", "provider", "timeout"),
    ),
    SuspectKind(
        name="service",
        expected="the address of a model (Open Inference Protocol, MLflow)",
        recognises=is_address,
        open=_open_service,
        options=("input", "constants", "output", "layout", "headers", "timeout"),
    ),
    SuspectKind(
        name="template",
        expected="the path of a service's template",
        recognises=_by_ending,
        open=_open_template,
        endings=TEMPLATES,
        options=("timeout",),
    ),
    SuspectKind(
        name="archive",
        expected="the path of an archive of torch.export or TorchScript, with trust_code",
        recognises=_by_ending,
        open=open_torch_archive,
        endings=(*EXPORTED, *SCRIPTED),
        options=("trust_code",),
    ),
)
"""All kinds, in the order in which they are tried, callables last; a path goes to the kind that names its ending."""

CALLABLE = SuspectKind(
    name="callable",
    expected="a callable from queries to answers (such as model.predict_proba)",
    recognises=lambda thing: callable(thing) and not isinstance(thing, type),
    open=CallableSuspect,
    options=("accepts", "input", "constants", "output"),
)
"""The kind of last resort, after those of other distributions: many models of other libraries can be called, too."""

_NO_SUSPECTS = {
    ".safetensors": "holds weights alone; on the command line name the function that builds their model, and pass them "
    "as its weights: pkg.module:build --weights FILE, in Python load them into the model and pass that",
    ".metav": "is a fingerprint, which is named before the suspect; the suspect is a model, or its answers",
    ".py": "is a file of code; on the command line name a function in it, as pkg.module:build, in Python pass what "
    "that function returns",
}
"""What is taken for a suspect and is none, by its ending, and what to pass instead."""
_PICKLES = (".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")


def open_suspect(thing: Any, *, accepts: Accepts | None = None, **options: Any) -> Suspect:
    """Return the suspect behind a torch.nn.Module, a callable, recorded answers, a file or an address.

    accepts: what a callable is given, "numpy" or "torch"; None tries (see `CallableSuspect`). Others do without.
    options: how it is asked, as its kind takes them; None stands for what is not passed. input, constants, output
        (`ModelInterface`); of files layout, provider and timeout besides (`OnnxSuspect`), of services headers
        (`OpenInferenceTransport`, `MlflowTransport`); trust_code (`open_torch_archive`).

    Raises InputError on anything else, and on options that do not go with it.
    """
    if accepts not in (None, "numpy", "torch"):
        raise InputError(f'accepts must be "numpy", "torch" or None, got {accepts!r}')
    passed = {name: value for name, value in options.items() if value is not None}
    if isinstance(thing, Suspect):
        _check_options(passed, (), "a suspect that is open already")
        return thing
    is_path = isinstance(thing, str | os.PathLike)
    named = os.fspath(thing) if is_path else thing
    kind = _kind_of_path(named) if is_path else _kind_of(named)
    _check_options(passed, kind.options, f"a suspect of the kind {kind.name!r}")
    if accepts is not None and "accepts" in kind.options:
        passed["accepts"] = accepts
    return kind.open(named, **passed)


def _check_options(passed: dict[str, Any], allowed: tuple[str, ...], whose: str) -> None:
    for name in passed:
        if name not in allowed:
            raise InputError(f"{name} does not go with {whose}; it takes {', '.join(allowed) or 'no options'}")


def _kind_of(thing: Any) -> SuspectKind:
    """Return the kind of a thing that is no path."""
    for kind in _all_kinds():
        if kind.recognises(thing):
            return kind
    if isinstance(thing, type):
        raise InputError(f"the suspect is the class {thing.__qualname__}, expected a trained model: pass an instance")
    expected = ", or ".join(kind.expected for kind in (*SUSPECT_KINDS, CALLABLE))
    raise InputError(f"a suspect of type {type(thing).__name__} cannot be asked; expected {expected}")


def _kind_of_path(path: str) -> SuspectKind:
    """Return the kind that reads a file or asks an address; InputError for what none knows."""
    ending = "" if is_address(path) else Path(path).suffix.lower()
    for kind in _all_kinds():
        if ending in kind.endings or kind.recognises(path):
            return kind
    shown = harmless(path, limit=200)
    if ending in _PICKLES:
        raise InputError(
            f"{shown} looks like a pickle, and unpickling a suspect would run its code; load weights into a model "
            "yourself (torch.load with weights_only=True, or safetensors) and pass the module"
        )
    if ending in _NO_SUSPECTS:
        raise InputError(f"{shown} {_NO_SUSPECTS[ending]}")
    known = ", ".join(ending for kind in SUSPECT_KINDS for ending in kind.endings)
    meant = difflib.get_close_matches(ending, [known for kind in SUSPECT_KINDS for known in kind.endings], n=1)
    guess = f" (did you mean {meant[0]}?)" if meant else ""
    raise InputError(f"{shown} has an unknown ending{guess}; expected an address, or one of {known}")


def _all_kinds() -> Iterator[SuspectKind]:
    """Yield metav's own kinds, those of other distributions, and the callable."""
    yield from SUSPECT_KINDS
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            kind = entry.load()
        # the code of another distribution may raise anything, and must not stop what has nothing to do with it
        except Exception as error:
            reason = harmless(f"{type(error).__name__}: {error}", limit=300)
            warnings.warn(f"the suspect kind {entry.value} cannot be loaded ({reason}); it is left out", stacklevel=2)
            continue
        if isinstance(kind, SuspectKind):
            yield kind
        else:
            warnings.warn(f"the entry point {entry.value} is no SuspectKind of metav; it is left out", stacklevel=2)
    yield CALLABLE
