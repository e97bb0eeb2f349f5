"""Training in several processes: what they are given, and that they end with the one that started them."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metav.errors import InputError
from metav.models.running import device_of
from metav.models.stored_tensors import pickled
from metav.support.locks import ForkSafeLock
from metav.support.processes import end_with_parent
from metav.support.processor import job_count
from metav.support.torch_state import standard_torch_state
from metav.zoo import training
from metav.zoo.cache import ZooCache

STARTING_SECONDS = 10.0
"""What worker processes have to save where nobody asked for them: starting each, with PyTorch, takes about as long."""
Train = Callable[[Any, Any], bytes]
"""From what is planned and its context to the packed model."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pickled context on its way to workers.

    token: of this parcel alone.
    file: where workers read it, a file without a name that ends with the process that made it; None where there are
        no such files.
    content: it itself where there is no file; it then travels with each model.
    """

    token: str
    file: str | None
    content: bytes | None

    def read(self) -> Any:
        """Return the context, which was pickled moments ago by the process that started this one."""
        import cloudpickle

        return cloudpickle.loads(self.content or Path(self.file or "").read_bytes())


def train_missing(
    missing: Mapping[str, Any], context: Any, store: ZooCache | None, jobs: int | None, train: Train | None = None
) -> Iterator[tuple[str, bytes | None]]:
    """Yield (run, packed model, or None once it is in the cache) in the order in which they are finished.

    missing: the planned models by run; anything with a `run` may be planned.
    context: a ZooContext, or anything with a `key(planned)` and an `is_cached(planned)`.
    store: the cache; None for none.
    jobs: processes that train; None is one per core, where that saves more time than starting them takes. They end when
        this one does, however it ends, and leave nothing.
    train: a module-level function (planned, context) -> packed model; None for `train_planned`.

    Raises InputError where the context cannot be sent to other processes.
    """
    waiting, started = list(missing.values()), time.perf_counter()
    with ExitStack() as stack:
        parcel, processes = None, 1
        while waiting and parcel is None:
            done = len(missing) - len(waiting)
            seconds = (time.perf_counter() - started) / done * len(waiting) if done else None
            processes = training_processes(jobs, context, len(waiting), seconds)
            if processes > 1:
                try:
                    parcel = stack.enter_context(sent(context))
                except InputError:
                    if jobs is not None:
                        raise
                    jobs = 1  # nobody asked for workers
                continue
            planned = waiting.pop(0)
            with standard_torch_state():
                content = (train or training.train_planned)(planned, context)
            if store is not None and context.is_cached(planned):
                store.store(context.key(planned), content)
            yield planned.run, content
        if parcel is not None:
            yield from _in_workers(parcel, waiting, context, store, processes, train)


def training_processes(jobs: int | None, context: Any, waiting: int, seconds: float | None) -> int:
    """Return how many processes train the models that are waiting; 1 is this one alone.

    jobs: as they were asked for; None is one per core, where that saves more time than starting them takes.
    context: see `train_missing`.
    seconds: that the models take in one process, about; None where nothing tells.
    """
    count = min(job_count(jobs), waiting)
    if count < 2:
        return 1
    if jobs is not None:
        return count
    owner = getattr(context, "owner", None)
    # the models of several processes would share one GPU's memory
    is_here = isinstance(owner, nn.Module) and device_of(owner).type == "cpu"
    pays = is_here and seconds is not None and seconds * (1 - 1 / count) > STARTING_SECONDS
    return count if pays else 1


def _in_workers(
    parcel: Parcel, waiting: Sequence[Any], context: Any, store: ZooCache | None, processes: int, train: Train | None
) -> Iterator[tuple[str, bytes | None]]:
    """Yield what `train_missing` does of models that worker processes train."""
    from joblib import Parallel, delayed

    target = None if store is None else str(store.folder.absolute())
    workers = Parallel(
        n_jobs=processes,
        backend="loky",
        return_as="generator_unordered",
        batch_size=1,
        max_nbytes=None,  # large arrays would lie in a folder that a killed process leaves behind
        temp_folder=tempfile.gettempdir(),  # else joblib makes one at once, for arrays to come
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    yield from workers(
        delayed(train_in_worker)(parcel, planned, target if context.is_cached(planned) else None, train)
        for planned in waiting
    )


def train_in_worker(
    parcel: Parcel, planned: Any, folder: str | None, train: Train | None = None
) -> tuple[str, bytes | None]:
    """Train in a worker process; return (run, packed model, or None where it went to the cache).

    folder: of the cache; None for none.
    """
    torch.set_num_threads(1)
    context = _context(parcel)
    with standard_torch_state():
        content = (train or training.train_planned)(planned, context)
    if folder is None:
        return planned.run, content
    ZooCache(folder).store(context.key(planned), content)
    return planned.run, None


@contextmanager
def sent(context: object) -> Iterator[Parcel]:
    """Run the body with a context ready for workers: data and owner are sent once, instead of once per model.

    Raises InputError where it cannot be pickled.
    """
    try:
        content = _pickled(context)
    except Exception as error:
        raise InputError(
            "owner, task, architectures or recipe cannot be sent to worker processes "
            f"({type(error).__name__}: {error}); use jobs=1, or remove hooks and attributes that cannot be pickled"
        ) from error
    token = secrets.token_hex(16)
    with tempfile.TemporaryFile() as file:
        name = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        if os.path.exists(name):
            file.write(content)
            file.flush()
            yield Parcel(token, name, None)
        else:
            yield Parcel(token, None, content)


def _pickled(context: object) -> bytes:
    """Return a context for worker processes, with the code of modules that these could not import."""
    import cloudpickle

    told: tuple[object, ...] = ()
    if isinstance(context, training.ZooContext):
        users = [context.owner, *(getattr(entry, "like", None) for entry in context.architectures)]
        parts = {type(part) for model in users if model is not None for part in model.modules()}
        chosen = [getattr(model, "output", None) for model in users]
        callables = [getattr(entry, "architecture", entry) for entry in context.architectures]
        told = (context.recipe, *callables, *chosen, *parts, type(context.task))
    with _PICKLING, ExitStack() as stack:
        for module in {name for entry in told if (name := getattr(entry, "__module__", None)) in sys.modules}:
            # the main module's code always travels by value
            if module != "__main__" and not _is_importable(module):
                cloudpickle.register_pickle_by_value(sys.modules[module])
                stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[module])
        return pickled(context)


_PICKLING = ForkSafeLock()
"""Held while modules are registered with cloudpickle, which keeps one list for the process."""


def _is_importable(module: str) -> bool:
    top = module.partition(".")[0]
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)


_CONTEXTS: dict[str, Any] = {}
"""The context that this worker read last, by its token."""


def _context(parcel: Parcel) -> Any:
    if parcel.token not in _CONTEXTS:
        _CONTEXTS.clear()
        _CONTEXTS[parcel.token] = parcel.read()
    return _CONTEXTS[parcel.token]
