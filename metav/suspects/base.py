"""What all suspects share: they are asked in batches, their answers are checked, and a few queries are asked twice."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from metav.errors import SuspectError, TransportError
from metav.support.arguments import whole_number
from metav.support.arrays import FloatArray, batch_sizes
from metav.support.files import file_digest

Check: TypeAlias = Callable[..., FloatArray]
"""A function (answer, *, rows) that checks an answer to `rows` queries and returns it as responses (rows, K)."""

REPEATED = 8
"""Queries that are asked twice, to measure how much answers vary."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a suspect answered.

    responses: (N, K), float32.
    differences: (r, K), between two answers to the same r queries; None where no query could be asked twice.
    """

    responses: FloatArray
    differences: FloatArray | None

    @property
    def noise(self) -> float | None:
        """Largest difference in units of the responses' standard deviation over queries; None if not measured."""
        if self.differences is None:
            return None
        largest = float(np.abs(self.differences).max(initial=0.0))
        if largest == 0.0:
            return 0.0
        deviation = math.sqrt(float(self.responses.var(axis=0, dtype=np.float64).mean()))
        return largest / deviation if deviation > 0 else math.inf


class Suspect(ABC):
    """A suspect model: a subclass defines how it is asked, this class checks what comes back."""

    description: str
    """One line that names the suspect in a verdict."""

    @property
    def identity(self) -> str:
        """Text that changes with what the suspect is, as far as that can be told: a log goes on only for the same."""
        path = getattr(self, "path", None)
        return self.description if path is None else f"{self.description} {file_digest(path)}"

    @final
    def answer(self, queries: FloatArray, *, outputs: int, batch_size: int = 256, labels: bool = False) -> Answers:
        """Return the answers to queries (N, ...) float32; the queries are not changed.

        outputs: numbers expected per query.
        batch_size: most queries that are sent at once.
        labels: whether a class number in 0..outputs-1 may stand for its one-hot answer.

        Raises SuspectError, with a reason code, where the suspect fails or its answer cannot be scored: "failed",
            "not_numeric", "ragged", "wrong_rows", "wrong_outputs", "not_finite".
        """
        whole_number("batch_size", batch_size, least=1)
        return self._answer(queries, batch_size, partial(as_responses, outputs=outputs, labels=labels))

    @abstractmethod
    def _answer(self, queries: FloatArray, batch_size: int, check: Check) -> Answers:
        """Return the answers to all queries, each passed through check(answer, rows=...)."""


class AskedSuspect(Suspect):
    """A suspect that runs, unlike recorded answers: a subclass answers one batch."""

    runs_in_this_thread: bool = False
    """Whether it must be asked in the thread that entered its session, so that no time limit can end it."""

    def _answer(self, queries: FloatArray, batch_size: int, check: Check) -> Answers:
        with self._session():
            responses = self._all(queries, batch_size, check)
            again = np.unique(np.linspace(0, len(queries) - 1, min(REPEATED, len(queries))).astype(np.intp))
            try:
                repeated = self._all(queries[again], batch_size, check)
            except SuspectError as error:
                if error.reason != "failed" and not isinstance(error, TransportError):
                    raise
                # the answers are complete; only the second asking failed, as it does for models of a fixed batch size
                # and for services that answer a limited number of queries: then the noise stays unmeasured
                return Answers(responses=responses, differences=None)
        with np.errstate(over="ignore"):
            return Answers(responses=responses, differences=repeated - responses[again])

    def _session(self) -> AbstractContextManager[None]:
        """Return a context that is entered while the suspect is asked."""
        return nullcontext()

    @abstractmethod
    def _ask(self, batch: FloatArray) -> Any:
        """Return the suspect's own answer to a batch (n, ...), an array that it may change."""

    def _all(self, queries: FloatArray, batch_size: int, check: Check) -> FloatArray:
        return np.concatenate([self._checked(batch, check) for batch in _batches(queries, batch_size)])

    def _checked(self, batch: FloatArray, check: Check) -> FloatArray:
        shape = batch.shape
        try:
            answer = self._ask(batch)
        except SuspectError:
            raise
        except Exception as error:
            raise SuspectError(
                "failed", f"the suspect failed on queries of shape {shape}: {type(error).__name__}: {error}"
            ) from error
        return check(answer, rows=shape[0])


def as_responses(answer: Any, *, rows: int, outputs: int, labels: bool = False) -> FloatArray:
    """Return an answer as float32 (rows, outputs).

    answer: a tensor of PyTorch, an array, or nested lists of numbers, of shape (rows, ...).
    rows: number of queries that it answers.
    outputs: numbers expected per query.
    labels: whether (rows,) class numbers will do.

    Raises SuspectError where the answer cannot be read like this.
    """
    array = _as_numbers(answer)
    if array.ndim == 0 or array.shape[0] != rows:
        raise SuspectError(
            "wrong_rows", f"the suspect answered {rows} queries with shape {array.shape}, expected ({rows}, ...)"
        )
    flat = array.reshape(rows, -1)
    if labels and flat.shape[1] == 1 < outputs:
        flat = _one_hot(flat[:, 0], outputs)
    if flat.shape[1] != outputs:
        raise SuspectError(
            "wrong_outputs",
            f"the suspect answers {flat.shape[1]} numbers per query (shape {array.shape}), expected {outputs}; it may "
            "do another task, or its outputs need selecting: pass a callable that returns them",
        )
    with np.errstate(over="ignore"):
        # a copy: some runtimes write each answer into the same memory
        responses = np.array(flat, dtype=np.float32, order="C")
    bad = int(np.count_nonzero(~np.isfinite(responses)))
    if bad:
        raise SuspectError("not_finite", f"the suspect answered {bad} of {responses.size} numbers with NaN or infinity")
    return responses


def _one_hot(labels: NDArray[Any], outputs: int) -> NDArray[Any]:
    places = np.arange(outputs)
    if not np.isin(labels, places).all():
        raise SuspectError(
            "wrong_outputs", f"the suspect answers one number per query, expected class numbers in 0..{outputs - 1}"
        )
    matrix: NDArray[Any] = labels[:, None] == places
    return matrix


def _as_numbers(answer: Any) -> NDArray[Any]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(answer, list | tuple):
        answer = [_as_numbers(entry) if isinstance(entry, torch.Tensor) else entry for entry in answer]
    try:
        if torch is not None and isinstance(answer, torch.Tensor):
            answer = answer.detach().cpu()
            # NumPy has no bfloat16
            answer = (answer.float() if answer.is_floating_point() else answer).numpy()
        array = np.asarray(answer)
    except ValueError as error:
        raise SuspectError(
            "ragged", f"the suspect's answer is no rectangular array: {error}; return one array"
        ) from error
    except (TypeError, RuntimeError) as error:
        raise SuspectError("not_numeric", f"the suspect's answer is no array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise SuspectError(
            "not_numeric",
            f"the suspect answered with {type(answer).__name__} of {array.dtype}, expected real numbers; pass a "
            "callable that returns one array",
        )
    return array


def _batches(queries: FloatArray, batch_size: int) -> Iterator[FloatArray]:
    """Yield writable copies of the batches: a suspect that changes its input must not change the fingerprint."""
    start = 0
    for size in batch_sizes(len(queries), batch_size):
        yield queries[start : start + size].copy()
        start += size
