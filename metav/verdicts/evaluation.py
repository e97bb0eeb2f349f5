"""Error rates of a fingerprint on suspects whose origin is known: TPR, TNR, AUC, ARUC, per family."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.statistics.intervals import Interval, exact_interval
from metav.statistics.roc_aruc import aruc, roc_auc
from metav.support.files import PathLike
from metav.support.html_tables import html_table
from metav.support.json_values import plain, readable_json
from metav.support.model_answers import OutputChoice
from metav.support.progress import progress_bar
from metav.verdicts.verdict import Decision, Verdict
from metav.verdicts.verification import verify

_Entry: TypeAlias = tuple[Any, bool, str]
"""One suspect: (model, is_positive, family)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectResult:
    """One suspect: what it is, and how it was judged.

    family: name of its family.
    is_positive: whether it derives from the owner's model.
    decision: of its verdict.
    score: in [0, 1], 0.5 and above is a match; None where it gave no answer that can be scored.
    p_value, logit: of its verdict; None like the score.
    reason: code of an INCONCLUSIVE decision, else None.
    """

    family: str
    is_positive: bool
    decision: Decision
    score: float | None
    p_value: float | None
    logit: float | None
    reason: str | None

    @property
    def decided(self) -> bool:
        """Whether the suspect was judged a match or no match."""
        return self.decision is not Decision.INCONCLUSIVE

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        result: dict[str, Any] = plain(values | {"decision": self.decision.value})
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyResult:
    """The suspects of one family.

    is_positive: whether they derive from the owner's model.
    n: how many of them were judged a match or no match.
    inconclusive: how many more got no decision (INCONCLUSIVE), so that they count in nothing else here.
    rate: share judged rightly, the TPR of a derived family and the TNR of an independent one.
    mean_score, lowest_score, highest_score: of those judged; NaN if there are none.
    """

    is_positive: bool
    n: int
    inconclusive: int
    rate: Interval
    mean_score: float
    lowest_score: float
    highest_score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        result: dict[str, Any] = plain(values | {"rate": self.rate.to_dict()})
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The results of all suspects, and what follows from them.

    results: in the order in which the suspects came.
    queries: number of queries of the fingerprint.
    commitment: of the fingerprint.

    A suspect whose verdict is INCONCLUSIVE, because it failed or its answers could not be judged, is counted in the
        property `inconclusive` and left out of every rate and curve: it shows neither that the fingerprint is right nor
        that it is wrong.
    """

    results: tuple[SuspectResult, ...]
    queries: int
    commitment: str

    @property
    def tpr(self) -> Interval:
        """Share of derived suspects judged a match, with its exact 95 % interval."""
        return self._matched(True)

    @property
    def fpr(self) -> Interval:
        """Share of independent suspects judged a match, with its exact 95 % interval."""
        return self._matched(False)

    @property
    def tnr(self) -> Interval:
        """Share of independent suspects judged no match, with its exact 95 % interval."""
        return exact_interval(self.fpr.total - self.fpr.count, self.fpr.total)

    @property
    def inconclusive(self) -> int:
        """Number of suspects without a decision, neither match nor no match."""
        return sum(not result.decided for result in self.results)

    @property
    def auc(self) -> float:
        """Area under the ROC curve of the logits (no ties by saturation); NaN if a class has no judged suspect."""
        high, low = self._values("logit")
        return roc_auc(high, low) if high and low else math.nan

    @property
    def aruc(self) -> float:
        """Integral of min(robustness, uniqueness) over all thresholds; NaN if a class has no judged suspect."""
        high, low = self._values("score")
        return aruc(high, low) if high and low else math.nan

    @property
    def by_family(self) -> Mapping[str, FamilyResult]:
        """Results per family, in the order in which the families came."""
        families: dict[str, list[SuspectResult]] = {}
        for result in self.results:
            families.setdefault(result.family, []).append(result)
        return {family: _family_result(results) for family, results in families.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return all results and rates as a plain dictionary, ready for JSON."""
        result: dict[str, Any] = plain(
            {
                "tpr": self.tpr.to_dict(),
                "tnr": self.tnr.to_dict(),
                "fpr": self.fpr.to_dict(),
                "auc": self.auc,
                "aruc": self.aruc,
                "inconclusive": self.inconclusive,
                "queries": self.queries,
                "commitment": self.commitment,
                "by_family": {name: family.to_dict() for name, family in self.by_family.items()},
                "suspects": [entry.to_dict() for entry in self.results],
            }
        )
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())

    def __str__(self) -> str:
        rows = [_HEAD, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, "", *self._summary()])

    def _repr_html_(self) -> str:
        return html_table(self._summary(), self._rows(), head=_HEAD)

    def _matched(self, is_positive: bool) -> Interval:
        judged = [result for result in self.results if result.is_positive is is_positive and result.decided]
        return exact_interval(sum(result.decision is Decision.MATCH for result in judged), len(judged))

    def _values(self, name: str) -> tuple[list[float], list[float]]:
        judged = [result for result in self.results if result.decided]
        return (
            [getattr(result, name) for result in judged if result.is_positive],
            [getattr(result, name) for result in judged if not result.is_positive],
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name, family in self.by_family.items():
            judged = family.n > 0
            yield (
                name,
                "derived" if family.is_positive else "independent",
                f"{family.rate.count}/{family.n}",
                f"{family.rate.value:.0%} ({family.rate.low:.0%}-{family.rate.high:.0%})" if judged else "-",
                f"{family.mean_score:.3f} ({family.lowest_score:.3f}-{family.highest_score:.3f})" if judged else "-",
                str(family.inconclusive),
            )

    def _summary(self) -> list[str]:
        curves = "no AUC of one class alone" if math.isnan(self.auc) else f"AUC {self.auc:.3f}, ARUC {self.aruc:.3f}"
        return [
            f"true-positive rate {self.tpr}",
            f"true-negative rate {self.tnr}",
            f"{curves}, {self.queries} queries, {self.inconclusive} inconclusive",
        ]


_HEAD = ("family", "kind", "right", "rate (95 % interval)", "score (range)", "inconclusive")


def evaluate(
    fp: Fingerprint | PathLike,
    suspects: Iterable[Any],
    *,
    batch_size: int = 256,
    output: OutputChoice | None = None,
    input: str | None = None,
    constants: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Verify every suspect once and sum up.

    fp: a fingerprint or its file.
    suspects: a Zoo, or an iterable of (model, is_positive, family), where model is anything that `verify` takes. A
        generator is read one entry at a time, so that models need not be in memory together.
    batch_size: most queries that a suspect is sent at once.
    output, input, constants: as for `verify`, of all suspects; those of a Zoo need none.
    progress: None shows a bar on a terminal, False never, True always.

    Suspects of one class alone will do, such as honest models whose accusations are counted: rates of the other, AUC
    and ARUC are then not known.

    Raises InputError on entries of another form, or without any suspect.
    """
    if isinstance(suspects, str | bytes) or not isinstance(suspects, Iterable):
        raise InputError(
            f"suspects must be a Zoo or an iterable of (model, is_positive, family), got {type(suspects).__name__}"
        )
    fingerprint = fp if isinstance(fp, Fingerprint) else load(fp)
    entries: Iterable[_Entry] = _unpacked(suspects)
    total = 0
    if isinstance(suspects, Collection):
        # unlike a generator, a collection can be read twice: check all entries before the first suspect is asked
        entries, total = list(entries), len(suspects)
    results, given = [], {"output": output, "input": input, "constants": constants}
    how: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with progress_bar(total=total, description="evaluate", enabled=progress) as bar:
        for number, (model, is_positive, family) in enumerate(entries):
            try:
                verdict = verify(fingerprint, model, batch_size=batch_size, **how)
            except InputError as error:
                raise InputError(f"suspect number {number} of family {family!r}: {error}") from error
            results.append(_result(is_positive, family, verdict))
            bar.update(1)
    if not results:
        raise InputError("suspects are empty; give at least one (model, is_positive, family)")
    return Evaluation(results=tuple(results), queries=len(fingerprint.queries), commitment=fingerprint.commitment)


def _unpacked(suspects: Iterable[Any]) -> Iterator[_Entry]:
    kinds: dict[str, bool] = {}
    for number, entry in enumerate(suspects):
        yield _checked_entry(number, entry, kinds)


def _checked_entry(number: int, entry: Any, kinds: dict[str, bool]) -> _Entry:
    try:
        model, is_positive, family = entry
    except (TypeError, ValueError) as error:
        raise InputError(
            f"suspect number {number} is a {type(entry).__name__}, expected (model, is_positive, family)"
        ) from error
    if not isinstance(is_positive, bool | np.bool_):
        raise InputError(f"is_positive of suspect number {number} must be True or False, got {is_positive!r}")
    if not isinstance(family, str) or not family:
        raise InputError(f"family of suspect number {number} must be a non-empty text, got {family!r}")
    if kinds.setdefault(family, bool(is_positive)) != bool(is_positive):
        raise InputError(f"family {family!r} has derived and independent suspects; give them two names")
    return model, bool(is_positive), family


def _result(is_positive: bool, family: str, verdict: Verdict) -> SuspectResult:
    return SuspectResult(
        family=family,
        is_positive=is_positive,
        decision=verdict.decision,
        score=verdict.score,
        p_value=verdict.p_value,
        logit=verdict.logit,
        reason=verdict.reason,
    )


def _family_result(results: list[SuspectResult]) -> FamilyResult:
    is_positive = results[0].is_positive
    right = Decision.MATCH if is_positive else Decision.NO_MATCH
    judged = [result for result in results if result.decided]
    scores = [result.score for result in judged if result.score is not None]
    return FamilyResult(
        is_positive=is_positive,
        n=len(judged),
        inconclusive=len(results) - len(judged),
        rate=exact_interval(sum(result.decision is right for result in judged), len(judged)),
        mean_score=math.fsum(scores) / len(scores) if scores else math.nan,
        lowest_score=min(scores, default=math.nan),
        highest_score=max(scores, default=math.nan),
    )


def _aligned(row: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    for cell, width in zip(row, widths, strict=True):
        yield cell.ljust(width)
