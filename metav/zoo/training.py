"""Training of one planned model, in this process or in a worker; its result depends on plan and data alone."""

from __future__ import annotations

import functools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metav.errors import InputError, ModelError
from metav.models.architectures import Architecture, build
from metav.models.copying import duplicate, recompute_weights
from metav.models.identity import architecture_identity
from metav.models.running import copied, device_of, evaluating, frozen
from metav.obfuscations.registry import OBFUSCATIONS
from metav.support.processor import job_count
from metav.support.randomness import derive_seed, isolated_rng, single_thread
from metav.support.torch_state import standard_torch_state
from metav.tasks.base import Task, train_as_it_can
from metav.tasks.data_variations import varied
from metav.zoo.cache import TrainedModel, ZooCache, cache_key, pack, tensor_state
from metav.zoo.plan import KINDRED, OTHER_DATA, PlannedModel
from metav.zoo.told_recipes import Recipe, check_useful, recipe_seed, told_model

ATTEMPTS = 3
"""How often a derived model is made, with less and less strength, until it is useful."""
STARTING_SECONDS = 10.0
"""What worker processes have to save where nobody asked for them: starting each, with PyTorch, takes about as long."""
LAST_SNAPSHOT = 0.9
"""Share of the training after which no snapshot is taken: it would hardly differ from the finished model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooContext:
    """Everything that the models of a zoo are made from.

    owner: a private copy of the owner's model.
    task: the owner's task.
    thief_task: the task on whose data obfuscations train.
    other_task: a task on data of another source, for independent models; None for changed parts of the owner's.
    architectures: callables that return fresh models; the first is the owner's own class.
    least_useful: the metric with which a thief would still use a model; None where none is known.
    digests: identities of all of these, which go into every cache key.
    recipe: how the owner's model was trained; None where the user does not tell.
    recipe_identity: goes into the cache keys of the models made by it.
    owner_fit: the owner's lack of fit (`SupervisedTask.lack_of_fit`), which drawn recipes train for; None: they do not.
    """

    owner: nn.Module
    task: Task
    thief_task: Task
    other_task: Task | None
    architectures: tuple[Architecture, ...]
    least_useful: float | None
    digests: dict[str, str]
    recipe: Recipe | None = None
    recipe_identity: str = ""
    owner_fit: float | None = None

    def key(self, planned: PlannedModel) -> str:
        """Return the cache key of a planned model."""
        return cache_key(
            {
                **self.digests,
                "architecture": self.digests[f"architecture {planned.architecture}"],
                "family": planned.family,
                "strength": planned.strength,
                "seed": planned.seed,
                "snapshots": planned.snapshots,
                "is_positive": planned.is_positive,
                "varied": planned.varied,
                **({} if planned.attack is None else {"attack": planned.attack}),
                **({} if planned.recipe is None else {"recipe": asdict(planned.recipe)}),
                **({"told recipe": self.recipe_identity} if planned.family == KINDRED else {}),
            }
        )

    def is_useful(self, metric: float) -> bool:
        """Return whether a model of this metric is worth having: at least halfway from a constant answer to the owner.

        metric: in the task's unit. Any finite one counts as useful where that halfway point is not known.
        """
        if not math.isfinite(metric):
            return False
        if self.least_useful is None:
            return True
        return metric >= self.least_useful if self.task.higher_is_better else metric <= self.least_useful

    def template(self, planned: PlannedModel) -> nn.Module:
        """Return a model of the planned architecture, into which the trained state can be loaded."""
        if planned.architecture == 0:
            return copied(self.owner)
        return build(self.architectures[planned.architecture], derive_seed(planned.seed, "initial weights"))

    def model(self, planned: PlannedModel, state: Mapping[str, Tensor]) -> nn.Module:
        """Return a model of the planned architecture with trained weights, in eval mode on the owner's device.

        Raises ModelError for weights of another architecture.
        """
        model = self.template(planned)
        if set(tensor_state(model.state_dict())) != set(state):
            raise ModelError(f"a trained copy of {type(model).__qualname__} has other weights than a fresh one")
        # not strict: entries of the state that are no tensors were not stored, and stay as in the fresh model
        model.load_state_dict(dict(state), strict=False)
        return recompute_weights(frozen(model).to(device_of(self.owner)).eval())


class SnapshotRecorder:
    """A callback for `on_epoch` that keeps copies of a model at given shares of its training.

    fractions: the shares, ascending, in (0, 1).
    """

    def __init__(self, fractions: tuple[float, ...]) -> None:
        self._wanted = list(fractions)
        self.snapshots: list[tuple[float, nn.Module]] = []

    def __call__(self, share: float, model: nn.Module) -> None:
        """Copy the model if the next wanted share is reached (never a nearly finished one)."""
        if not self._wanted or share < self._wanted[0]:
            return
        while self._wanted and share >= self._wanted[0]:
            self._wanted.pop(0)
        if share <= LAST_SNAPSHOT:
            self.snapshots.append((share, duplicate(model).eval()))


def train_planned(planned: PlannedModel, context: ZooContext) -> bytes:
    """Train a planned model and return it packed.

    A model that diverges or stays useless by a drawn recipe is trained in the task's own way. A positive that is no
        longer useful is made again with half the strength, at most twice: a thief would not use a broken model.

    Raises ModelError when an independent model diverges, and what `told_model` does.
    """
    with single_thread(), isolated_rng(planned.seed):
        attempts = list(_attempts(planned))
        for attempt in attempts:
            last = attempt is attempts[-1]
            recorder = SnapshotRecorder(planned.snapshots)
            try:
                model = (_positive if planned.is_positive else _negative)(attempt, context, recorder)
            except ModelError as error:
                if last:
                    raise ModelError(f"{planned.run}: {error}") from error
                continue
            metric = float(context.task.metric(model))
            if last or context.is_useful(metric):
                break
        snapshots = [(share, copy_, float(context.task.metric(copy_))) for share, copy_ in recorder.snapshots]
        snapshots.append((1.0, model, metric))
    for share, snapshot, _ in snapshots:
        check_weights(snapshot, planned.run, share)
    trained = TrainedModel(
        states=tuple(tensor_state(snapshot.state_dict()) for _, snapshot, _ in snapshots),
        fractions=tuple(share for share, _, _ in snapshots),
        metrics=tuple(metric for _, _, metric in snapshots),
        strength=attempt.strength,
    )
    return pack(trained, context.key(planned))


def _attempts(planned: PlannedModel) -> Iterator[PlannedModel]:
    """Yield what is tried in turn until the model is useful."""
    if planned.recipe is not None:
        yield planned
    own = replace(planned, recipe=None)
    if planned.strength is None:
        yield own
        return
    for halvings in range(ATTEMPTS):
        yield replace(own, strength=planned.strength / 2**halvings)


def train_missing(
    missing: Mapping[str, Any],
    context: Any,
    store: ZooCache | None,
    jobs: int | None,
    train: Callable[[Any, Any], bytes] | None = None,
) -> Iterator[tuple[str, bytes | None]]:
    """Yield (run, packed model, or None once it is in the cache) in the order in which they are finished.

    missing: the planned models by run; anything with a `run` may be planned.
    context: a ZooContext, or anything with a `key(planned)`.
    store: the cache; None for none.
    jobs: processes that train; None is one per core, where that saves more time than starting them takes.
    train: a module-level function (planned, context) -> packed model; None for `train_planned`.

    Raises InputError where the context cannot be sent to other processes.
    """
    waiting, started = list(missing.values()), time.perf_counter()
    sent: bytes | None = None
    while waiting and sent is None:
        done = len(missing) - len(waiting)
        if _workers_pay(jobs, context, len(waiting), done, time.perf_counter() - started):
            try:
                sent = _pickled(context)
            except Exception as error:
                if jobs is not None:
                    raise InputError(
                        "owner, task, architectures or recipe cannot be sent to worker processes "
                        f"({type(error).__name__}: {error}); use jobs=1, or remove hooks and attributes that cannot be "
                        "pickled"
                    ) from error
                jobs = 1  # nobody asked for workers
            continue
        planned = waiting.pop(0)
        with standard_torch_state():
            content = (train or train_planned)(planned, context)
        if store is not None:
            store.store(context.key(planned), content)
        yield planned.run, content
    if sent is not None:
        yield from _in_workers(sent, waiting, store, job_count(jobs), train)


def _workers_pay(jobs: int | None, context: Any, waiting: int, done: int, seconds: float) -> bool:
    """Return whether worker processes are to train what is still waiting.

    jobs: as they were asked for. None: the models that are done here tell whether all cores save time.
    seconds: that they took.
    """
    if jobs is not None:
        return waiting > 1 and jobs != 1
    owner = getattr(context, "owner", None)
    # the models of several processes would share one GPU's memory
    is_here = isinstance(owner, nn.Module) and device_of(owner).type == "cpu"
    cores = job_count(None)
    if waiting < 2 or cores == 1 or not done or not is_here:
        return False
    return seconds / done * waiting * (1 - 1 / cores) > STARTING_SECONDS


def _in_workers(
    sent: bytes,
    waiting: Sequence[Any],
    store: ZooCache | None,
    jobs: int,
    train: Callable[[Any, Any], bytes] | None,
) -> Iterator[tuple[str, bytes | None]]:
    """Yield what `train_missing` does of models that worker processes train; sent: the pickled context."""
    from joblib import Parallel, delayed

    with tempfile.TemporaryDirectory(prefix="metav-zoo-") as folder:
        # data and owner are sent once, in a file, instead of once per model
        file = Path(folder) / "context"
        file.write_bytes(sent)
        workers = Parallel(n_jobs=min(jobs, len(waiting)), return_as="generator_unordered", batch_size=1)
        target = None if store is None else str(store.folder.absolute())
        yield from workers(delayed(train_in_worker)(str(file), planned, target, train) for planned in waiting)


def train_in_worker(
    context_file: str, planned: Any, folder: str | None, train: Callable[[Any, Any], bytes] | None = None
) -> tuple[str, bytes | None]:
    """Train in a worker process; return (run, packed model, or None where it went to the cache).

    context_file: path of the pickled context.
    folder: of the cache; None for none.
    """
    torch.set_num_threads(1)
    with standard_torch_state():
        content = (train or train_planned)(planned, _load_context(context_file))
    if folder is None:
        return planned.run, content
    ZooCache(folder).store(_load_context(context_file).key(planned), content)
    return planned.run, None


def context_digests(owner_digest: str, task_digests: dict[str, str], architectures: list[nn.Module]) -> dict[str, str]:
    """Return the identities of everything that models are made from, which go into every cache key."""
    digests = {"owner": owner_digest, **task_digests}
    for index, model in enumerate(architectures):
        digests[f"architecture {index}"] = architecture_identity(model)
    return digests


def identity_of(task: Task) -> str:
    """Return a text that changes with a task's data and options and with the code of its class."""
    return f"{task.digest()} {cache_key({'source': task.identity()})}"


