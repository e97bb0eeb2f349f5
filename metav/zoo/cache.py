"""The cache of trained models: one safetensors file per training run, named by all that its content depends on."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from metav.errors import CacheError
from metav.support.files import PathLike, path_text, remove_stale_parts, write_atomically
from metav.zoo.folder_format import LENGTH_BYTES, file_name, head_length, read_record, record_metadata

FORMAT = 2
"""Version of the cache; it is increased whenever the same key would stand for another model, for example when an
obfuscation changes. Of a file whose name a key is, the whole content has a digest since version 2."""
NO_DIGEST = "0" * 64
"""Stands for the digest of a file while it is worked out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The result of one training run: one entry per snapshot, the finished model last.

    states: the tensors of each state dict.
    fractions: share of the training that each snapshot has seen, in (0, 1].
    metrics: the task's metric of each.
    strength: of the obfuscation in the end; None for an independent model.
    """

    states: tuple[Mapping[str, Tensor], ...]
    fractions: tuple[float, ...]
    metrics: tuple[float, ...]
    strength: float | None


def cache_key(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 over the format version and everything that a training run depends on."""
    text = json.dumps({"format": FORMAT, **content}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def pack(trained: TrainedModel, key: str, about: Mapping[str, str] | None = None) -> bytes:
    """Return a training run as the bytes of a safetensors file.

    key: its cache key.
    about: what it belongs to, for `metav cache list`; nothing depends on it.

    Its record holds a digest of the whole file but for itself, since safetensors has no checksum, neither of tensors
    nor of the header that says what they are.
    """
    from safetensors.torch import save

    tensors = {
        f"{index:03d}/{name}": tensor.detach().cpu().clone().contiguous()
        for index, state in enumerate(trained.states)
        for name, tensor in state.items()
    }
    record = {
        "key": key,
        "fractions": trained.fractions,
        "metrics": trained.metrics,
        "strength": trained.strength,
        "sha256": NO_DIGEST,
        **({} if about is None else {"about": dict(about)}),
    }
    content = save(tensors, metadata=record_metadata(record))
    return _with_digest(content, NO_DIGEST, hashlib.sha256(content).hexdigest())


def unpack(content: bytes, key: str) -> TrainedModel:
    """Return the training run that `pack` made into bytes.

    Raises ValueError unless the bytes are intact, every one of them, and those of `key`.
    """
    from safetensors.torch import load

    try:
        record = read_record(_header(content))
        stated = record["sha256"]
        intact = stated == hashlib.sha256(_with_digest(content, stated, NO_DIGEST)).hexdigest()
    except Exception as error:
        raise ValueError(f"not a readable cache file: {error}") from error
    if not intact:
        raise ValueError("its content does not match its digest")
    if record["key"] != key:
        raise ValueError("it is that of another model: its key does not match its name")
    states: list[dict[str, Tensor]] = [{} for _ in record["fractions"]]
    for name, tensor in load(content).items():
        index, _, parameter = name.partition("/")
        states[int(index)][parameter] = tensor
    return TrainedModel(
        states=tuple(states),
        fractions=tuple(record["fractions"]),
        metrics=tuple(record["metrics"]),
        strength=record["strength"],
    )


class ZooCache:
    """A folder of trained models; several processes may write to it.

    folder: is created where needed.

    Raises CacheError if it cannot be written to, InputError for what is no path.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(path_text(folder, "cache"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass  # it can be written to
            remove_stale_parts(self.folder)
        except OSError as error:
            raise CacheError(
                f"the cache folder {self.folder} cannot be written to ({error}); pass another cache= or fix its rights"
            ) from error

    def path(self, key: str) -> Path:
        """Return where the training run of a key is kept."""
        return self.folder / file_name(key)

    def load(self, key: str) -> TrainedModel | None:
        """Return the training run of a key; None if it is absent or, with a warning, damaged.

        Raises CacheError if it cannot be read.
        """
        try:
            content = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CacheError(f"the cache file {self.path(key)} cannot be read ({error}); fix its rights") from error
        try:
            return unpack(content, key)
        except ValueError as error:
            warnings.warn(f"the cache file {self.path(key)} is damaged ({error}); the model is rebuilt", stacklevel=2)
            return None

    def store(self, key: str, content: bytes) -> None:
        """Write a training run whole or not at all: into a temporary file of the same folder, then renamed.

        Raises CacheError if it cannot be written.
        """
        try:
            write_atomically(self.path(key), content)
        except OSError as error:
            raise CacheError(
                f"the cache file {self.path(key)} cannot be written ({error}); free some space or pass another cache="
            ) from error


def tensor_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return those entries of a state dict that are tensors."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _header(content: bytes) -> bytes:
    """Return the JSON text in front of the tensors."""
    return content[LENGTH_BYTES : LENGTH_BYTES + head_length(content)]


def _with_digest(content: bytes, old: str, new: str) -> bytes:
    """Return a file with another digest in its header, at the one place where the old one stands."""
    header = _header(content)
    if header.count(old.encode()) != 1 or len(new) != len(old):
        raise ValueError("its header does not state one digest")
    rest = content[LENGTH_BYTES + len(header) :]
    return content[:LENGTH_BYTES] + header.replace(old.encode(), new.encode()) + rest
