"""Many suspects: each judged by itself, their p-values corrected together, and gone on with where it stopped."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from metav.errors import InputError, MetavError, MissingDependencyError
from metav.fingerprints.fingerprint import Fingerprint, load
from metav.support.arguments import whole_number
from metav.support.files import PathLike, path_text
from metav.support.html_tables import html_table
from metav.support.json_values import plain, readable_json
from metav.support.progress import progress_bar
from metav.support.text import harmless
from metav.suspects.asking_options import LOGS, AskingOptions
from metav.suspects.base import AskedSuspect, Suspect
from metav.suspects.recordings import READERS
from metav.suspects.registry import open_suspect
from metav.verdicts.scan_store import ScanStore
from metav.verdicts.suspect_lists import SuspectEntry, SuspectList, read_suspects
from metav.verdicts.verdict import Decision, Verdict
from metav.verdicts.verification import unusable, verify

Opener: TypeAlias = Callable[[SuspectEntry], Any]
"""From an entry of a list to what `verify` takes; a function of a module, since it goes to other processes."""

Judged: TypeAlias = tuple[SuspectEntry, str, Verdict, float]
"""An entry, its identity (see `SuspectEntry.identity`), its verdict, and the seconds that it took."""

_SHOWN = ("name", "decision", "score", "p_value", "p_holm", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The results of many suspects.

    rows: one per suspect, in the order of the list: name, source, decision, score, p_value, p_holm (corrected for all
        that were scored, Holm), reason, message and more.
    skipped: files that lay among the suspects and are none.
    commitment: of the fingerprint.
    """

    rows: tuple[Mapping[str, Any], ...]
    skipped: tuple[str, ...]
    commitment: str

    @property
    def decisions(self) -> Mapping[str, int]:
        """How many suspects got each decision."""
        counts = Counter(row["decision"] for row in self.rows)
        return {decision.value: counts[decision.value] for decision in Decision}

    def to_dict(self) -> dict[str, Any]:
        """Return the results as a plain dictionary, ready for JSON, without the whole verdicts."""
        rows = [{name: value for name, value in row.items() if name != "verdict"} for row in self.rows]
        values = {"decisions": self.decisions, "skipped": self.skipped, "commitment": self.commitment, "rows": rows}
        result: dict[str, Any] = plain(values)
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())

    def __str__(self) -> str:
        ranked = sorted(self.rows, key=lambda row: (row["decision"] != Decision.MATCH, -(row["score"] or 0.0)))
        lines = [_SHOWN, *([_text(row[name]) for name in _SHOWN] for row in ranked[:MOST_SHOWN])]
        widths = [max(len(line[place]) for line in lines) for place in range(len(_SHOWN))]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        # what could not be judged is told with its cause: the code alone helps nobody
        causes = [
            f"{harmless(row['name'])}: {harmless(row['message'], limit=300)}"
            for row in ranked[:MOST_SHOWN]
            if row["message"]
        ]
        more = len(self.rows) - MOST_SHOWN
        counts = ", ".join(f"{count} {decision}" for decision, count in self.decisions.items())
        skipped = [f"{len(self.skipped)} files of other kinds were left out"] if self.skipped else []
        return "\n".join(
            [
                *table,
                *([f"... and {more} more"] if more > 0 else []),
                *causes,
                f"{len(self.rows)} suspect{'' if len(self.rows) == 1 else 's'}: {counts}",
                *skipped,
            ]
        )

    def _repr_html_(self) -> str:
        return html_table(list(_SHOWN), [[_text(row[name]) for name in _SHOWN] for row in self.rows])


MOST_SHOWN = 40
"""Rows of the table for people; the files hold all."""


