"""What a run would send, and what it would cost, before anything is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from metav.fingerprints.fingerprint import Fingerprint
from metav.support.files import path_text
from metav.support.json_values import plain
from metav.support.text import byte_size, duration
from metav.suspects.asking import affordable_or_raise, check_same_run, settled
from metav.suspects.asking_options import AskingOptions
from metav.suspects.asking_plan import plan_asking
from metav.suspects.asking_record import header_of
from metav.suspects.base import AskedSuspect, Suspect
from metav.suspects.log_rows import LogRow, read_log
from metav.suspects.query_log import LogState


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPreview:
    """What a run would send if all went well.

    suspect: one line that names it.
    queries, decoys, repeats: items of the run. answered: of these, found in the log.
    left: items still to be sent. sent: queries that were sent already.
    batches: requests that these take.
    bytes: of the inputs, as float32.
    seconds: that the rate asks for at least; 0 without one.
    cost: money for what is left; None where a query has no price.
    limit: queries that budget and money allow in all; None for no limit.
    shuffled: whether the order is drawn at random.
    """

    suspect: str
    queries: int
    decoys: int
    repeats: int
    answered: int
    left: int
    sent: int
    batches: int
    bytes: int
    seconds: float
    cost: float | None
    limit: int | None
    shuffled: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary, ready for JSON."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in fields(self)})
        return values

    def __str__(self) -> str:
        order = "in random order" if self.shuffled else "in the fingerprint's order"
        cost = "" if self.cost is None else f", cost {self.cost:g}"
        limit = "" if self.limit is None else f" of {self.limit} allowed"
        return "\n".join(
            [
                f"would ask {self.suspect}: {self.queries} queries, {self.decoys} decoys, {self.repeats} repeats, "
                f"{order}",
                f"answered: {self.answered}, sent so far: {self.sent}{limit}",
                f"left: {self.left} in {self.batches} batches, {byte_size(self.bytes)} of inputs, at least "
                f"{duration(self.seconds)}{cost}; attempts that fail come on top",
                "nothing was sent",
            ]
        )


def preview_asking(fp: Fingerprint, suspect: Suspect, options: AskingOptions) -> AskingPreview:
    """Return what asking a suspect would send; nothing is sent, and no file is made or changed.

    Raises InputError where the budget cannot suffice, and what asking itself would raise for its options and its log.
    """
    chosen = settled(options, suspect)
    assert isinstance(suspect, AskedSuspect)
    rows: list[LogRow] = []
    log = None if chosen.log is None else Path(path_text(chosen.log))
    if log is not None and log.is_file() and log.stat().st_size:
        rows = read_log(log)
    state = LogState.of(rows)
    if chosen.repeats is None and state.header:
        chosen = replace(chosen, repeats=state.header["plan"]["repeats"])
    plan = plan_asking(fp, chosen)
    check_same_run(state, header_of(suspect, fp, plan.header(chosen), kept=bool(rows)), str(chosen.log))
    total, left, start, batches = len(plan.sources), 0, 0, 0
    size = min(chosen.batch_size, state.batch_size or chosen.batch_size)
    for length in plan.parts:
        open_items = sum(item not in state.answers for item in range(start, start + length))
        start, left, batches = start + length, left + open_items, batches + math.ceil(open_items / size)
    return AskingPreview(
        suspect=suspect.description,
        queries=plan.queries,
        decoys=len(plan.inputs) - plan.queries,
        repeats=len(plan.pairs),
        answered=total - left,
        left=left,
        sent=state.sent,
        batches=batches,
        bytes=left * plan.inputs[0].nbytes,
        seconds=0.0 if chosen.rate is None else left / chosen.rate,
        cost=left * chosen.price if chosen.price else None,
        limit=affordable_or_raise(chosen, state.sent, left),
        shuffled=plan.shuffled,
    )
