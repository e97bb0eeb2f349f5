"""Progress bars on stderr: shown on a terminal or in a notebook, silent elsewhere; and the time left of a whole job."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from metav.support.text import duration

SECONDS_BETWEEN = 0.2
"""How often the time left of a whole job is worked out anew, at most."""
_GRAIN = 1000


def progress_bar(*, total: int, description: str, enabled: bool | None) -> Any:
    """Return a tqdm progress bar; within a whole job that has such a part, one that tells the job as well.

    total: steps until it is full.
    description: the text in front of it, which is the name of the part.
    enabled: True always shows it, False never, None on a terminal or in a notebook only.
    """
    from tqdm.auto import tqdm

    bar = tqdm(total=total, desc=description, disable=not is_shown(enabled), leave=False, file=sys.stderr)
    job = _JOB.get()
    return bar if bar.disable or job is None or not job.has(description) else _PartBar(bar, job, description)


def skip(bar: Any, count: int) -> None:
    """Advance a bar by what was there already, so that it does not count as work that was done so fast."""
    if not bar.disable:
        bar.initial += count
    bar.update(count)


def is_shown(enabled: bool | None) -> bool:
    """Return whether bars are shown; enabled: see `progress_bar`."""
    return _interactive() if enabled is None else enabled


class WholeJob:
    """The time left of a job of several parts, as a bar above those of the parts.

    parts: seconds of each, in their order, as they were measured or guessed; None where nobody knows before it has
        begun.
    bar: the tqdm bar that shows it.

    What a part takes once it runs is told from how fast it goes; parts to come are as they were given.
    """

    def __init__(self, parts: Mapping[str, float | None], bar: Any) -> None:
        self._planned = dict(parts)
        self._bar = bar
        self._begun = time.perf_counter()
        self._shown = 0.0

    def has(self, part: str) -> bool:
        """Return whether a part is still to come or running."""
        return part in self._planned

    def advance(self, part: str, left: float | None) -> None:
        """Take in how many seconds a running part has left, as far as that can be told, and show it now and then."""
        if left is not None:
            self._planned[part] = left
        now = time.perf_counter()
        if now - self._shown >= SECONDS_BETWEEN:
            self._shown = now
            self._show(now)

    def finish(self, part: str) -> None:
        """Take in that a part, and all before it, are done."""
        for name in list(self._planned):
            del self._planned[name]
            if name == part:
                break
        self._show(time.perf_counter())

    @property
    def left(self) -> float | None:
        """Seconds that all parts have left; None where that of one is not known."""
        known = [seconds for seconds in self._planned.values() if seconds is not None]
        return sum(known) if len(known) == len(self._planned) else None

    def _show(self, now: float) -> None:
        left, elapsed = self.left, now - self._begun
        if left is None:
            self._bar.set_description_str("whole job", refresh=False)
        else:
            self._bar.set_description_str(f"whole job, about {duration(left)} left", refresh=False)
            self._bar.n = round(_GRAIN * elapsed / max(elapsed + left, 1e-9))
        self._bar.refresh()


class _PartBar:
    """The bar of a part, which tells the whole job how it goes."""

    def __init__(self, bar: Any, job: WholeJob, part: str) -> None:
        self._inner, self._job, self._part = bar, job, part
        self._begun = time.perf_counter()

    def __enter__(self) -> _PartBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()
        self._job.finish(self._part)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def initial(self) -> int:
        """Steps that were there already."""
        return int(self._inner.initial)

    @initial.setter
    def initial(self, count: int) -> None:
        self._inner.initial = count

    def update(self, count: int = 1) -> None:
        """Advance by so many steps."""
        self._inner.update(count)
        done = self._inner.n - self._inner.initial
        rate = (time.perf_counter() - self._begun) / done if done > 0 else None
        self._job.advance(self._part, None if rate is None else rate * max(self._inner.total - self._inner.n, 0))


_JOB: ContextVar[WholeJob | None] = ContextVar("whole job", default=None)
"""The job that bars made now are parts of."""


@contextmanager
def whole_job(parts: Mapping[str, float | None], *, enabled: bool | None) -> Iterator[WholeJob | None]:
    """Show, while the body runs, the time left of all its parts; within another whole job, do nothing.

    parts: names of the bars that will come, in order, with the seconds that each takes, as far as they are known.
    enabled: see `progress_bar`.
    """
    if _JOB.get() is not None or not is_shown(enabled):
        yield None
        return
    from tqdm.auto import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    bar = tqdm(total=_GRAIN, desc="whole job", leave=False, file=sys.stderr, bar_format=form)
    job = WholeJob(parts, bar)
    token = _JOB.set(job)
    try:
        yield job
    finally:
        _JOB.reset(token)
        bar.close()


def in_whole_job() -> bool:
    """Return whether bars made now are parts of a whole job."""
    return _JOB.get() is not None


def _interactive() -> bool:
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    # a loaded ipykernel proves nothing: clients of notebooks import it too
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
