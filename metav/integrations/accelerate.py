"""Loops with Hugging Face's accelerate: a context around the loop, on the main process."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

from metav.errors import InputError
from metav.integrations.loop import LoopRelease, watching
from metav.integrations.registry import require_integration
from metav.integrations.releases import FingerprintOptions, Release
from metav.support.files import PathLike
from metav.tasks.base import Task
from metav.zoo.told_recipes import Recipe

require_integration("accelerate")


@contextmanager
def fingerprinting(
    accelerator: Any,
    path: PathLike,
    task: Task,
    *,
    recipe: Recipe | None = None,
    trackers: Sequence[Any] = (),
    part: str | None = None,
    every: int | None = None,
    **options: Unpack[FingerprintOptions],
) -> Iterator[LoopRelease]:
    """Run a loop, then make the fingerprint of what it ships, on the main process; no collective call is made.

    accelerator: an `accelerate.Accelerator`, whose `unwrap_model` is used.
    path, task, recipe, trackers, part, every, options: see `metav.integrations.loop.fingerprinting`. A recipe makes an
        Accelerator of its own.

    Raises InputError for another accelerator, and what `metav.integrations.loop.fingerprinting` does.
    """
    if not hasattr(accelerator, "unwrap_model") or not hasattr(accelerator, "is_main_process"):
        raise InputError(
            f"accelerator must be an accelerate.Accelerator, got {type(accelerator).__name__}; a loop without one goes "
            "into metav.integrations.loop.fingerprinting"
        )
    is_first = bool(accelerator.is_main_process)
    release = Release(path, task, trackers=trackers, part=part, every=every, is_first=is_first, options=options)
    unwrap = functools.partial(accelerator.unwrap_model, keep_torch_compile=False)
    with watching(release, recipe, unwrap) as loop:
        yield loop
