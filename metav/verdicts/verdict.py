"""The verdict as a value: the decision, and the error rates that stand behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from metav.errors import InputError
from metav.statistics.intervals import Interval
from metav.support.html_tables import html_table
from metav.support.json_values import plain, readable_json
from metav.support.text import harmless
from metav.suspects.asking_record import AskingRecord
from metav.verdicts.competence import Competence
from metav.verdicts.novelty import Novelty

MOST_NAMES = 10
"""Names of classes that are told."""
LEAST_POWER = 0.3
"""Share of the derived calibration models that must match for NO_MATCH to say anything."""
_NO_TRUTH = "a {} is neither true nor false, being one of three; write {} == metav.Decision.MATCH"


def listed_names(names: Sequence[str]) -> str:
    """Return names of classes in one line, the first MOST_NAMES of them."""
    more = len(names) - MOST_NAMES
    shown = [harmless(name, limit=40) for name in names[:MOST_NAMES]]
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])])


class Decision(StrEnum):
    """The three decisions; a suspect that cannot be judged is INCONCLUSIVE, never NO_MATCH."""

    MATCH = "MATCH"
    NO_MATCH = "NO_MATCH"
    INCONCLUSIVE = "INCONCLUSIVE"

    def __bool__(self) -> bool:
        # every decision would be true, so that `if verdict.decision:` accuses everybody
        raise InputError(_NO_TRUTH.format("decision", "decision"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to the question whether a suspect was derived from the owner's model, and what it rests on.

    decision: match, no match or inconclusive.
    score: in [0, 1], 0.5 and above is a match; None where nothing could be scored.
    p_value: chance of a score at least as high if the suspect was trained independently (conformal); None like the
        score.
    logit, threshold: the same decision before scores are scaled to [0, 1]: a logit from the threshold on is a match.
    target_fpr: false-positive rate that the threshold was made for.
    fpr_interval: share of independent calibration models that match, with its exact 95 % interval.
    tpr_interval: the same of derived calibration models.
    reason, message: code and text of an INCONCLUSIVE decision, else None.
    form: in which the answers came, and what was undone; None where none came.
    access: what is left of a model's answers in that form; threshold, score, p-value and rates are those for it.
    competence: how well the suspect does the task; None where that is not known.
    novelty: how far it lies from the models that calibrated; None where it was not measured.
    queries: how many were asked.
    noise: largest difference between two answers to one query, in standard deviations of the answers; None if not
        measured.
    commitment: of the fingerprint.
    suspect: one line that names the suspect.
    class_names: of the task's classes or labels, in the order of the outputs; empty where they are numbers.
    asking: what was sent, and the head of the log; None where the suspect was asked without options.
    recipe: "told" where the fingerprint knows how the owner's model was trained, "drawn" where it had to guess, None
        where it does not say.
    """

    decision: Decision
    score: float | None
    p_value: float | None
    logit: float | None
    threshold: float
    target_fpr: float
    fpr_interval: Interval
    tpr_interval: Interval
    reason: str | None
    message: str | None
    form: str | None
    access: str | None
    competence: Competence | None
    novelty: Novelty | None
    queries: int
    noise: float | None
    commitment: str
    suspect: str
    class_names: tuple[str, ...] = ()
    asking: AskingRecord | None = None
    recipe: str | None = None

    def __bool__(self) -> bool:
        # every verdict would be true, so that `if verify(...):` accuses everybody
        raise InputError(_NO_TRUTH.format("verdict", "verdict.decision"))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__slots__}
        intervals = {name: values[name].to_dict() for name in ("fpr_interval", "tpr_interval")}
        optional = ("competence", "novelty", "asking")
        parts = {name: None if values[name] is None else values[name].to_dict() for name in optional}
        result: dict[str, Any] = plain(values | intervals | parts | {"decision": self.decision.value})
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" if name else text for name, text in self._lines())

    def _repr_html_(self) -> str:
        (_, head), *lines = self._lines()
        return html_table([head], lines)

    def _lines(self) -> list[tuple[str, str]]:
        lines = [("", f"{self.decision}: {self._conclusion()}"), ("suspect", self.suspect)]
        if self.score is not None and self.p_value is not None:
            lines.append(("score", f"{self.score:.3f} (0.5 and above is a match), p = {self.p_value:.3g}"))
            lines += [("note", text) for text in self._notes(self.p_value)]
        false, true = self.fpr_interval, self.tpr_interval
        lines += [
            (
                "validity",
                f"{false.count} of {false.total} independent models matched in calibration: "
                f"false-positive rate <= {100 * false.high:.1f} %, wanted {100 * self.target_fpr:g} % "
                "(exact 95 % interval)",
            ),
            (
                "power",
                f"{true.count} of {true.total} derived models matched in calibration: "
                f"true-positive rate >= {100 * true.low:.1f} % (exact 95 % interval)",
            ),
        ]
        if self.form is not None:
            lines.append(("form", f"{self.form}; access {self.access}"))
        if self.competence is not None:
            lines.append(("competence", str(self.competence)))
        if self.class_names:
            lines.append(("classes", listed_names(self.class_names)))
        noise = "not measured" if self.noise is None else f"{self.noise:.2g} standard deviations"
        lines.append(("queries", f"{self.queries}, noise {noise}"))
        if self.asking is not None:
            lines.append(("asked", str(self.asking)))
        return [*lines, ("commitment", self.commitment)]

    def _notes(self, p_value: float) -> Iterator[str]:
        """Yield what bounds a decision, and why it and the p-value seem to contradict each other, where they do."""
        if self.decision is Decision.MATCH and self.recipe == "drawn":
            yield (
                "the fingerprint was not told how the owner's model was trained: a model that somebody else trained in "
                "the same unusual way can score as high; a fingerprint made with recipe= rules that out"
            )
        count, wanted = self.fpr_interval.total, f"{100 * self.target_fpr:g} %"
        if self.decision is Decision.NO_MATCH and p_value <= self.target_fpr:
            yield (
                f"p is not above the wanted {wanted}, and yet this is no match: p tells the rank among {count} "
                "independent models alone, and so few may all lie low; the threshold also lies where, by their mean "
                f"and spread, at most {wanted} of all independent models score higher, with 95 % confidence"
            )
        elif self.decision is Decision.MATCH and p_value > self.target_fpr:
            yield (
                f"p is above the wanted {wanted}, and yet this is a match: with {count} independent models p cannot be "
                f"below {1 / (count + 1):.3g}; by their mean and spread, at most {wanted} of all independent models "
                "score as high, with 95 % confidence"
            )
        found = self.tpr_interval
        if self.decision is Decision.NO_MATCH and found.value < LEAST_POWER:
            yield (
                f"no match says little here, as most copies are missed: of {found.total} derived models {found.count} "
                "matched in calibration; a fingerprint made with more surrogates or more queries finds more"
            )

    def _conclusion(self) -> str:
        match self.decision:
            case Decision.MATCH:
                return "the suspect was derived from the owner's model"
            case Decision.NO_MATCH:
                return "no evidence that the suspect was derived from the owner's model"
            case _:
                return f"no decision ({self.reason}): {self.message}"
