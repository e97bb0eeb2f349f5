"""A recipe that runs alone: without fingerprints of its own, without other processes, without traces."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from metav.support.processes import end_with_parent
from metav.zoo.told_recipes import Recipe

DISTRIBUTED = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE"),
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_ID"),
)
"""Variables by which launchers tell a process that it is one of several."""
SEED = "PL_GLOBAL_SEED"
"""Variable in which Lightning keeps the seed of the process, and takes it from where no other is given."""
SEEDED = (SEED, "PL_SEED_WORKERS")
"""Variables that `seed_everything` of Lightning sets."""

_RUNS: ContextVar[bool] = ContextVar("a recipe runs", default=False)


def recipe_runs() -> bool:
    """Return whether a recipe runs: what would make a fingerprint then does nothing, or it would never end."""
    return _RUNS.get()


def is_one_of_several() -> bool:
    """Return whether this process may make collective calls with others that train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class RecipeAlone:
    """A recipe that makes no fingerprint where the code that it runs contains metav's own callback or context.

    Where this process is one of several that train together, it runs in another process: a collective call that one
    of them makes alone would wait for ever.

    recipe: from a seed to a fresh trained model.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __call__(self, seed: int) -> nn.Module:
        """Return the model of a seed."""
        if is_one_of_several():
            return _elsewhere(self.recipe, seed)
        return run_alone(self.recipe, seed)


def run_alone(recipe: Recipe, seed: int) -> nn.Module:
    """Return the model of a seed, trained in this process as if it were the only one, and leave no trace."""
    with ExitStack() as stack:
        stack.enter_context(_as_recipe())
        stack.enter_context(_without_launcher())
        stack.enter_context(_settings_restored())
        return recipe(seed)


def _elsewhere(recipe: Recipe, seed: int) -> nn.Module:
    from joblib.externals.loky import ProcessPoolExecutor

    with ProcessPoolExecutor(1, initializer=end_with_parent, initargs=(os.getpid(),)) as executor:
        result: nn.Module = executor.submit(_seeded, recipe, seed).result()
    return result


def _seeded(recipe: Recipe, seed: int) -> nn.Module:
    from metav.support.randomness import isolated_rng

    torch.set_num_threads(1)
    with isolated_rng(seed):
        return run_alone(recipe, seed)


@contextmanager
def _as_recipe() -> Iterator[None]:
    token = _RUNS.set(True)
    try:
        yield
    finally:
        _RUNS.reset(token)


@contextmanager
def _without_launcher() -> Iterator[None]:
    """Run the body without the variables of launchers and the owner's seed, then set all that it may set as before."""
    kept = {name: os.environ[name] for name in (*DISTRIBUTED, *SEEDED) if name in os.environ}
    for name in (*DISTRIBUTED, SEED):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name in (*DISTRIBUTED, *SEEDED):
            os.environ.pop(name, None)
        os.environ.update(kept)


@contextmanager
def _settings_restored() -> Iterator[None]:
    """Run the body, then set PyTorch's settings that trainers change as they were."""
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    anomaly = torch.is_anomaly_enabled()
    shared = [(state, dict(state)) for state in _states_of_accelerate()]
    for state, _ in shared:
        state.clear()
    try:
        yield
    finally:
        for state, content in shared:
            state.clear()
            state.update(content)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.autograd.set_detect_anomaly(anomaly)


def _states_of_accelerate() -> list[Any]:
    """Return what all Accelerators of a process share, so that a recipe's do not meet the owner's."""
    module = sys.modules.get("accelerate.state")
    names = ("PartialState", "AcceleratorState", "GradientState")
    return [] if module is None else [getattr(module, name)._shared_state for name in names]
