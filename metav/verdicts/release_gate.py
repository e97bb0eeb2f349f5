"""A release before it goes out: recognised as its owner's own, and not taken for anybody else's model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.support.files import PathLike, path_text
from metav.support.html_tables import html_table
from metav.support.json_values import plain, readable_json
from metav.support.text import harmless
from metav.suspects import Suspect, open_suspect
from metav.suspects.asking_options import AskingOptions
from metav.suspects.base import AskedSuspect
from metav.verdicts.verdict import Decision, Verdict
from metav.verdicts.verification import split_options, verify

Other: TypeAlias = Fingerprint | PathLike | tuple[Fingerprint | PathLike, Any]
"""Somebody else's fingerprint, alone or with what answers to its queries."""


class Outcome(StrEnum):
    """How a check, or the whole gate, ended; where nothing can be told it is INCONCLUSIVE, never PASSED."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"

    def __bool__(self) -> bool:
        raise InputError("an outcome is one of three; write outcome == Outcome.PASSED, as `if outcome:` always holds")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """One check of a release.

    fingerprint: names the fingerprint.
    is_owner: whether the release must match it; it must not match any other.
    verdict: what was found.
    seconds: that it took.
    """

    fingerprint: str
    is_owner: bool
    verdict: Verdict
    seconds: float

    @property
    def name(self) -> str:
        """What is checked, in one line."""
        return f"{'recognised as' if self.is_owner else 'not taken for'} the model of {self.fingerprint}"

    @property
    def outcome(self) -> Outcome:
        """Whether the release is what it must be."""
        decision = self.verdict.decision
        if decision is Decision.INCONCLUSIVE:
            return Outcome.INCONCLUSIVE
        return Outcome.PASSED if (decision is Decision.MATCH) is self.is_owner else Outcome.FAILED

    @property
    def finding(self) -> str:
        """What was found, in one line."""
        verdict = self.verdict
        if verdict.score is None or verdict.p_value is None or verdict.message is not None:
            return f"{verdict.decision} ({verdict.reason}): {verdict.message}"
        return f"{verdict.decision}, score {verdict.score:.3f} (0.5 and above is a match), p = {verdict.p_value:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "expected": "MATCH" if self.is_owner else "NO_MATCH",
            "outcome": self.outcome.value,
            "seconds": round(self.seconds, 3),
            "verdict": self.verdict.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseGate:
    """What the checks of a release found.

    release: names the release.
    checks: the owner's first, then one for each fingerprint of somebody else.
    """

    release: str
    checks: tuple[GateCheck, ...]

    def __bool__(self) -> bool:
        raise InputError("a gate ends in one of three ways; write gate.outcome == 'passed', as `if gate:` always holds")

    @property
    def outcome(self) -> Outcome:
        """FAILED if any check failed, else INCONCLUSIVE if any is, else PASSED."""
        found = {check.outcome for check in self.checks}
        return next((worst for worst in (Outcome.FAILED, Outcome.INCONCLUSIVE) if worst in found), Outcome.PASSED)

    @property
    def false_alarms(self) -> float:
        """How often, at most, an honest release is taken for somebody else's: the sum of the others' wanted rates."""
        return min(1.0, sum(check.verdict.target_fpr for check in self.checks if not check.is_owner))

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a plain dictionary, ready for JSON."""
        checks = [check.to_dict() for check in self.checks]
        result: dict[str, Any] = plain(
            {
                "outcome": self.outcome.value,
                "release": self.release,
                "false_alarms": self.false_alarms,
                "checks": checks,
            }
        )
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())

    def __str__(self) -> str:
        width = max(len(outcome.value) for outcome in Outcome)
        rows = [f"{check.outcome.value.ljust(width)}  {check.name}: {check.finding}" for check in self.checks]
        return "\n".join([f"gate {self.outcome.value}: {self.release}", *rows, *self._notes()])

    def _repr_html_(self) -> str:
        rows = [[check.outcome.value, check.name, check.finding] for check in self.checks]
        caption = [f"gate {self.outcome.value}: {self.release}", *self._notes()]
        return html_table(caption, rows, head=["outcome", "check", "finding"])

    def _notes(self) -> Iterator[str]:
        others = len(self.checks) - 1
        if others > 1:
            yield (
                f"up to {100 * self.false_alarms:.3g} % of releases that derive from none of the {others} other models "
                "are taken for one of them by chance (the sum of the false-positive rates of their fingerprints)"
            )


