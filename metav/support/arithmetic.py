"""PyTorch's arithmetic, the same whatever threads and precision a program has chosen for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from metav.support.randomness import single_thread
from metav.support.shared_changes import SharedChange
from metav.support.torch_state import without_autocast

Setting = tuple[Callable[[Any], object], Any]
"""A function that sets something, and what it was set to."""

OPERATIONS = ("matmul", "conv", "rnn")
"""Operations of oneDNN whose precision can be lowered one by one, in `torch.backends.mkldnn`."""
FULL = ("ieee", "none")
"""Names of the full precision: asked for, and by default."""


@contextmanager
def fixed_arithmetic() -> Iterator[None]:
    """Run the body with one torch thread, in full precision and without autocast; then all is as it was.

    Sums then have one order, on CUDA as far as cuDNN's deterministic kernels go. What still differs is the machine:
    other processors and versions of PyTorch round otherwise. Precision and kernels are set for the whole process, all
    else for this thread.
    """
    with ExitStack() as stack:
        stack.enter_context(single_thread())
        stack.enter_context(_PRECISION.lasting())
        stack.enter_context(_subnormal_numbers())
        stack.enter_context(without_autocast())
        yield


@contextmanager
def single_threaded_libraries() -> Iterator[None]:
    """Run the body with one thread for NumPy's and scikit-learn's linear algebra and loops, as `single_thread` does.

    Their sums, too, have another order with another number of threads; and the child of a fork, in which OpenMP has
    lost its threads, would wait for them for ever.
    """
    from threadpoolctl import ThreadpoolController

    with _LINEAR_ALGEBRA.lasting(), ThreadpoolController().limit(limits=1, user_api="openmp"):
        yield


def _limit_linear_algebra() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().limit(limits=1, user_api="blas")


def _set_full_precision() -> list[Setting]:
    """Set all that lowers precision or picks another library, and return what it was, in the order of restoring."""
    import torch

    before: list[Setting] = []
    onednn: Any = torch.backends.mkldnn
    if not onednn.enabled:
        before.append((partial(setattr, onednn, "enabled"), False))
        onednn.enabled = True
    try:
        for_all = torch.get_float32_matmul_precision()
    except RuntimeError:  # the program has chosen by operation: see below
        for_all = "highest"
    if for_all != "highest":
        before.append((torch.set_float32_matmul_precision, for_all))
        torch.set_float32_matmul_precision("highest")
    for operation in (getattr(onednn, name) for name in OPERATIONS):
        found = operation.fp32_precision
        if found not in FULL:
            # an operation that follows the precision of all goes on doing so
            own = "none" if found == onednn.fp32_precision else found
            before.append((partial(setattr, operation, "fp32_precision"), own))
            operation.fp32_precision = "ieee"
    return [*before, *_set_cudnn()]


def _set_cudnn() -> list[Setting]:
    """Do the same for cuDNN, which shortens numbers (TF32) by default, and may pick its kernels by the clock."""
    import torch

    before: list[Setting] = []
    cudnn: Any = torch.backends.cudnn
    try:
        shortened = bool(cudnn.allow_tf32)
        back = [(partial(setattr, cudnn, "allow_tf32"), True)]
    except RuntimeError:  # the program has chosen by operation
        shortened = True
        back = [(partial(setattr, part, "fp32_precision"), part.fp32_precision) for part in (cudnn.conv, cudnn.rnn)]
    if shortened:
        before += back
        cudnn.allow_tf32 = False
    for name, wanted in (("benchmark", False), ("deterministic", True)):
        found = getattr(cudnn, name)
        if found != wanted:
            before.append((partial(setattr, cudnn, name), found))
            setattr(cudnn, name, wanted)
    return before


def _restore(settings: list[Setting]) -> None:
    for put, value in settings:
        put(value)


@contextmanager
def _subnormal_numbers() -> Iterator[None]:
    """Run the body with numbers below 1.2e-38 as they are, where the program lets them count as zero."""
    import torch

    flushed = float(torch.full((1,), 2.0**-126) * 0.5) == 0.0
    try:
        if flushed:
            torch.set_flush_denormal(False)
        yield
    finally:
        if flushed:
            torch.set_flush_denormal(True)


_LINEAR_ALGEBRA: SharedChange[Any] = SharedChange(
    _limit_linear_algebra, lambda limits: limits.restore_original_limits()
)
_PRECISION: SharedChange[list[Setting]] = SharedChange(_set_full_precision, _restore)
