"""The fingerprint: queries, meta-verifier and decision rule of one owner's model, as a value and as a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metav.errors import ArtefactError, InputError
from metav.fingerprints.checks import (
    check_members,
    check_shares,
    check_tables,
    check_view,
    check_weights,
    is_trained_anew,
)
from metav.fingerprints.files import FORMAT, FORMAT_VERSION, commitment_of, is_digest, read_file, write_file
from metav.optimization.options import OptimizationOptions
from metav.statistics.calibration import Calibration
from metav.statistics.calibration_models import CalibrationModels
from metav.support.arguments import seed_number, whole_number
from metav.support.arrays import FloatArray
from metav.support.files import PathLike, path_text
from metav.support.html_tables import html_table
from metav.support.json_values import plain, readable_json
from metav.support.locks import ForkSafeLock
from metav.tasks.kinds import TaskKind, kind_of
from metav.verifiers.meta_verifier import MetaVerifier, restore_meta_verifier
from metav.verifiers.places import Places
from metav.verifiers.views import view_of

_INFORMATION = ("zoo", "options", "history", "versions")
_SINCE_VERSION_2 = ("calibration_models", "check")
_WHERE_NEEDED = ("class_names", "output_name", "places")
"""Entries of a task that a file holds only where they say something."""
_MEMBER_NUMBERS = ("weight", "center", "spread")
_RULE_NUMBERS = ("threshold", "slope", "target_fpr")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpecification:
    """What a suspect must be able to do, and how its answers are read.

    name: kind of the task.
    view: how answers are read (`metav.verifiers.views`).
    input_shape: of one input.
    outputs: numbers that a suspect answers per query.
    levels: number of values that an input feature can take; None for continuous ones.
    metric_name: what the task's metric measures.
    higher_is_better: whether a higher metric is better.
    output_shape: of one answer before it is flattened, such as (channels, rows, columns) of a generator's images;
        empty where it is not known.
    class_names: of a classifier's classes, in order; empty where they are numbers.
    output_name: which part of the owner's answer counted; empty where it was one tensor.
    places: those that are read of answers that hold a class for each of several; None for other tasks.

    Raises InputError for other types, numbers below 1, or a shape that does not hold the outputs.
    """

    name: str
    view: str
    input_shape: tuple[int, ...]
    outputs: int
    levels: int | None
    metric_name: str
    higher_is_better: bool
    output_shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    output_name: str = ""
    places: Places | None = None

    def __post_init__(self) -> None:
        texts = (self.name, self.view, self.metric_name)
        numbers = (self.outputs, *self.input_shape, *(() if self.levels is None else (self.levels,)))
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.higher_is_better, bool):
            raise InputError(f"a task specification needs name, view and metric_name as texts, got {texts}")
        if not all(type(number) is int and number > 0 for number in (*numbers, *self.output_shape)):
            raise InputError(f"outputs, shapes and levels must be whole numbers from 1, got {numbers}")
        if self.output_shape and math.prod(self.output_shape) != self.outputs:
            raise InputError(f"output_shape must hold {self.outputs} numbers, got {self.output_shape}")
        names = self.class_names
        if not all(isinstance(name, str) for name in (*names, self.output_name)) or len(set(names)) != len(names):
            raise InputError(f"class_names must be different texts, got {names}")
        if self.kind.answers_classes and names and len(names) != self.outputs:
            raise InputError(f"class_names must name {self.outputs} classes, got {len(names)}")
        if self.places is not None and not self.kind.answers_places:
            raise InputError(f"a {self.name} task has no places; leave them out")
        if self.places is not None and self.places.outputs != self.outputs:
            raise InputError(f"places must hold {self.outputs} numbers, got {self.places.outputs}")
        view_of(self.view)

    @property
    def kind(self) -> TaskKind:
        """The kind of the task, with what verifying needs to know of it."""
        return kind_of(self.name, has_places=self.places is not None)

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Shape of one answer as a suspect gives it, of which a verifier may read only a part."""
        if self.places is None:
            return (self.outputs,)
        return self.places.shape if self.kind.answers_odds else (self.places.classes, *self.places.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fingerprint:
    """All that verifying needs, and nothing of the owner's model or data but the natural queries.

    task: what a suspect must be able to do.
    queries: (N, *input_shape) float32.
    adaptive: how many of the queries, the first ones, were made for the owner's model: optimised, or chosen because
        models dispute their answer.
    lower, upper: bounds of an input, (*input_shape) float32.
    meta_verifier: gives logits to answers.
    calibration: the decision rule on these logits.
    zoo, options, history, versions: what it was made from and with, plain values.
    calibration_models: what the models of the zoo answered; None in a fingerprint of format version 1.
    truth: true answers of the natural queries, (n,) classes or (n, outputs) values; None where they are not known.
    check: what `metav.fingerprint` found when it tried the fingerprint on itself, plain values.
    format_version: of the file that it comes from.
    accesses: what verdicts have worked out for forms of answers so far; no part of the fingerprint.
    lock: held while `accesses` is added to, since users may verify in threads.
    seed: that it was made with.
    salt: 64 hexadecimal digits that keep the commitment from being guessed.

    Raises InputError where the parts do not fit each other.
    """

    task: TaskSpecification
    queries: FloatArray
    adaptive: int
    lower: FloatArray
    upper: FloatArray
    meta_verifier: MetaVerifier
    calibration: Calibration
    zoo: Mapping[str, Any]
    options: Mapping[str, Any]
    history: Mapping[str, Any]
    versions: Mapping[str, Any]
    seed: int
    salt: str
    calibration_models: CalibrationModels | None = None
    truth: NDArray[Any] | None = None
    check: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    accesses: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    lock: ForkSafeLock = field(default_factory=ForkSafeLock, init=False, repr=False)
    _commitments: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("queries", "lower", "upper"):
            object.__setattr__(self, name, _constant(name, getattr(self, name), np.float32))
        tables = {name: plain(getattr(self, name)) for name in (*_INFORMATION, "check")}
        check_tables(**tables)
        for name, table in tables.items():
            object.__setattr__(self, name, table)
        _check_inputs(self)
        check_view(self.task.view, self.task.outputs)
        check_members(self.meta_verifier, len(self.queries), self.task.outputs)
        object.__setattr__(self, "calibration", _checked_calibration(self.calibration))
        _check_calibration_models(self)
        object.__setattr__(self, "seed", seed_number(self.seed))
        if not is_digest(self.salt):
            raise InputError(f"salt must be 64 hexadecimal digits, got {self.salt!r}; use derive_salt")

    @property
    def commitment(self) -> str:
        """Hexadecimal SHA-256 over salt and content: publish it now, show the fingerprint later."""
        if not self._commitments:  # worked out once: every verdict states it
            self._commitments.append(commitment_of(self.salt, self._document(), self._tensors()))
        return self._commitments[0]

    def logits(self, responses: ArrayLike) -> NDArray[np.float64]:
        """Return the logits (models,) of raw responses (models, N, outputs).

        Raises InputError on another shape, NaN, infinity, or answers so large that their logits overflow.
        """
        with np.errstate(over="ignore"):
            given = np.ascontiguousarray(responses, dtype=np.float32)
        expected = (len(self.queries), self.task.outputs)
        if given.ndim != 3 or given.shape[1:] != expected or not len(given):
            raise InputError(
                f"responses must have shape (models, {expected[0]}, {expected[1]}) of at least one model, "
                f"got {given.shape}"
            )
        if not np.isfinite(given).all():
            raise InputError("responses must be finite, got NaN or infinity; check the suspect's answers")
        try:
            logits = self.meta_verifier.logits(given)
        except OverflowError as error:  # the answers are finite, their logits are not
            raise InputError("responses are so large that they have no finite score; check their unit") from error
        return logits

    def calibration_logits(self, responses: ArrayLike) -> NDArray[np.float64]:
        """Return the logits (models,) of the models that are judged, each by the members that did not train on it.

        responses: theirs, (models, N, outputs), in the order of `calibration_models`.

        Raises InputError as `logits` does, and for a fingerprint without calibration models.
        """
        models = self.calibration_models
        if models is None:
            raise InputError("a fingerprint of format version 1 holds no calibration models; make it again")
        given = np.ascontiguousarray(responses, dtype=np.float32)
        found = np.empty(len(given), dtype=np.float64)
        parts = models.parts[models.judged]
        for part in np.unique(parts):
            own = parts == part
            found[own] = self.meta_verifier.logits_of_part(np.ascontiguousarray(given[own]), int(part))
        return found

    def scores(self, responses: ArrayLike) -> NDArray[np.float64]:
        """Return the scores (models,) in [0, 1] of raw responses (models, N, outputs): 0.5 and above means "derived".

        Raises InputError as `logits` does.
        """
        return self.calibration.score(self.logits(responses))

    def save(self, path: PathLike) -> None:
        """Write the fingerprint to one file, at once or not at all; the same content gives the same bytes.

        Keep the file secret: whoever knows the queries can evade them.

        Raises ArtefactError if it cannot be written.
        """
        document = self._document() | {"salt": self.salt, "commitment": self.commitment}
        write_file(path, document, self._tensors())

    def to_dict(self) -> dict[str, Any]:
        """Return everything but queries, weights and salt as a plain dictionary, ready for JSON."""
        intervals = {
            "false_positives": self.calibration.false_positives.to_dict(),
            "true_positives": self.calibration.true_positives.to_dict(),
            "negatives": self.calibration.negatives,
            "positives": self.calibration.positives,
        }
        document: dict[str, Any] = plain(self._document())
        document["calibration"] |= plain(intervals)
        return document | {"queries": len(self.queries), "commitment": self.commitment}

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())

    def __reduce__(self) -> tuple[Any, ...]:
        # for copies and other processes; a file never holds a pickle
        return _restored, (self._document() | {"salt": self.salt}, self._tensors())

    def __repr__(self) -> str:
        return (
            f"Fingerprint({self.task.name}, {len(self.queries)} queries of shape {self.task.input_shape}, "
            f"{self.adaptive} of them adaptive, verifier {self.meta_verifier.summary}, "
            f"commitment {self.commitment[:12]}...)"
        )

    def _repr_html_(self) -> str:
        rows = {
            "task": f"{self.task.name}, view {self.task.view}",
            "queries": f"{len(self.queries)} of shape {self.task.input_shape}, {self.adaptive} adaptive",
            "verifier": self.meta_verifier.summary,
            "false-positive rate": str(self.calibration.false_positives),
            "true-positive rate": str(self.calibration.true_positives),
            "commitment": self.commitment,
        }
        return html_table(["Fingerprint"], rows.items())

    def _document(self) -> dict[str, Any]:
        rule = self.calibration
        return {
            "format": FORMAT,
            "format_version": self.format_version,
            "task": self._task_document(),
            "adaptive": self.adaptive,
            "verifier": [self._without_news(entry) for entry in self.meta_verifier.specification()],
            "calibration": _with_floats({name: getattr(rule, name) for name in _RULE_NUMBERS}, _RULE_NUMBERS),
            "seed": self.seed,
            **{name: getattr(self, name) for name in _INFORMATION},
            **self._news(),
        }

    def _task_document(self) -> dict[str, Any]:
        values: dict[str, Any] = plain(asdict(self.task))
        left_out = {"output_shape"} if self.format_version == 1 else set()
        left_out |= {key for key in _WHERE_NEEDED if not values[key]}
        return {key: value for key, value in values.items() if key not in left_out}

    def _news(self) -> dict[str, Any]:
        """Return the entries of a document that format version 1 lacks."""
        if self.format_version == 1:
            return {}
        models = self.calibration_models
        return {"calibration_models": None if models is None else models.document(), "check": self.check}

    def _without_news(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return what describes a member in a document of this format version."""
        kept = _with_floats(entry, _MEMBER_NUMBERS)
        return {name: value for name, value in kept.items() if self.format_version > 1 or name != "part"}

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return {
            "queries": self.queries,
            "lower": self.lower,
            "upper": self.upper,
            "calibration.negatives": self.calibration.negatives,
            "calibration.positives": self.calibration.positives,
            **({} if self.truth is None else {"queries.truth": self.truth}),
            **({} if self.calibration_models is None else {"calibration.responses": self.calibration_models.responses}),
            **self.meta_verifier.tensors(),
        }


def derive_salt(seed: int, owner_digest: str) -> str:
    """Return the salt of a commitment: the same for the same seed and owner, unknown to whoever lacks the weights.

    owner_digest: the digest of the owner's model (`metav.models.identity.state_digest`).
    """
    return hashlib.sha256(f"metav salt|{int(seed)}|{owner_digest}".encode()).hexdigest()


def load(path: PathLike) -> Fingerprint:
    """Return the fingerprint in a file; needs no PyTorch, and runs nothing that the file holds.

    path: of a .metav file.

    Raises ArtefactError on a file that is missing, truncated, altered, too large, of an unknown version, or whose parts
    do not fit each other.
    """
    path = path_text(path)
    document, tensors = read_file(path)
    expected = {"format", "format_version", "task", "adaptive", "verifier", "calibration", "seed", "salt", "commitment"}
    expected |= set(_INFORMATION)
    expected |= set(_SINCE_VERSION_2) if document["format_version"] > 1 else set()
    if set(document) != expected:
        names = ", ".join(sorted(set(document) ^ expected))
        raise ArtefactError(f"{path} has unknown or missing entries: {names}; upgrade metav, or save it again")
    try:
        fp = _restored(document, tensors)
        _check_that_it_works(fp, document["commitment"])
        return fp
    # a well-formed file with a valid commitment whose parts make no sense together
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError, RecursionError) as error:
        raise ArtefactError(
            f"{path} holds parts that do not fit each other ({_told(error)}); get an intact copy, or make "
            "the fingerprint again"
        ) from error


def _check_that_it_works(fp: Fingerprint, stated: str) -> None:
    """Raise ValueError for a fingerprint that is not the one that its file states, or whose logits are not finite."""
    if fp.commitment != stated:
        raise InputError("some values are of another kind than metav writes, so that its commitment would change")
    models = fp.calibration_models
    if models is not None and is_trained_anew(models):
        repeats = OptimizationOptions.from_dict(fp.options).repeats
        if models.parts.max() >= repeats:
            raise InputError(f"a model has the part {models.parts.max()}, of {repeats} repetitions numbered from 0")
    if models is not None and not np.isfinite(fp.calibration_logits(models.responses[models.judged])).all():
        raise InputError("the calibration models have logits that are not finite")


def _restored(document: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Fingerprint:
    own = ("queries", "lower", "upper", "calibration.negatives", "calibration.positives")
    for name in own:
        wanted = np.float64 if name in ("calibration.negatives", "calibration.positives") else np.float32
        if name not in tensors or tensors[name].dtype != wanted:
            raise InputError(f"tensor {name} must be there as {np.dtype(wanted)}")
    optional = ("queries.truth", "calibration.responses")
    weights = {name: array for name, array in tensors.items() if name not in (*own, *optional)}
    check_weights(document["verifier"], weights, document["task"]["outputs"], len(tensors["queries"]))
    if document["format_version"] > 1 and any(type(member.get("part")) is not int for member in document["verifier"]):
        raise InputError("each member of the verifier needs its part, a whole number")
    task = document["task"]
    return Fingerprint(
        task=_restored_task(task, document["format_version"]),
        queries=tensors["queries"],
        adaptive=document["adaptive"],
        lower=tensors["lower"],
        upper=tensors["upper"],
        meta_verifier=restore_meta_verifier(document["verifier"], weights),
        calibration=Calibration(
            **document["calibration"],
            negatives=tensors["calibration.negatives"],
            positives=tensors["calibration.positives"],
        ),
        seed=document["seed"],
        salt=document["salt"],
        calibration_models=_restored_models(document.get("calibration_models"), tensors),
        truth=tensors.get("queries.truth"),
        check=document.get("check", {}),
        format_version=document["format_version"],
        **{name: document[name] for name in _INFORMATION},
    )


def _restored_task(task: Mapping[str, Any], version: int) -> TaskSpecification:
    needed = {field.name for field in fields(TaskSpecification)} - set(_WHERE_NEEDED)
    needed -= {"output_shape"} if version == 1 else set()
    allowed = needed | (set(_WHERE_NEEDED) if version > 1 else set())
    if not needed <= set(task) <= allowed:
        raise InputError(f"task has the entries {sorted(task)}")
    entries = {**task, **{key: tuple(task.get(key, ())) for key in ("input_shape", "output_shape", "class_names")}}
    places = task.get("places")
    if not isinstance(task.get("class_names", []), list) or not isinstance(places, dict | None):
        raise InputError("class_names must be a list, and places a table")
    if places is not None:
        if set(places) != {field.name for field in fields(Places)}:
            raise InputError(f"places has the entries {sorted(places)}")
        shape, chosen = tuple(places["shape"]), tuple(places["chosen"])
        entries["places"] = Places(classes=places["classes"], shape=shape, chosen=chosen)
    return TaskSpecification(**entries)


def _restored_models(entry: Any, tensors: Mapping[str, NDArray[Any]]) -> CalibrationModels | None:
    if (entry is None) is not ("calibration.responses" not in tensors):
        raise InputError("calibration models need their responses, and the responses what they are of")
    if entry is None:
        return None
    if (
        set(entry) != {"derived", "free", "finished", "families", "parts", "shares"}
        or tensors["calibration.responses"].dtype != np.float32
    ):
        raise InputError(f"calibration_models has the entries {sorted(entry)}, its responses must be float32")
    for name, wanted in (("derived", bool), ("free", bool), ("finished", bool), ("parts", int)):
        # a fraction or a text would load as something else than the file says
        if any(type(value) is not wanted for value in entry[name]):
            raise InputError(f"{name} of the calibration models must all be {wanted.__name__}")
    return CalibrationModels(
        responses=tensors["calibration.responses"],
        derived=np.array(entry["derived"], dtype=np.bool_),
        free=np.array(entry["free"], dtype=np.bool_),
        finished=np.array(entry["finished"], dtype=np.bool_),
        families=tuple(entry["families"]),
        parts=np.array(entry["parts"], dtype=np.int64),
        shares=tuple(entry["shares"]),
    )


def _with_floats(entry: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    # 1 and 1.0 are the same number, but two texts; a loaded fingerprint must be saved with the same text
    return {**entry, **{name: float(entry[name]) for name in names}}


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _constant(name: str, values: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a read-only copy in C order."""
    array = np.array(values, dtype=dtype, order="C")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    array.setflags(write=False)
    return array


def _check_inputs(fp: Fingerprint) -> None:
    shape = fp.task.input_shape
    if fp.queries.ndim == 0 or fp.queries.shape[1:] != shape or len(fp.queries) == 0:
        raise InputError(f"queries must have shape (N, {', '.join(map(str, shape))}), N >= 1, got {fp.queries.shape}")
    for name, bound in (("lower", fp.lower), ("upper", fp.upper)):
        if bound.shape != shape:
            raise InputError(f"{name} must have the input's shape {shape}, got {bound.shape}")
    if (fp.lower > fp.upper).any():
        raise InputError("lower must not exceed upper in any feature; swap them")
    object.__setattr__(fp, "adaptive", whole_number("adaptive", fp.adaptive, least=0, most=len(fp.queries)))


def _checked_calibration(rule: Calibration) -> Calibration:
    numbers = [getattr(rule, name) for name in _RULE_NUMBERS]
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        raise InputError(f"threshold, slope and target_fpr must be finite numbers, got {numbers}")
    if rule.slope <= 0 or not 0 < rule.target_fpr < 1:
        raise InputError(f"slope must be above 0 and target_fpr in (0, 1), got {rule.slope} and {rule.target_fpr}")
    logits = {name: _constant(name, getattr(rule, name), np.float64) for name in ("negatives", "positives")}
    for name, values in logits.items():
        if values.ndim != 1 or values.size == 0 or (np.diff(values) < 0).any():
            raise InputError(f"calibration {name} must be a non-empty sorted list of logits, got shape {values.shape}")
    return replace(rule, negatives=logits["negatives"], positives=logits["positives"])


def _check_calibration_models(fp: Fingerprint) -> None:
    """Refuse calibration models and true answers that do not fit the queries and the members."""
    models, natural = fp.calibration_models, len(fp.queries) - fp.adaptive
    if models is not None:
        expected = (len(fp.queries), fp.task.outputs)
        if models.responses.shape[1:] != expected:
            raise InputError(f"calibration responses must have shape (models, {expected[0]}, {expected[1]})")
        if not set(models.parts[models.judged].tolist()) <= {member.part for member in fp.meta_verifier.members}:
            raise InputError("each part of the calibration models needs members of that part")
        if not models.independent.any() or not (models.calibrating & models.derived).any():
            raise InputError("calibration models must hold derived and independent ones, or no verdict can be given")
        check_shares(models)
    if fp.truth is not None:
        kind = fp.truth.dtype.kind
        if len(fp.truth) != natural or kind not in "if" or not np.isfinite(fp.truth).all():
            raise InputError(f"truth must hold {natural} finite answers, got {fp.truth.shape} of {fp.truth.dtype}")
        _check_truth(fp.truth, fp.task)
        object.__setattr__(fp, "truth", _frozen(fp.truth))


def _check_truth(truth: NDArray[Any], task: TaskSpecification) -> None:
    if task.places is not None:
        wanted = (len(truth), len(task.places.chosen))
        if truth.shape != wanted or truth.dtype.kind != "i" or truth.min() < 0 or truth.max() >= task.places.classes:
            raise InputError(f"truth must hold classes of {wanted[1]} places per query, got shape {truth.shape}")
    elif task.kind.answers_classes:
        if truth.ndim != 1 or truth.dtype.kind != "i" or truth.min() < 0 or truth.max() >= task.outputs:
            raise InputError(f"truth must hold classes from 0 to {task.outputs - 1}, got shape {truth.shape}")
    elif truth.reshape(len(truth), -1).shape[1] != task.outputs:
        raise InputError(f"truth must hold {task.outputs} values per query, got shape {truth.shape}")


def _frozen(values: NDArray[Any]) -> NDArray[Any]:
    array = np.array(values, order="C")
    array.setflags(write=False)
    return array
