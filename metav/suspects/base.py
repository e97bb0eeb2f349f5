"""What all suspects share: they are asked in batches, their answers are checked, and a few queries are asked twice."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from metav.errors import SuspectError, TransportError
from metav.support.arguments import whole_number
from metav.support.arrays import FloatArray, batch_sizes
from metav.support.files import file_digest
from metav.support.model_interface import PLAIN, ModelInterface
from metav.suspects.answer_reading import AnswerReader

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
    interface: ModelInterface = PLAIN
    """How it is called, and which part of its answer counts."""

    @property
    def identity(self) -> str:
        """Text that changes with what the suspect is, as far as that can be told: a log goes on only for the same."""
        path = getattr(self, "path", None)
        return self.description if path is None else f"{self.description} {file_digest(path)}"

    @final
    def answer(
        self,
        queries: FloatArray,
        *,
        outputs: int,
        batch_size: int = 256,
        labels: bool = False,
        reader: AnswerReader | None = None,
    ) -> Answers:
        """Return the answers to queries (N, ...) float32; the queries are not changed.

        outputs: numbers expected per query.
        batch_size: most queries that are sent at once.
        labels: whether a class number in 0..outputs-1 may stand for its one-hot answer, and for two classes a single
            chance or logit.
        reader: how answers are read, instead of `outputs` and `labels`.

        Raises SuspectError, with a reason code, where the suspect fails or its answer cannot be scored: "failed",
            "not_numeric", "ragged", "wrong_rows", "wrong_outputs", "not_finite".
        """
        whole_number("batch_size", batch_size, least=1)
        if reader is None:
            reader = AnswerReader(outputs=outputs, labels=labels, output=self.interface.output)
        raw = self._answer(queries, batch_size, reader.batch)
        columns = reader.columns(raw.responses)
        differences = None if raw.differences is None else columns.differences(raw.differences)
        return Answers(responses=columns.responses(raw.responses), differences=differences)

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
        answers = [self._checked(batch, check) for batch in _batches(queries, batch_size)]
        if len({answer.shape[1] for answer in answers}) > 1:
            raise SuspectError("ragged", "some batches are answered with labels, others with scores; ask one way")
        return np.concatenate(answers)

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


def _batches(queries: FloatArray, batch_size: int) -> Iterator[FloatArray]:
    """Yield writable copies of the batches: a suspect that changes its input must not change the fingerprint."""
    start = 0
    for size in batch_sizes(len(queries), batch_size):
        yield queries[start : start + size].copy()
        start += size