def _pickled(context: object) -> bytes:
    """Return a context for worker processes, with the code of modules that these could not import."""
    import cloudpickle

    told: tuple[object, ...] = ()
    if isinstance(context, ZooContext):
        users = [context.owner, *(getattr(entry, "like", None) for entry in context.architectures)]
        parts = {type(part) for model in users if model is not None for part in model.modules()}
        chosen = [getattr(model, "output", None) for model in users]
        callables = [getattr(entry, "architecture", entry) for entry in context.architectures]
        told = (context.recipe, *callables, *chosen, *parts, type(context.task))
    with ExitStack() as stack:
        for module in {name for entry in told if (name := getattr(entry, "__module__", None)) in sys.modules}:
            # the main module's code always travels by value
            if module != "__main__" and not _is_importable(module):
                cloudpickle.register_pickle_by_value(sys.modules[module])
                stack.callback(cloudpickle.unregister_pickle_by_value, sys.modules[module])
        return bytes(cloudpickle.dumps(context))


def _is_importable(module: str) -> bool:
    top = module.partition(".")[0]
    return any(finder.find_spec(top, None) is not None for finder in sys.meta_path)


@functools.lru_cache(maxsize=1)
def _load_context(path: str) -> Any:
    import cloudpickle

    # The file was written by the parent process, moments ago, into its own private folder.
    return cloudpickle.loads(Path(path).read_bytes())


