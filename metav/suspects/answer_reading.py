"""What a suspect answers, checked and brought to one row of numbers per query: arrays, lists, structures, labels."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.errors import SuspectError
from metav.fingerprints.fingerprint import TaskSpecification
from metav.support.arrays import FloatArray
from metav.support.model_answers import OutputChoice, chosen_part, is_array, listed, parts_of
from metav.verifiers.places import Places

CHOOSE = 'name one with output=, such as output="logits"'
TINY = 1e-6
"""How far a chance may lie outside [0, 1] by the arithmetic of single precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How the numbers of all answers become columns.

    doubled: whether one number stands for two classes.
    whole: what the chances of both add up to; None for log-odds.
    """

    doubled: bool
    whole: float | None

    def responses(self, rows: FloatArray) -> FloatArray:
        """Return answers (..., k) with all columns."""
        if not self.doubled:
            return rows
        return _paired(np.zeros_like(rows) if self.whole is None else np.float32(self.whole) - rows, rows)

    def differences(self, rows: FloatArray) -> FloatArray:
        """Return differences between answers (..., k) with all columns."""
        if not self.doubled:
            return rows
        return _paired(np.zeros_like(rows) if self.whole is None else -rows, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReader:
    """How the answers of a suspect are read.

    outputs: numbers that are read per query.
    labels: whether class numbers may stand for scores.
    places: of a task with a class for each of several places; None for other tasks.
    class_names: by which a suspect may name classes.
    output: which part of an answer counts; None for the one that fits.
    usual_output: name of that part in the owner's answer, which decides where several fit.
    """

    outputs: int
    labels: bool = False
    places: Places | None = None
    class_names: tuple[str, ...] = ()
    output: OutputChoice | None = None
    usual_output: str = ""

    def batch(self, answer: Any, *, rows: int) -> FloatArray:
        """Return an answer to `rows` queries as float32 (rows, outputs), or half as wide (see `columns`).

        answer: a tensor of PyTorch, an array, nested lists of numbers, or a structure that holds one of these.

        Raises SuspectError where the answer cannot be read like this.
        """
        array = self._numbers(answer, rows)
        if array.ndim == 0 or array.shape[0] != rows:
            raise SuspectError(
                "wrong_rows", f"the suspect answered {rows} queries with shape {array.shape}, expected ({rows}, ...)"
            )
        flat = self._plain_rows(array) if self.places is None else self._chosen_places(array, self.places)
        with np.errstate(over="ignore"):
            # a copy: some runtimes write each answer into the same memory
            responses = np.array(flat, dtype=np.float32, order="C")
        bad = int(np.count_nonzero(~np.isfinite(responses)))
        if bad:
            raise SuspectError(
                "not_finite", f"the suspect answered {bad} of {responses.size} numbers with NaN or infinity"
            )
        return responses

    def columns(self, responses: FloatArray) -> Columns:
        """Return what makes `outputs` columns of all answers (N, k), batches put together.

        One number for two classes is the chance of the second, in [0, 1] or percent, or else its log-odds. Which of
        these can be told of all answers together only.

        Raises SuspectError for two numbers that are no labels.
        """
        if responses.shape[1] == self.outputs:
            return Columns(doubled=False, whole=None)
        low, high = float(responses.min()), float(responses.max())
        if len(np.unique(responses)) <= 2 and (responses == np.round(responses)).all() and (low < 0 or high > 1):
            raise SuspectError(
                "wrong_outputs", f"the suspect answers {low:g} or {high:g}, expected class numbers in 0..1, or scores"
            )
        whole = 1.0 if low >= -TINY and high <= 1 + TINY else 100.0 if low >= 0 and high <= 100 else None
        return Columns(doubled=True, whole=whole)

    # One array ------------------------------------------------------------------------------------------------------

    def _numbers(self, answer: Any, rows: int) -> NDArray[Any]:
        if self.output is not None:
            try:
                answer = chosen_part(answer, self.output)
            except (LookupError, AttributeError, TypeError) as error:
                raise SuspectError("wrong_outputs", f"output={self.output!r} does not fit: {error}; {CHOOSE}") from None
        elif not is_array(answer):
            parts = parts_of(answer)
            if parts and not (isinstance(answer, list | tuple) and self._is_one_array(answer, rows)):
                answer = self._part_that_fits(parts, answer, rows)
        array = as_numbers(answer, names=bool(self.class_names) and self.labels)
        return self._named_classes(array) if array.dtype.kind in "UO" else array

    def _is_one_array(self, answer: Any, rows: int) -> bool:
        """Return whether a list holds one array per query, instead of one array per part."""
        if hasattr(answer, "_fields") or len(answer) != rows:
            return False
        try:
            return self._fits(as_numbers(answer), rows)
        except SuspectError:
            return False

    def _part_that_fits(self, parts: Mapping[str, Any], answer: Any, rows: int) -> Any:
        found: dict[str, NDArray[Any]] = {}
        for name, part in parts.items():
            try:
                array = as_numbers(part)
            except SuspectError:
                continue
            known = any(array.shape == other.shape and np.array_equal(array, other) for other in found.values())
            if self._fits(array, rows) and not known:
                found[name] = array
        exact = {name: array for name, array in found.items() if self._fits(array, rows, alone=True)} or found
        if self.usual_output in exact:
            return exact[self.usual_output]
        if len(exact) == 1:
            return next(iter(exact.values()))
        if exact:
            raise SuspectError("wrong_outputs", f"several parts of the answer fit: {listed(exact)}; {CHOOSE}")
        if all(len(part.shape) == 0 or len(part) != rows for part in parts.values()):
            raise SuspectError(
                "wrong_rows", f"the suspect answered {rows} queries with {listed(parts)}, expected {self._expected()}"
            )
        raise SuspectError(
            "wrong_outputs",
            f"the suspect answers {type(answer).__name__} with {listed(parts)}, expected {self._expected()}; it may do "
            "another task, or name the part that counts with output=",
        )

    def _expected(self) -> str:
        if self.places is None:
            return f"(n, {self.outputs})"
        return f"(n, {', '.join(map(str, (self.places.classes, *self.places.shape)))})"

    def _fits(self, array: NDArray[Any], rows: int, *, alone: bool = False) -> bool:
        """Return whether an array has the right number of rows and of numbers; alone: scores, no labels."""
        if array.ndim == 0 or len(array) != rows:
            return False
        numbers = math.prod(array.shape[1:])
        if self.places is None:
            return numbers == self.outputs or (not alone and self.labels and numbers == 1)
        scores = self.places.classes * self.places.count
        resized = array.ndim == 2 + len(self.places.shape) and array.shape[1] == self.places.classes
        return resized or numbers == scores or (not alone and numbers == self.places.count)

    def _named_classes(self, array: NDArray[Any]) -> NDArray[Any]:
        places = {name: place for place, name in enumerate(self.class_names)}
        unknown = next((entry for entry in array.ravel().tolist() if entry not in places), None)
        if unknown is not None:
            known = ", ".join(self.class_names[:8])
            raise SuspectError("wrong_outputs", f"the suspect answers {unknown!r}, expected one of the classes {known}")
        numbers: NDArray[Any] = np.vectorize(places.__getitem__, otypes=[np.int64])(array)
        return numbers

    # Rows -----------------------------------------------------------------------------------------------------------

    def _plain_rows(self, array: NDArray[Any]) -> NDArray[Any]:
        flat = array.reshape(len(array), -1)
        if self.labels and flat.shape[1] == 1 < self.outputs:
            if self.outputs == 2 and array.dtype.kind == "f":
                return flat
            return _one_hot(flat[:, 0], self.outputs)
        if flat.shape[1] != self.outputs:
            raise SuspectError(
                "wrong_outputs",
                f"the suspect answers {flat.shape[1]} numbers per query (shape {array.shape}), expected "
                f"{self.outputs}; it may do another task, or its outputs need selecting: pass a callable that returns "
                "them",
            )
        return flat

    def _chosen_places(self, array: NDArray[Any], places: Places) -> NDArray[Any]:
        """Return what is read of each row: scores (rows, places * classes), or single numbers (rows, places)."""
        scores, shape = self._by_class(array, places)
        if scores is None:
            raise SuspectError(
                "wrong_outputs",
                f"the suspect answers with shape {array.shape}, expected {self._expected()} scores, or "
                f"(n, {', '.join(map(str, places.shape))}) labels or chances; it may do another task",
            )
        corners, weights = places.points(shape)
        if scores.shape[1] > 1 or (places.classes == 2 and scores.dtype.kind == "f"):
            read: NDArray[Any] = (scores[:, :, corners] * weights).sum(axis=2)
            return read.transpose(0, 2, 1).reshape(len(array), -1)
        nearest = np.take_along_axis(corners, weights.argmax(axis=0)[None], axis=0)[0]
        labels = scores[:, 0, nearest]
        return _one_hot(labels.ravel(), places.classes).reshape(len(array), -1)

    @staticmethod
    def _by_class(array: NDArray[Any], places: Places) -> tuple[NDArray[Any] | None, tuple[int, ...]]:
        """Return an answer as (rows, classes or 1, all places), and the shape of its places; None for another one."""
        count, own, axes = len(array), array.shape[1:], len(places.shape)
        if own == (*places.shape, places.classes) != (places.classes, *places.shape):
            array, own = np.moveaxis(array, -1, 1), (places.classes, *places.shape)
        numbers = math.prod(own)
        if len(own) == axes + 1 and own[0] in (1, places.classes):
            return array.reshape(count, own[0], -1), own[1:]
        if numbers == places.classes * places.count:
            return array.reshape(count, places.classes, -1), places.shape
        if numbers == places.count:
            return array.reshape(count, 1, -1), places.shape
        if len(own) == axes > 1:
            return array.reshape(count, 1, -1), own
        return None, own


def reader_for(task: TaskSpecification, output: OutputChoice | None) -> AnswerReader:
    """Return how the answers of a suspect to a fingerprint's queries are read.

    output: which part of its answers counts; None for the one that fits, or has the name of the owner's.
    """
    return AnswerReader(
        outputs=task.outputs,
        labels=task.kind.answers_classes,
        places=task.places,
        class_names=task.class_names if task.places is None else (),
        output=output,
        usual_output=task.output_name,
    )


def as_responses(answer: Any, *, rows: int, outputs: int, labels: bool = False) -> FloatArray:
    """Return the whole answer of a suspect as float32 (rows, outputs).

    answer: a tensor of PyTorch, an array, or nested lists of numbers, of shape (rows, ...).
    rows: number of queries that it answers.
    outputs: numbers expected per query.
    labels: whether (rows,) class numbers will do.

    Raises SuspectError where the answer cannot be read like this.
    """
    reader = AnswerReader(outputs=outputs, labels=labels)
    found = reader.batch(answer, rows=rows)
    return reader.columns(found).responses(found)


def as_numbers(answer: Any, *, names: bool = False) -> NDArray[Any]:
    """Return an answer as one array of real numbers.

    names: whether an array of texts will do.

    Raises SuspectError, "ragged" or "not_numeric", for anything else.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(answer, list | tuple):
        answer = [as_numbers(entry) if isinstance(entry, torch.Tensor) else entry for entry in answer]
    try:
        if torch is not None and isinstance(answer, torch.Tensor):
            from metav.models.staging import HOST, on_device

            answer = on_device(answer.detach(), HOST)
            # NumPy has no bfloat16
            answer = (answer.float() if answer.is_floating_point() else answer).numpy()
        array = np.asarray(answer)
    except ValueError as error:
        raise SuspectError(
            "ragged", f"the suspect's answer is no rectangular array: {error}; return one array"
        ) from error
    except (TypeError, RuntimeError) as error:
        raise SuspectError("not_numeric", f"the suspect's answer is no array of numbers: {error}") from error
    texts = array.dtype.kind == "U" or (
        array.dtype.kind == "O" and array.size > 0 and all(isinstance(entry, str) for entry in array.ravel())
    )
    if array.dtype.kind not in "fiub" and not (names and texts):
        raise SuspectError(
            "not_numeric",
            f"the suspect answered with {type(answer).__name__} of {array.dtype}, expected real numbers; pass a "
            "callable that returns one array",
        )
    return array


def _one_hot(labels: NDArray[Any], outputs: int) -> NDArray[Any]:
    places = np.arange(outputs)
    if not np.isin(labels, places).all():
        raise SuspectError(
            "wrong_outputs", f"the suspect answers one number per query, expected class numbers in 0..{outputs - 1}"
        )
    matrix: NDArray[Any] = labels[:, None] == places
    return matrix


def _paired(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return (..., 2 k) from two arrays (..., k): a number of the first, then its fellow of the second."""
    return np.stack([first, second], axis=-1).reshape(*first.shape[:-1], -1)