def scan(
    fp: Fingerprint | PathLike,
    suspects: SuspectList | Sequence[str] | str,
    *,
    store: PathLike,
    workers: int = 1,
    asking: AskingOptions | None = None,
    logs: PathLike | None = None,
    progress: bool | None = None,
    opener: Opener | None = None,
) -> Scan:
    """Judge many suspects, and return all results; a scan that was stopped goes on where it was.

    fp: a fingerprint, or its file, which several workers need.
    suspects: paths, folders, patterns, addresses and lists (see `read_suspects`).
    store: SQLite file of the results; those of suspects whose files have not changed are kept.
    workers: processes that judge; -1 is one per core.
    asking: how carefully each is asked; its budget is for each suspect. logs: folder for a query log of each suspect.
    progress: None shows a bar on a terminal, False never, True always.
    opener: from an entry to what `verify` takes; None opens files and addresses.

    A suspect that cannot be opened or asked is INCONCLUSIVE ("unusable"), and the others are judged all the same.

    Raises InputError where no suspects are found, or the file of results cannot be used.
    """
    count = _workers(workers)
    sources = [suspects] if isinstance(suspects, str) else suspects
    found = sources if isinstance(sources, SuspectList) else read_suspects(sources)
    fingerprint = fp if isinstance(fp, Fingerprint) else load(fp)
    options = AskingOptions(progress=False) if asking is None else replace(asking, progress=False)
    if options.log is not None:
        raise InputError("one log is of one suspect; pass logs, a folder, for a log of each")
    if logs is None:
        options.check_log(LOGS)
    else:
        Path(path_text(logs)).mkdir(parents=True, exist_ok=True)
    with ScanStore(store, fingerprint.commitment) as kept:
        known = kept.known()
        # only of what has a result already: the others are read by the workers, beside each other
        identities = {entry.name: entry.identity() for entry in found.entries if entry.name in known}
        left = [
            entry for entry in found.entries if entry.name not in known or known[entry.name] != identities[entry.name]
        ]
        jobs = [_Job(entry, identities.get(entry.name), options, logs) for entry in left]
        with progress_bar(total=len(found.entries), description="Judging", enabled=progress) as bar:
            bar.update(len(found.entries) - len(left))
            for entry, identity, verdict, seconds in _judged(fp, fingerprint, jobs, count, opener or open_entry):
                kept.add(entry.name, entry.source, identity, verdict, seconds)
                bar.update(1)
        rows = kept.finish(entry.name for entry in found.entries)
    return Scan(rows=tuple(rows), skipped=found.skipped, commitment=fingerprint.commitment)


@dataclass(frozen=True, slots=True)
class _Job:
    entry: SuspectEntry
    identity: str | None
    asking: AskingOptions
    logs: PathLike | None


def open_entry(entry: SuspectEntry) -> Any:
    """Return the suspect of an entry that is a file or an address."""
    return open_suspect(entry.source, **entry.options)


def _workers(workers: int) -> int:
    whole_number("workers", workers, least=-1)
    if workers == 0:
        raise InputError("workers must be at least 1, or -1 for one per core, got 0")
    return len(os.sched_getaffinity(0)) if workers == -1 else workers


def _with_log(options: AskingOptions, logs: PathLike | None, entry: SuspectEntry, identity: str) -> AskingOptions:
    if logs is None or Path(entry.source).suffix.lower() in READERS:
        return options
    name = re.sub(r"[^\w.-]+", "_", entry.name)[-80:]
    return replace(options, log=str(Path(path_text(logs)) / f"{name}-{identity[:12]}.db"))


def _judged(fp: Any, fingerprint: Fingerprint, jobs: Sequence[_Job], workers: int, opener: Opener) -> Iterator[Judged]:
    if workers == 1 or len(jobs) < 2:
        yield from (judge_entry(fingerprint, job, opener) for job in jobs)
        return
    from joblib import Parallel, delayed

    path = None if isinstance(fp, Fingerprint) else os.path.abspath(os.fspath(fp))
    given = fingerprint if path is None else path
    run = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size="auto", pre_dispatch=4 * workers)
    here = os.getcwd()
    yield from run(delayed(judge_in_worker)(given, fingerprint.commitment, job, opener, here) for job in jobs)


def judge_in_worker(given: Any, commitment: str, job: _Job, opener: Opener, folder: str) -> Judged:
    """Judge in a worker process, which reads the fingerprint once.

    folder: the current one of the scan, for relative names; a worker may have been started in another.
    """
    fp = given if isinstance(given, Fingerprint) else _loaded(given, commitment)
    with chdir(folder):
        return judge_entry(fp, job, opener)


@lru_cache(maxsize=1)
def _loaded(path: str, commitment: str) -> Fingerprint:
    found = load(path)
    if found.commitment != commitment:
        raise InputError(f"{path} was changed during the scan; start it again")
    return found


def judge_entry(fp: Fingerprint, job: _Job, opener: Opener) -> Judged:
    """Return the entry of a job and its identity, with its verdict and the seconds it took."""
    start = time.perf_counter()
    identity = job.entry.identity() if job.identity is None else job.identity
    try:
        suspect = opener(job.entry)
        is_recorded = isinstance(suspect, Suspect) and not isinstance(suspect, AskedSuspect)
        asking = AskingOptions() if is_recorded else _with_log(job.asking, job.logs, job.entry, identity)
        verdict = verify(fp, suspect, asking=asking)
    except MissingDependencyError:
        raise
    except MetavError as error:
        verdict = unusable(fp, job.entry.name, str(error))
    return job.entry, identity, verdict, time.perf_counter() - start


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else harmless(value, limit=80)
