"""The files of a folder of trained models: their names, the record in the head of each, and the plan of a zoo."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metav.errors import ZooError
from metav.support.files import PathLike, path_text, write_atomically
from metav.support.json_values import plain, readable_json

PLAN_FILE = "zoo.json"
"""Says which models a folder is to hold, so that parts of different zoos are not mixed."""
LENGTH_BYTES = 8
"""Of a safetensors file, in front of its head: how long that is."""
_NAME = re.compile(r"([0-9a-f]{64})\.safetensors")
_RECORD = "record"


def file_name(key: str) -> str:
    """Return the name of the file that holds the training run of a cache key."""
    return f"{key}.safetensors"


def key_of(name: str) -> str | None:
    """Return the cache key that the name of a file states; None for another name."""
    found = _NAME.fullmatch(name)
    return None if found is None else found[1]


def record_metadata(record: Mapping[str, Any]) -> dict[str, str]:
    """Return a training run's record as the metadata of its safetensors file.

    All sit under one key, because safetensors does not write several in a fixed order.
    """
    return {_RECORD: json.dumps(record, sort_keys=True)}


def head_length(content: bytes) -> int:
    """Return the bytes of a safetensors file's head, from its first eight."""
    return int.from_bytes(content[:LENGTH_BYTES], "little")


def read_record(head: bytes) -> dict[str, Any]:
    """Return the record in the head of a training run's file. Raises ValueError where there is none."""
    try:
        record = json.loads(json.loads(head)["__metadata__"][_RECORD])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its head holds no record ({type(error).__name__}: {error})") from error
    if not isinstance(record, dict):
        raise ValueError("its record is no object")
    return record


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooState:
    """What a folder holds of a zoo.

    planned: models that it is to hold, snapshots not counted.
    missing: names of those that are not there yet.
    """

    planned: int
    missing: tuple[str, ...]

    @property
    def trained(self) -> int:
        """How many models are there."""
        return self.planned - len(self.missing)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and the names as a plain dictionary, ready for JSON."""
        result: dict[str, Any] = plain({"planned": self.planned, "trained": self.trained, "missing": self.missing})
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())


def zoo_state(folder: PathLike) -> ZooState:
    """Return what a folder holds of the zoo whose parts are trained into it; no model is read.

    Raises ZooError for a folder without the plan of a zoo.
    """
    place = Path(path_text(folder, "folder"))
    plan = read_plan(place)
    if plan is None:
        raise ZooError(
            f"{place} holds no {PLAN_FILE}, so that no part of a zoo was trained into it; run metav zoo train"
        )
    missing = [run for run, key in plan.items() if not (place / file_name(key)).is_file()]
    return ZooState(planned=len(plan), missing=tuple(missing))


def read_plan(folder: Path) -> dict[str, str] | None:
    """Return the cache keys of the models that a folder is to hold, by run; None where there is no plan.

    Raises ZooError where the plan cannot be read.
    """
    try:
        content = json.loads((folder / PLAN_FILE).read_bytes())
        return {str(run): str(key) for run, key in content["models"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ZooError(
            f"{folder / PLAN_FILE} cannot be read ({type(error).__name__}: {error}); delete it, and the parts write "
            "it again"
        ) from error


def write_plan(folder: Path, plan: Mapping[str, str]) -> None:
    """Write which models a folder is to hold, their cache keys by run, whole or not at all."""
    write_atomically(folder / PLAN_FILE, json.dumps({"models": dict(plan)}, indent=1).encode())
