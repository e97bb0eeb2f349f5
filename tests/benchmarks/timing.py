"""What the speed benchmarks share: interleaved medians, equal threads, options, and how rows are printed."""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

import metav

Call: TypeAlias = Callable[[], object]
Row: TypeAlias = dict[str, Any]

FEWEST_ROUNDS = 3
BLOCK_SECONDS = 2e-3
PAUSE_SECONDS = 1e-3
"""Between blocks, with several threads: workers of the other side that still spin would compete."""


class Disagreement(Exception):
    """The two sides do not compute the same, so comparing their times would mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At least `repeats` rounds and `minimum_seconds`, but not much more than `maximum_seconds`."""

    repeats: int
    minimum_seconds: float
    maximum_seconds: float


def interleave(sides: Mapping[str, Call], budget: Budget) -> dict[str, float]:
    """Median seconds of one call of each side.

    The sides take turns in blocks of calls, in alternating order, so that a slow spell of the machine meets them all.
    Before each block goes one untimed call: the other side has emptied the caches.
    """
    calls = {name: _calls_per_block(call) for name, call in sides.items()}
    blocks: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    pause = PAUSE_SECONDS if torch.get_num_threads() > 1 else 0.0
    started = time.perf_counter()
    with _no_garbage_collection():
        for rounds in itertools.count(1):
            for name in order:
                time.sleep(pause)
                sides[name]()
                blocks[name].append(_seconds(sides[name], calls[name]) / calls[name])
            order.reverse()
            elapsed = time.perf_counter() - started
            enough = rounds >= budget.repeats and elapsed >= budget.minimum_seconds
            if enough or (rounds >= FEWEST_ROUNDS and elapsed >= budget.maximum_seconds):
                break
    return {name: statistics.median(seconds) for name, seconds in blocks.items()}


def fastest(sides: Mapping[str, Call], budget: Budget) -> str:
    """Name of the fastest side, from a short interleaved run."""
    if len(sides) == 1:
        return next(iter(sides))
    medians = interleave(sides, budget)
    return min(medians, key=lambda name: medians[name])


def _calls_per_block(call: Call) -> int:
    call()  # builds what is built once
    return max(1, round(BLOCK_SECONDS / max(_seconds(call, 1), 1e-7)))


def _seconds(call: Call, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - started


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Median over rows of |found - expected| / |expected|.

    The median, because a hidden unit at its kink may legitimately fall to either side and change one whole row.
    """
    rows = (found.double() - expected.double()).flatten(1).norm(dim=1)
    sizes = expected.double().flatten(1).norm(dim=1)
    return float((rows / sizes.clamp_min(1e-30)).median())


def require_agreement(what: str, error: float, tolerance: float = 1e-4) -> None:
    """Disagreement unless the relative error is within the tolerance; NaN is not."""
    if not error <= tolerance:
        raise Disagreement(f"{what} of the two sides differ by {error:.2g} relative, more than {tolerance:g}")


def available_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(count: int) -> None:
    """The same number of threads for both sides."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] + count > available_threads() + 0.5:
        progress("warning: other programs keep the CPUs busy; with several threads such times mean nothing")
    torch.set_num_threads(count)
    metav.set_num_threads(count)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout instead of a table")
    parser.add_argument("--threads", type=int, help="of both sides; default: once 1, once all")
    parser.add_argument("--repeats", type=int, default=30, help="rounds of each case, at least")
    parser.add_argument("--minimum-seconds", type=float, default=1.0, help="of each case")
    parser.add_argument("--maximum-seconds", type=float, default=20.0, help="of each case, about")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is below the wanted one")


def budget_of(arguments: argparse.Namespace) -> Budget:
    return Budget(
        repeats=arguments.repeats,
        minimum_seconds=arguments.minimum_seconds,
        maximum_seconds=arguments.maximum_seconds,
    )


def thread_counts(arguments: argparse.Namespace) -> list[int]:
    return [arguments.threads] if arguments.threads else sorted({1, available_threads()})


def comparison(case: str, medians: Mapping[str, float], rival: str, wanted: float) -> Row:
    """One row of the output; the ratio says how many times faster metav is."""
    return {
        "case": case,
        "threads": torch.get_num_threads(),
        "rival": rival,
        "metav_ms": significant(1e3 * medians["metav"]),
        "torch_ms": significant(1e3 * medians[rival]),
        "ratio": significant(medians[rival] / medians["metav"]),
        "wanted": wanted,
    }


def significant(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def print_rows(rows: Sequence[Row], *, as_json: bool) -> None:
    """JSON lines, or a table whose columns are the keys of the first row."""
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif rows:
        lines = [list(rows[0]), *([f"{value}" for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def misses(rows: Sequence[Row]) -> list[Row]:
    """Rows whose ratio is below the wanted one."""
    return [row for row in rows if row["ratio"] < row["wanted"]]


def report(rows: Sequence[Row], arguments: argparse.Namespace) -> int:
    """Print the rows and what was missed; the exit code."""
    print_rows(rows, as_json=arguments.json)
    missed = misses(rows)
    for row in missed:
        progress(f"below the wanted {row['wanted']}: {row['case']}, {row['threads']} threads: {row['ratio']}")
    return 1 if arguments.check and missed else 0


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