def _positive(planned: PlannedModel, context: ZooContext, recorder: SnapshotRecorder) -> nn.Module:
    entry = OBFUSCATIONS[planned.family]
    options: dict[str, Any] = {}
    if planned.architecture:
        options["architecture"] = context.architectures[planned.architecture]
    if planned.snapshots and entry.needs_training:
        options["on_epoch"] = recorder
    task = varied(context.thief_task, planned.seed) if planned.varied else context.thief_task
    task = task if planned.recipe is None else task.with_recipe(planned.recipe)
    with evaluating(context.owner), torch.enable_grad():
        return entry.function(context.owner, task, strength=planned.strength, seed=planned.seed, **options)


def _negative(planned: PlannedModel, context: ZooContext, recorder: SnapshotRecorder) -> nn.Module:
    task = _data_of(planned, context)
    watched: dict[str, Any] = {"on_epoch": recorder} if planned.snapshots else {}
    model = _independent(planned, context, task, {} if planned.attack else watched)
    if planned.attack is None:
        return model
    family, strength = planned.attack
    entry = OBFUSCATIONS[family]
    with evaluating(model), torch.enable_grad():
        return entry.function(
            model,
            task,
            strength=strength,
            seed=derive_seed(planned.seed, "attacked"),
            **(watched if entry.needs_training else {}),
        )