def check_release(
    fp: Fingerprint | PathLike,
    release: Any,
    *,
    against: Sequence[Other] = (),
    asking: AskingOptions | None = None,
    logs: PathLike | None = None,
    **options: Any,
) -> ReleaseGate:
    """Check that a release is recognised as its owner's own, and not as a model of anybody else.

    fp: the owner's fingerprint, or its file.
    release: anything that `verify` takes.
    against: fingerprints of others, or their files. Recorded answers belong to the queries of one fingerprint: for them
        each is a pair of a fingerprint and the answers to its queries.
    asking: how carefully the release is asked, for each fingerprint anew.
    logs: a folder for a query log of each fingerprint.
    options: as for `verify`.

    The gate passes where the owner's check is a MATCH and every other one a NO_MATCH. A check that tells nothing, such
    as one whose fingerprint takes other inputs, leaves it INCONCLUSIVE.

    Raises what `verify` does, and InputError for recorded answers that would stand for several fingerprints, for an
    owner's fingerprint among the others, and for fingerprints given twice.
    """
    of_asking, of_suspect = split_options(release, options)
    chosen = replace(AskingOptions() if asking is None else asking, **of_asking)
    if chosen.log is not None and against and logs is None:
        raise InputError("one log is of one fingerprint's queries; pass logs, a folder, for a log of each")
    if chosen.keep_queries and chosen.log is None and logs is None:
        raise InputError("keep_queries stores queries in the logs; pass logs, a folder, as well")
    own = open_suspect(release, **of_suspect)
    cases = [_Case(*_named(fp), own, is_owner=True), *(_other(entry, own) for entry in against)]
    _check_distinct(cases)
    if logs is not None:
        Path(path_text(logs)).mkdir(parents=True, exist_ok=True)
    return ReleaseGate(
        release=harmless(own.description),
        checks=tuple(_checked(case, _with_log(chosen, logs, case)) for case in cases),
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be checked: a fingerprint, its name, and what answers to its queries."""

    fp: Fingerprint
    name: str
    suspect: Suspect
    is_owner: bool = False


def _named(given: Fingerprint | PathLike) -> tuple[Fingerprint, str]:
    if isinstance(given, Fingerprint):
        return given, f"fingerprint {given.commitment[:12]}"
    return load(given), harmless(path_text(given))


def _other(entry: Other, own: Suspect) -> _Case:
    """Return the case of somebody else's fingerprint."""
    if isinstance(entry, tuple):
        fp, answers = entry
        return _Case(*_named(fp), open_suspect(answers))
    case = _Case(*_named(entry), own)
    if not isinstance(own, AskedSuspect):
        raise InputError(
            f"recorded answers belong to the queries of one fingerprint, and those to {case.name} are missing; export "
            "its queries, record the release's answers, and pass both (on the command line --against "
            "FINGERPRINT=ANSWERS)"
        )
    return case


def _check_distinct(cases: Sequence[_Case]) -> None:
    names: dict[str, str] = {}
    for case in cases:
        if case.fp.commitment in names:
            raise InputError(
                f"{case.name} is the same fingerprint as {names[case.fp.commitment]}; a release cannot match and not "
                "match it: give the owner's once, and each other one once"
            )
        names[case.fp.commitment] = case.name


def _checked(case: _Case, asking: AskingOptions) -> GateCheck:
    start = time.perf_counter()
    verdict = verify(case.fp, case.suspect, asking=asking if isinstance(case.suspect, AskedSuspect) else None)
    seconds = time.perf_counter() - start
    return GateCheck(fingerprint=case.name, is_owner=case.is_owner, verdict=verdict, seconds=seconds)


def _with_log(asking: AskingOptions, logs: PathLike | None, case: _Case) -> AskingOptions:
    if logs is None:
        return asking
    return replace(asking, log=str(Path(path_text(logs)) / f"{case.fp.commitment[:12]}.db"))
