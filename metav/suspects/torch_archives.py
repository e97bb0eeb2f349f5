"""Archives that PyTorch itself writes, .pt2 (torch.export) and TorchScript: loading one runs the code in it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, final

from numpy.typing import NDArray

from metav.errors import InputError
from metav.support.arrays import FloatArray
from metav.support.dependencies import require_torch
from metav.support.text import byte_size, harmless
from metav.suspects.base import AskedSuspect, Suspect
from metav.suspects.modules import ModuleSuspect
from metav.suspects.tensor_specifications import in_fixed_batches

EXPORTED = (".pt2",)
SCRIPTED = (".pt", ".ts", ".torchscript")
"""Endings; a .pt file that is a pickle and no TorchScript is refused."""

LARGEST_CONTENT = 32 * 2**30
"""Bytes of an archive's content."""


def open_torch_archive(path: str | os.PathLike[str], *, trust_code: bool = False) -> Suspect:
    """Return the suspect in an archive of torch.export or TorchScript.

    trust_code: that the archive's own code may run with your rights, which loading it does. No pickle of a model is
        read with it, nor without it.

    Raises InputError without trust_code and on anything else than such an archive, MissingDependencyError without
    PyTorch.
    """
    archive, shown = Path(path), harmless(path, limit=200)
    if trust_code is not True:
        kind = (
            "an archive of torch.export"
            if archive.suffix.lower() in EXPORTED
            else "TorchScript, or looks like a pickle"
        )
        raise InputError(
            f"{shown} is {kind}, and loading it would run its code; where you trust who made it, say so: "
            "trust_code=True (--trust-code). Else export it to ONNX, or load weights into a model yourself "
            "(safetensors) and pass the module; pickles are never read"
        )
    require_torch(f"reading {shown}")
    if not archive.is_file():
        raise InputError(f"there is no file {shown}; expected an archive of PyTorch: check the path")
    is_export = archive.suffix.lower() in EXPORTED
    _check_content(archive, is_export)
    try:
        return _ExportedSuspect(archive) if is_export else _scripted(archive)
    except InputError:
        raise
    # what a damaged archive makes PyTorch raise is anything
    except Exception as error:
        reason = harmless(f"{type(error).__name__}: {error}", limit=300)
        raise InputError(f"{shown} cannot be loaded ({reason}); export the model again") from error


@final
class _ExportedSuspect(AskedSuspect):
    """A program of torch.export; it has no modes, and often a batch size that is fixed."""

    def __init__(self, path: Path) -> None:
        import torch

        program = torch.export.load(path)
        self._module = program.module()
        self._batch, self._dtype = _first_input(program)
        self.description = f"exported program {harmless(path.name, limit=80)}"

    def _ask(self, batch: FloatArray) -> Any:
        import torch

        def run(queries: FloatArray) -> NDArray[Any]:
            with torch.no_grad():
                answer: NDArray[Any] = self._module(torch.from_numpy(queries).to(self._dtype)).cpu().float().numpy()
            return answer

        return in_fixed_batches(run, batch, self._batch)


def _first_input(program: Any) -> tuple[int | None, Any]:
    """Return the batch size that a program is fixed to, None for any, and the type of its input."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise InputError(f"the program takes {len(names)} inputs, expected one; export a module that sets the others")
    value = next(node.meta["val"] for node in program.graph.nodes if node.name == names[0])
    size = value.shape[0]
    return (size if isinstance(size, int) else None), value.dtype


def _scripted(path: Path) -> Suspect:
    import torch

    module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    suspect = ModuleSuspect(module)
    suspect.description = f"TorchScript {harmless(path.name, limit=80)}"
    return suspect


def _check_content(path: Path, is_export: bool) -> None:
    """Refuse what is no such archive: a pickle, or one that unpacks to more than it should."""
    shown = harmless(path, limit=200)
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{shown} is no archive of torch.export or TorchScript but probably a pickle; pickles are not read"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if not is_export and not any(name.endswith("constants.pkl") for name in names):
        raise InputError(f"{shown} is a pickle of weights or of a model, no TorchScript; pickles are not read")
    if sum(entry.file_size for entry in entries) > LARGEST_CONTENT:
        raise InputError(f"{shown} unpacks to more than {byte_size(LARGEST_CONTENT)}; it is refused")