def _data_of(planned: PlannedModel, context: ZooContext) -> Task:
    """Return the task on whose data an independent model is trained."""
    if planned.family == OTHER_DATA and context.other_task is not None:
        return context.other_task
    if planned.varied:
        return varied(context.task, planned.seed)
    if planned.family == OTHER_DATA:
        return context.task.bootstrap(derive_seed(planned.seed, "data"), 0.5)
    return context.task


def _independent(planned: PlannedModel, context: ZooContext, task: Task, watched: dict[str, Any]) -> nn.Module:
    """Return an independent model: by the recipe that was told, by a drawn one, or by the task's own.

    watched: options of its training.
    """
    if planned.family == KINDRED and context.recipe is not None:
        model = told_model(context.recipe, planned.seed, context.owner, context.task)
        name = f"the model of recipe({recipe_seed(planned.seed)})"
        check_useful(name, float(context.task.metric(model)), context.task, context.least_useful)
        return model.to(device_of(context.owner))
    start = derive_seed(planned.seed, "initial weights")
    model = build(context.architectures[planned.architecture], start).to(device_of(context.owner))
    if planned.recipe is not None:
        task = task.with_recipe(planned.recipe)
        # a loop of the user's own may not look at the task's epochs, but takes them as an argument
        stated = task.has_own_loop and task.states_epochs
        watched = {**watched, "epochs": planned.recipe.epochs} if stated else watched
    return train_as_it_can(task, model, seed=derive_seed(planned.seed, "training"), **watched)


def check_weights(model: nn.Module, run: str, share: float) -> None:
    """Raise ModelError for NaN or infinite values in a model's weights.

    run, share: the training run and how much of it is done, which name the model in the message.
    """
    for name, tensor in tensor_state(model.state_dict()).items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(
                f"{run} at {share:.0%} of its training has NaN or infinite values in {name}; lower the task's "
                "learning_rate or rescale the data to the order of 1"
            )
