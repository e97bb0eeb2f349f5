"""Asking with care: within a budget, at a pace, again where that may help, and with a record of every query.

A transport or a callable sends one batch; everything across batches is decided here.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError, QueryLogError, SuspectError, TransportError
from metav.fingerprints.fingerprint import Fingerprint
from metav.support.arrays import FloatArray
from metav.support.progress import progress_bar
from metav.support.versions import version_of
from metav.suspects.answer_reading import AnswerReader, reader_for
from metav.suspects.asking_options import SERVICE_ATTEMPTS, AskingOptions
from metav.suspects.asking_plan import AskingPlan, plan_asking
from metav.suspects.asking_record import AskingRecord, CarefulAnswers, header_of
from metav.suspects.base import AskedSuspect, Suspect
from metav.suspects.callables import CallableSuspect
from metav.suspects.faults import UNREADABLE, Fault, fault_of
from metav.suspects.query_log import LogState, QueryLog
from metav.suspects.transports import Reply, TransportSuspect

FIRST_WAIT, LONGEST_BACKOFF = 0.5, 60.0
"""Seconds before a second attempt, twice as many before each further one, and the most of these."""
MISREAD = UNREADABLE - {"unreadable"} | {"budget"}
"""Reasons that end a run even where only repeats are left."""
UNREADABLE_AT_FIRST = 2
"""Attempts after which a run stops whose every answer so far could not be read."""


@final
class StoppedAskingError(SuspectError):
    """A run that stopped before all was answered.

    record: of what was asked until then.
    """

    def __init__(self, reason: str, message: str, record: AskingRecord) -> None:
        super().__init__(reason, message)
        self.record = record


class Pace:
    """Holds a run to a rate.

    rate: most queries per second; None for no limit. sleep, now: the clock.
    """

    sleep: Callable[[float], None] = staticmethod(time.sleep)
    now: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, rate: float | None) -> None:
        self.rate, self._free = rate, -float("inf")

    def wait(self, count: int) -> None:
        """Return once `count` more queries may be sent."""
        if self.rate is None:
            return
        now = self.now()
        if self._free > now:
            self.sleep(self._free - now)
        self._free = max(now, self._free) + count / self.rate


def is_service(suspect: Suspect) -> bool:
    """Return whether a suspect answers somewhere else, so that it is asked with care by default."""
    return isinstance(suspect, TransportSuspect)


def settled(options: AskingOptions, suspect: Suspect) -> AskingOptions:
    """Return options with what the kind of suspect decides filled in.

    Raises InputError for options that a suspect which is not asked cannot have, and for queries that are to be kept in
    no log: only here is it known, as who asks several suspects names a log for each.
    """
    if not isinstance(suspect, AskedSuspect):
        raise InputError(
            f"{suspect.description} are there already and are not asked; leave out log, budget, rate and the like"
        )
    if options.keep_queries and options.log is None:
        raise InputError("keep_queries stores queries in the log; pass log as well")
    service = is_service(suspect)
    attempts = (SERVICE_ATTEMPTS if service else 1) if options.attempts is None else options.attempts
    shuffle = (service or options.decoys > 0) if options.shuffle is None else options.shuffle
    return replace(options, attempts=attempts, shuffle=shuffle)


def ask_with_care(suspect: Suspect, fp: Fingerprint, options: AskingOptions) -> CarefulAnswers:
    """Return a suspect's answers to a fingerprint's queries, with the record of the run.

    Raises StoppedAskingError where the run stopped early, InputError where the budget cannot suffice, QueryLogError for
    a log that cannot be used.
    """
    chosen = settled(options, suspect)
    assert isinstance(suspect, AskedSuspect)
    with QueryLog(chosen.log, priced=isinstance(suspect, TransportSuspect | CallableSuspect)) as log:
        chosen = continued(chosen, log)
        plan = plan_asking(fp, chosen)
        header = header_of(suspect, fp, plan.header(chosen), kept=chosen.log is not None)
        check_same_run(log.state, header, str(log.path))
        needed = len(plan.sources) - len(log.state.answers)
        affordable_or_raise(chosen, log.state.sent, needed)
        run = _Run(suspect, plan, chosen, log, reader_for(fp.task, suspect.interface.output))
        if needed:
            entries = [] if log.rows else [{"event": "run", "detail": header}]
            session = {"options": _shown(chosen), "metav": version_of()}
            run.opening = [*entries, {"event": "session", "detail": session}]
            with suspect.transport if isinstance(suspect, TransportSuspect) else suspect._session():
                run.fit_batches()
                run.ask_all()
        return run.answers()


def continued(options: AskingOptions, log: QueryLog) -> AskingOptions:
    """Return options with what a log's first row decides, where nothing else is asked for."""
    told = log.state.header.get("plan")
    if told is None or options.repeats is not None:
        return options
    return replace(options, repeats=told["repeats"])


