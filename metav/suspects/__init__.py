"""How a suspect is asked: a PyTorch module, any callable, recorded answers, a file of a model, a service.

Importing this imports neither PyTorch nor any library of an extra.
"""

from metav.suspects.base import Answers, AskedSuspect, Suspect
from metav.suspects.callables import Accepts, CallableSuspect
from metav.suspects.modules import ModuleSuspect
from metav.suspects.onnx_files import OnnxSuspect
from metav.suspects.recordings import RecordedSuspect
from metav.suspects.registry import SuspectKind, open_suspect
from metav.suspects.transports import Reply, Transport, TransportError, TransportSuspect

__all__ = [
    "Accepts",
    "Answers",
    "AskedSuspect",
    "CallableSuspect",
    "ModuleSuspect",
    "OnnxSuspect",
    "RecordedSuspect",
    "Reply",
    "Suspect",
    "SuspectKind",
    "Transport",
    "TransportError",
    "TransportSuspect",
    "open_suspect",
]
