"""From what a user has to a suspect that can be asked."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from metav.errors import InputError
from metav.suspects.base import Suspect
from metav.suspects.callables import Accepts, CallableSuspect
from metav.suspects.recordings import READERS, RecordedSuspect

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")


def open_suspect(thing: Any, *, accepts: Accepts | None = None) -> Suspect:
    """Return the suspect behind a torch.nn.Module, a callable, recorded answers or their path.

    accepts: what a callable is given, "numpy" or "torch"; None tries (see `CallableSuspect`).

    Raises InputError on anything else.
    """
    if accepts not in (None, "numpy", "torch"):
        raise InputError(f'accepts must be "numpy", "torch" or None, got {accepts!r}')
    if isinstance(thing, Suspect):
        return thing
    if isinstance(thing, str | os.PathLike):
        return RecordedSuspect(_checked_path(os.fspath(thing)))
    torch = sys.modules.get("torch")  # a module or tensor can exist only where PyTorch is loaded
    if torch is not None and isinstance(thing, torch.nn.Module):
        from metav.suspects.modules import ModuleSuspect

        return ModuleSuspect(thing)
    if torch is not None and isinstance(thing, torch.Tensor):
        return RecordedSuspect(thing)
    if isinstance(thing, type):
        raise InputError(f"the suspect is the class {thing.__qualname__}, expected a trained model: pass an instance")
    if isinstance(thing, np.ndarray | list | tuple):
        return RecordedSuspect(thing)
    if callable(thing):
        return CallableSuspect(thing, accepts=accepts)
    raise InputError(
        f"a suspect of type {type(thing).__name__} cannot be asked; expected a torch.nn.Module, a callable from "
        "queries to answers (such as model.predict_proba), an array of recorded answers, or the path of a file of them"
    )


def _checked_path(path: str) -> str:
    suffix = Path(path).suffix.lower()
    readable = "this version reads modules, callables and recorded answers"
    if path.lower().startswith(("http://", "https://")):
        raise InputError(f"{path} is an address; {readable}: pass a callable that sends the queries there")
    if suffix == ".onnx":
        raise InputError(f"{path} is an ONNX file; {readable}: pass a callable that runs the ONNX session")
    if suffix in _PICKLES:
        raise InputError(
            f"{path} looks like a pickle, and unpickling a suspect would run its code; load weights into a model "
            "yourself (torch.load with weights_only=True, or safetensors) and pass the module"
        )
    if suffix not in READERS:
        raise InputError(f"{path} has an unknown ending; expected recorded answers in one of {', '.join(READERS)}")
    return path
