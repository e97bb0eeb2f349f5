"""One joint step (view, forward, loss, both gradients, Adam): metav beside PyTorch with Adam(fused=True), in one run.

    python tests/benchmarks/joint_step.py --json
    python tests/benchmarks/joint_step.py --sweep --check
    python tests/benchmarks/joint_step.py --roofline

A case is models x responses x hidden. `torch_ms` and `ratio` are those of the step as one writes it in PyTorch, with
autograd; `by_hand_ms` those of the fastest of two steps with every gradient written out (step_sides.py). Before
anything is timed, losses and gradients of all sides must agree, before and after an update. All get torch tensors with
random responses and the same number of threads; metav's time is that of the public call.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable

import roofline
import torch
from step_sides import RIVALS, TORCH_VIEWS, Case, MetavSide, Problem, Side, make_problem
from timing import (
    Budget,
    Disagreement,
    Row,
    add_common_options,
    budget_of,
    comparison,
    fastest,
    interleave,
    misses,
    print_rows,
    progress,
    relative_error,
    report,
    require_agreement,
    set_threads,
    significant,
    thread_counts,
)

AUTOGRAD = "autograd"
WANTED = {"20x1000x100": 4.0, "128x1000x128": 2.5, "100x10000x256": 2.0, "128x78400x128": 2.0}
"""How many times faster metav shall be; at every other size not slower."""

SWEEP = ((1, 2, 7, 32, 128, 512), (10, 100, 1_000, 10_000, 100_000), (16, 100, 256, 512))
CLASSES, PIXELS = 10, 784
TIMED_LEARNING_RATE = 1e-7
"""So small that thousands of steps change nothing: a loss driven to 0 would time subnormal numbers."""


def make_case(text: str, view: str | None) -> Case:
    """Outputs per query as in the tasks: pixels of a generator where they divide the responses, else ten classes."""
    try:
        models, responses, hidden = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected models x responses x hidden, e.g. 20x1000x100, got {text}"
        ) from None
    outputs = PIXELS if responses % PIXELS == 0 else CLASSES
    if min(models, responses, hidden) < 1 or responses % outputs:
        raise argparse.ArgumentTypeError(f"responses must be a multiple of {CLASSES}, and all sizes positive: {text}")
    usual = "logprob" if outputs == CLASSES else "identity"
    return Case(models=models, responses=responses, hidden=hidden, outputs=outputs, view=view or usual)


def check_agreement(ours: Side, theirs: Side) -> None:
    """Disagreement unless the losses and response gradients of two steps agree: the second sees the updated weights."""
    for number in ("first", "second"):
        loss, expected = ours.step(), theirs.step()
        require_agreement(f"losses of the {number} step", abs(loss - expected) / abs(expected))
        require_agreement(f"gradients of the {number} step", relative_error(ours.gradient, theirs.gradient))


def check_rivals(case: Case) -> None:
    # an update that changes the logits, but not by so much that the loss is 0 or overflows
    problem = make_problem(case, min(1e-3, 0.1 / case.responses))
    for make in RIVALS.values():
        check_agreement(MetavSide(problem), make(problem))


def fastest_by_hand(problem: Problem, budget: Budget) -> str:
    short = Budget(repeats=3, minimum_seconds=budget.minimum_seconds / 4, maximum_seconds=budget.maximum_seconds / 4)
    names = [name for name in RIVALS if name != AUTOGRAD]
    if problem.case.megabytes > 500:  # one after the other where all at once would take too much memory
        medians = {name: interleave({name: RIVALS[name](problem).step}, short)[name] for name in names}
        return min(medians, key=lambda name: medians[name])
    return fastest({name: RIVALS[name](problem).step for name in names}, short)


def measure(case: Case, budget: Budget) -> Row:
    progress(f"{case.name}, view {case.view}, {torch.get_num_threads()} threads")
    check_rivals(case)
    problem = make_problem(case, TIMED_LEARNING_RATE)
    by_hand = fastest_by_hand(problem, budget)
    sides = {name: RIVALS[name](problem).step for name in (AUTOGRAD, by_hand)}
    medians = interleave({"metav": MetavSide(problem).step, **sides}, budget)
    return comparison(case.name, medians, AUTOGRAD, WANTED.get(case.name, 1.0)) | {
        "by_hand": by_hand,
        "by_hand_ms": significant(1e3 * medians[by_hand]),
        "by_hand_ratio": significant(medians[by_hand] / medians["metav"]),
    }


def run_cases(cases: Iterable[Case], arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for threads in thread_counts(arguments):
        set_threads(threads)
        peaks = roofline.measure_peaks() if arguments.roofline else None
        if peaks:
            progress(f"{threads} threads: {peaks.operations / 1e9:.0f} GFLOP/s, {peaks.bytes / 1e9:.0f} GB/s")
        for case in cases:
            row = measure(case, budget_of(arguments))
            rows.append(row | (roofline.shares(case, row["metav_ms"], peaks) if peaks else {}))
    return rows


def sweep_cases(arguments: argparse.Namespace) -> tuple[list[Case], list[Case]]:
    """What fits the memory, and what does not."""
    cases = [make_case("x".join(map(str, sizes)), arguments.view) for sizes in itertools.product(*SWEEP)]
    allowed = 1e3 * arguments.memory
    return [c for c in cases if c.megabytes <= allowed], [c for c in cases if c.megabytes > allowed]


def report_sweep(rows: list[Row], skipped: list[Case], arguments: argparse.Namespace) -> int:
    """The cases in which metav is slower, and the worst; with --json all of them."""
    slower = misses(rows)
    print_rows(rows if arguments.json else sorted(slower, key=lambda row: row["ratio"]), as_json=arguments.json)
    for case in skipped:
        progress(f"skipped {case.name}: {case.megabytes / 1e3:.1f} GB, more than --memory {arguments.memory:g}")
    worst = min(rows, key=lambda row: row["ratio"])
    summary = {
        "worst_case": worst["case"],
        "worst_threads": worst["threads"],
        "worst_ratio": worst["ratio"],
        "worst_by_hand_ratio": min(row["by_hand_ratio"] for row in rows),
        "slower": len(slower),
        "measured": len(rows),
        "skipped": [case.name for case in skipped],
    }
    print_rows([summary], as_json=arguments.json)
    return 1 if arguments.check and slower else 0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--case", action="append", help="models x responses x hidden, e.g. 20x1000x100; repeatable")
    parser.add_argument("--view", choices=TORCH_VIEWS, help="default: identity for responses of pixels, else logprob")
    parser.add_argument("--roofline", action="store_true", help="also the shares of the measured peaks (roofline.py)")
    parser.add_argument("--sweep", action="store_true", help="a grid of sizes, each for a short time")
    parser.add_argument("--memory", type=float, default=2.0, help="GB; the sweep skips what takes more")
    arguments = parser.parse_args()
    try:
        arguments.cases = [make_case(text, arguments.view) for text in arguments.case or WANTED]
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    if arguments.sweep and arguments.case is None:
        arguments.repeats = min(arguments.repeats, 7)
        arguments.minimum_seconds = min(arguments.minimum_seconds, 0.1)
        arguments.maximum_seconds = min(arguments.maximum_seconds, 3.0)
    return arguments


def main() -> int:
    arguments = options()
    try:
        if not arguments.sweep:
            return report(run_cases(arguments.cases, arguments), arguments)
        cases, skipped = (arguments.cases, []) if arguments.case else sweep_cases(arguments)
        return report_sweep(run_cases(cases, arguments), skipped, arguments)
    except Disagreement as error:
        progress(f"error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