def check_same_run(state: LogState, header: dict[str, Any], name: str) -> None:
    """Raise QueryLogError where the log of a name is of another fingerprint, suspect or plan."""
    if not state.header:
        return
    names = ("commitment", "suspect", "identity", "configuration", "plan")
    other = [entry for entry in names if state.header.get(entry) != header[entry]]
    if other:
        raise QueryLogError(
            f"{name} is the log of another run (it differs in {', '.join(other)}); pass another file, or the "
            "fingerprint, suspect, seed, decoys and repeats that it was begun with"
        )


def affordable_or_raise(options: AskingOptions, sent: int, needed: int) -> int | None:
    """Return how many queries budget and money allow in all; InputError where they cannot suffice."""
    affordable = options.affordable()
    if affordable is not None and sent + needed > affordable:
        name = "budget" if options.budget is not None and affordable == options.budget else "money"
        raise InputError(
            f"{needed} queries are left to ask and {sent} were sent, but the {name} allows {affordable} in all; "
            "allow more, or have fewer decoys and repeats; nothing was sent"
        )
    return affordable


def _shown(options: AskingOptions) -> dict[str, Any]:
    """Return options for a log, numbers as texts: canonical JSON has one form of them alone."""
    return {
        name: value if isinstance(value, bool | int) or value is None else str(value)
        for name, value in options.to_dict().items()
    }


@dataclass(slots=True)
class _Progress:
    bar: Any
    options: AskingOptions

    def show(self, answered: int, left: int, sent: int) -> None:
        cost = f", cost {sent * self.options.price:g}" if self.options.price else ""
        limit = self.options.affordable()
        self.bar.set_postfix_str(
            f"{left} left, {sent} sent{'' if limit is None else f' of {limit}'}{cost}", refresh=False
        )
        self.bar.update(answered)


