"""How a suspect's answers are read before anything is scored: their form, what can be undone, and what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification
from metav.suspects.base import Answers
from metav.tasks.kinds import TaskKind
from metav.verdicts.access import Access, access_of, degrade
from metav.verdicts.orders import find_affine, find_class_order, find_image_form, find_row_order
from metav.verifiers.forms import Form, Numbers, log_probabilities, read_form, undo_form
from metav.verifiers.places import Places

ROWS_REVERSED = "rows came in reverse order"
"""What is said where the first answer is to the last query, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A suspect's answers in the one form that verifiers read.

    rows: (queries, outputs), float64, their form undone; of answers with several places, place by place.
    form: in which they came.
    access: what is left of a model's answers in this form.
    undone: what was undone, in words.
    """

    rows: Numbers
    form: Form
    access: Access
    undone: tuple[str, ...]

    @property
    def tells_noise(self) -> bool:
        """Whether second answers, asked in smaller batches, are to the same queries as the first ones."""
        return ROWS_REVERSED not in self.undone


def read_answers(fp: Fingerprint, answers: Answers) -> Reading:
    """Return a suspect's answers with their form, order and unit undone, as far as the natural queries show these."""
    kind, places = fp.task.kind, fp.task.places
    responses: Numbers = answers.responses.astype(np.float64)
    differences: Numbers | None = None if answers.differences is None else answers.differences.astype(np.float64)
    if places is not None:
        # each place is a classifier's answer of its own
        responses = places.rows(responses)
        differences = None if differences is None else places.rows(differences)
    form = read_form(responses, classes=reads_classes(fp.task))
    rows = undo_form(responses, form, outputs=fp.task.outputs if places is None else places.classes)
    rows, undone = _in_order(fp, rows if places is None else places.joined(rows), kind)
    if ROWS_REVERSED in undone:
        differences = None  # a batch that is reversed as a whole puts other queries side by side
    access = access_of(form, responses=responses, differences=differences)
    if undone and access.reads == "values" and access.decimals is not None:
        access = replace(access, decimals=access.decimals + _digits_between(answers.responses, rows))
    return Reading(rows=rows, form=form, access=access, undone=undone)


def reads_classes(task: TaskSpecification) -> bool:
    """Return whether answers, or each of their places, are a classifier's."""
    return task.kind.answers_classes or task.places is not None


def _digits_between(sent: NDArray[Any], rows: NDArray[Any]) -> int:
    """Return how many more decimals rows keep than answers as they were sent, whose unit is larger or smaller."""
    # in double precision, as squares of large answers are no float32
    before, after = (float(np.std(values, dtype=np.float64)) for values in (sent, rows))
    return math.floor(math.log10(before / after) + 1e-6) if before > 0 and after > 0 else 0


def _in_order(fp: Fingerprint, rows: Numbers, kind: TaskKind) -> tuple[Numbers, tuple[str, ...]]:
    """Return rows and columns in the order of the queries and classes, values in the owner's unit."""
    if kind.inputs_are_latents:
        return _as_images(fp, rows)
    if fp.truth is None:
        return rows, ()
    undone = []
    natural = np.arange(fp.adaptive, len(fp.queries))
    order = find_row_order(rows, fp.truth, natural, kind.name)
    if order is not None:
        rows = rows[order]
        undone.append(ROWS_REVERSED)
    if fp.task.places is not None:
        return rows, tuple(undone)
    if kind.answers_classes:
        columns = find_class_order(rows[natural], fp.truth)
        if columns is not None:
            rows = rows[:, columns]
            undone.append("classes came in another order")
        return rows, tuple(undone)
    unit = find_affine(rows[natural], fp.truth)
    if unit is not None and _is_in_their_unit(fp, natural):
        rows = rows * unit[0] + unit[1]
        undone.append("values came in another unit")
    return rows, tuple(undone)


def _as_images(fp: Fingerprint, rows: Numbers) -> tuple[Numbers, tuple[str, ...]]:
    """Return a generator's rows in the range and layout of the calibration models' images."""
    models, shape = fp.calibration_models, fp.task.output_shape
    if models is None or not shape:
        return rows, ()
    form = find_image_form(rows, models.responses[models.calibrating & ~models.free], shape)
    return (rows, ()) if form is None else (form.undo(rows, shape), (str(form),))


def _is_in_their_unit(fp: Fingerprint, natural: NDArray[np.intp]) -> bool:
    """Return whether the owner's and derived models answer in the true answers' unit, as not every task asks them to.

    A task may count the direction of an answer alone, and a model's own scale is then no unit.
    """
    models, truth = fp.calibration_models, fp.truth
    if models is None or truth is None:
        return True
    own = models.responses[models.derived][:, natural]
    mapped = sum(find_affine(responses, truth) is not None for responses in own)
    return mapped <= len(own) / 2


def seen_through(fp: Fingerprint, access: Access) -> Numbers:
    """Return what the calibration models would have answered through an access, (models, queries, outputs)."""
    models = fp.calibration_models
    if models is None:
        raise ValueError("the fingerprint holds no calibration models")
    places = fp.task.places
    responses = models.responses.astype(np.float64)
    responses = responses if places is None else places.rows(responses)
    seen = degrade(responses, access, classes=reads_classes(fp.task), seed=fp.seed)
    return seen if places is None else places.joined(seen)


def readable(rows: Numbers, access: Access, places: Places | None = None) -> NDArray[np.float32]:
    """Return rows (..., outputs) as verifiers read them: what an access cannot tell counts as little, not as nothing.

    A probability that was rounded to zero, or left out, would otherwise be a logarithm without bound.

    places: of answers that hold a class for each of several, which are read as log-probabilities; None for others.
    """
    if places is not None:
        lifted = _lifted(places.rows(rows), access)
        return np.ascontiguousarray(places.joined(log_probabilities(lifted)), dtype=np.float32)
    return _lifted(rows, access)


def _lifted(rows: Numbers, access: Access) -> NDArray[np.float32]:
    if access.reads not in ("probabilities", "labels"):
        return np.ascontiguousarray(rows, dtype=np.float32)
    outputs = rows.shape[-1]
    floor = 1e-30
    if access.reads == "labels":
        floor = 0.1 / outputs
    elif access.top is not None:
        floor = 0.01 / outputs
    if access.decimals is not None:
        floor = max(floor, 0.5 * 10.0**-access.decimals)
    lifted = np.maximum(rows, floor)
    return np.ascontiguousarray(lifted / lifted.sum(axis=-1, keepdims=True), dtype=np.float32)
