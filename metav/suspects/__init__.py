"""How a suspect is asked: a PyTorch module, any callable, recorded answers. Importing this does not import PyTorch."""

from metav.suspects.base import Answers, AskedSuspect, Suspect
from metav.suspects.callables import Accepts, CallableSuspect
from metav.suspects.modules import ModuleSuspect
from metav.suspects.recordings import RecordedSuspect
from metav.suspects.registry import open_suspect

__all__ = [
    "Accepts",
    "Answers",
    "AskedSuspect",
    "CallableSuspect",
    "ModuleSuspect",
    "RecordedSuspect",
    "Suspect",
    "open_suspect",
]