class _Run:
    """One session of asking."""

    def __init__(
        self, suspect: AskedSuspect, plan: AskingPlan, options: AskingOptions, log: QueryLog, reader: AnswerReader
    ) -> None:
        self.suspect, self.plan, self.options, self.log, self.reader = suspect, plan, options, log, reader
        self.pace, self.jitter = Pace(options.rate), random.Random(options.seed)
        self.size = min(options.batch_size, log.state.batch_size or options.batch_size)
        self.resumed = len(log.state.answers)
        self.opening: list[dict[str, Any]] = []

    def fit_batches(self) -> None:
        """Keep batches to what a service says that it takes; it may have to be asked for that."""
        if not isinstance(self.suspect, TransportSuspect):
            return
        attempts = self.options.attempts or 1
        for attempt in range(1, attempts + 1):
            try:
                largest = self.suspect.transport.largest_batch
            except TransportError as error:
                if not error.retriable or attempt == attempts:
                    raise self._stopped(error.reason, str(error)) from error
                self._wait(attempt, error.retry_after, error.reason)
            else:
                self.size = self.size if largest is None else min(self.size, largest)
                return

    def ask_all(self) -> None:
        """Ask everything that has no answer yet, part by part."""
        total, start = len(self.plan.sources), 0
        with progress_bar(total=total, description="Asking", enabled=self.options.progress) as bar:
            progress = _Progress(bar, self.options)
            progress.show(self.resumed, total - self.resumed, self.log.state.sent)
            for number, length in enumerate(self.plan.parts):
                items = [item for item in range(start, start + length) if item not in self.log.state.answers]
                start += length
                try:
                    self._ask_part(items, progress)
                except StoppedAskingError as error:
                    # repeats in a part of their own only measure the noise, which then stays unmeasured
                    if number == 0 or error.reason in MISREAD:
                        raise

    def _ask_part(self, items: list[int], progress: _Progress) -> None:
        while items:
            batch, attempt = items[: self.size], 1
            while (fault := self._attempt(batch, attempt)) is not None:
                batch = self._after(fault, batch, attempt)
                attempt += 1
            items = items[len(batch) :]
            progress.show(len(batch), len(self.plan.sources) - len(self.log.state.answers), self.log.state.sent)

    def _attempt(self, batch: list[int], attempt: int) -> Fault | None:
        """Send a batch once; None where it was answered, and the answers are in the log."""
        self._check_limit(len(batch))
        self.pace.wait(len(batch))
        sources = self.plan.sources[batch]
        inputs, digests = self.plan.inputs[sources], [self.plan.digests[source] for source in sources]
        self.log.append([*self.opening, {"event": "sent", "attempt": attempt, "detail": {"items": batch}}])
        self.opening = []
        try:
            # a suspect may change what it is given, and the log keeps what it was
            reply = self._sent(inputs.copy() if self.options.keep_queries else inputs)
            responses = self.reader.batch(reply.values, rows=len(batch))
        except KeyboardInterrupt:
            detail = {"error": "KeyboardInterrupt", "reason": "stopped"}
            self.log.failed(batch, digests, attempt=attempt, status="stopped", detail=detail)
            raise
        except Exception as error:
            fault = fault_of(error, inputs.shape)
            self.log.failed(batch, digests, attempt=attempt, status=fault.status, detail=fault.detail)
            return fault
        hashes = {"request_sha256": reply.request_sha256, "response_sha256": reply.response_sha256}
        self.log.answered(
            batch,
            digests,
            responses,
            inputs if self.options.keep_queries else None,
            attempt=attempt,
            status=str(reply.status) if reply.status else "ok",
            detail=hashes if reply.request_sha256 else None,
        )
        return None

    def _sent(self, inputs: FloatArray) -> Reply:
        """Return the reply to a batch; TimeoutError where it takes too long."""
        if isinstance(self.suspect, TransportSuspect):
            ask: Callable[[FloatArray], Reply] = self.suspect.transport.answer_batch
        else:
            ask = partial(_as_reply, self.suspect._ask)
        if self.options.timeout is None or self.suspect.runs_in_this_thread:
            return ask(inputs)
        return within(self.options.timeout, partial(ask, inputs))

    def _after(self, fault: Fault, batch: list[int], attempt: int) -> list[int]:
        """Wait for the next attempt and return its batch; StoppedAskingError where none is worth it."""
        attempts = self.options.attempts or 1
        smaller = (
            attempts > 1 and len(batch) > 1 and (fault.smaller == "at once" or (fault.smaller != "" and attempt > 1))
        )
        last = attempt >= attempts
        if fault.unreadable and not self.log.state.answers and attempt >= UNREADABLE_AT_FIRST:
            last = True
        if last and not (smaller and fault.smaller == "at once"):
            raise self._stopped(fault.error.reason, str(fault.error))
        if smaller:
            self.size = len(batch) // 2
            self.log.append([{"event": "batch_size", "status": fault.status, "detail": {"size": self.size}}])
            if fault.smaller == "at once":
                return batch[: self.size]
        elif not (fault.retriable or fault.unreadable):
            raise self._stopped(fault.error.reason, str(fault.error))
        self._wait(attempt, fault.retry_after, fault.error.reason)
        return batch[: self.size]

    def _wait(self, attempt: int, asked: float | None, reason: str) -> None:
        """Wait before the next attempt, longer each time, and as long as the service asks for."""
        wait = min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_BACKOFF) * self.jitter.uniform(0.75, 1.25)
        wait = max(wait, asked or 0.0)
        if wait > self.options.longest_wait:
            message = f"the suspect asks to wait {wait:.0f} seconds, the most is {self.options.longest_wait:g}"
            raise self._stopped(reason, message)
        self.pace.sleep(wait)

    def _check_limit(self, count: int) -> None:
        affordable = self.options.affordable()
        if affordable is not None and self.log.state.sent + count > affordable:
            message = f"{self.log.state.sent} queries were sent and the budget allows {affordable}; allow more"
            raise self._stopped("budget", message)

    def _stopped(self, reason: str, message: str) -> StoppedAskingError:
        left = len(self.plan.sources) - len(self.log.state.answers)
        if left and len(self.log.state.answers) and self.log.path is not None:
            message += (
                f" ({left} of {len(self.plan.sources)} queries are left; the same call goes on from {self.log.path})"
            )
        return StoppedAskingError(reason, message, self.record())

    def record(self) -> AskingRecord:
        """Return what was asked so far."""
        state, plan = self.log.state, self.plan
        return AskingRecord(
            log=None if self.log.path is None else self.log.path.name,
            head=self.log.head,
            rows=self.log.rows,
            planned=len(plan.sources),
            answered=len(state.answers),
            sent=state.sent,
            failed=state.failed,
            decoys=len(plan.inputs) - plan.queries,
            repeats=len(plan.pairs),
            shuffled=plan.shuffled,
            cost=state.sent * self.options.price if self.options.price else None,
        )

    def answers(self) -> CarefulAnswers:
        """Return all answers, in the order of the queries."""
        plan, found = self.plan, self.log.state.answers
        if len({len(row) for row in found.values()}) > 1:
            raise self._stopped("ragged", "some batches are answered with labels, others with scores; ask one way")
        read = np.stack([found[int(item)] for item in plan.firsts])
        columns = self.reader.columns(read[: plan.queries])
        firsts = columns.responses(read)
        pairs = np.array([pair for pair in plan.pairs if all(int(item) in found for item in pair)], np.intp)
        differences: NDArray[np.float32] | None = None
        if len(pairs):
            with np.errstate(over="ignore"):
                changes = np.stack([found[int(later)] - found[int(earlier)] for earlier, later in pairs])
                differences = columns.differences(changes)
        return CarefulAnswers(
            responses=firsts[: plan.queries],
            differences=differences,
            record=self.record(),
            pairs=pairs.reshape(-1, 2),
            origins=plan.origins,
            decoys=firsts[plan.queries :].reshape(len(plan.origins), 2, firsts.shape[1]),
        )


def _as_reply(ask: Callable[[FloatArray], Any], inputs: FloatArray) -> Reply:
    return Reply(values=ask(inputs), status=0, request_sha256="", response_sha256="")


def within(seconds: float, call: Callable[[], Reply]) -> Reply:
    """Return what a call returns; TimeoutError after some seconds, while it may go on in a thread of its own."""
    results: queue.SimpleQueue[tuple[Reply | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True, name="metav-ask").start()
    try:
        reply, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if error is not None:
        raise error
    assert reply is not None
    return reply
