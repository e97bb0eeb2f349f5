"""The demonstration: a small CNN on real handwritten digits, its fingerprint, and suspects that it never saw."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metav.errors import MissingDependencyError
from metav.support.arithmetic import fixed_arithmetic
from metav.support.clock import PhaseClock
from metav.support.json_values import plain, readable_json
from metav.support.processor import job_count
from metav.support.text import duration

if TYPE_CHECKING:
    from metav.experiments.scenarios.scenario import Scenario
    from metav.fingerprints.fingerprint import Fingerprint
    from metav.verdicts.evaluation import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSize:
    """How many models the demonstration trains.

    positives, negatives: surrogates that the fingerprint is made from.
    suspects: of each kind, for the test.
    steps: passes of the joint optimisation, at most.
    snapshots: of each surrogate's training.
    """

    positives: int = 48
    negatives: int = 48
    suspects: int = 28
    steps: int = 60
    snapshots: int = 1


FULL = DemoSize()
"""For less than a minute on two free cores. Of 48 independent surrogates 22 calibrate, and a false-positive rate of 5 %
needs at least 19."""


TRAININGS = {"zoo": 34.3, "fingerprint": 4.1, "suspects": 10.6, "verify": 0.4}
"""How many times as long as the owner's training each later phase takes in full, in one process: by the seconds in the
README's output. The owner's training tells how fast the machine is."""
IN_PROCESSES = ("zoo", "suspects")
"""Phases that all processes share."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DemoResult:
    """What the demonstration found.

    owner_accuracy: share of unseen digits that the owner's model reads correctly.
    seconds: by phase.
    """

    owner_accuracy: float
    fingerprint: Fingerprint
    evaluation: Evaluation
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        result: dict[str, Any] = plain(
            {
                "owner_accuracy": self.owner_accuracy,
                "seconds": self.seconds,
                "evaluation": self.evaluation.to_dict(),
                "fingerprint": self.fingerprint.to_dict(),
            }
        )
        return result

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return readable_json(self.to_dict())


def run_demo(
    *, seed: int = 0, jobs: int | None = None, size: DemoSize = FULL, say: Callable[[str], None] | None = None
) -> DemoResult:
    """Train, fingerprint and verify, all on scikit-learn's digits; the same seed gives the same result.

    seed: of every random choice.
    jobs: processes that train, as for `build_zoo`.
    size: how many models are trained.
    say: is given each line for people as it comes.

    Raises MissingDependencyError without PyTorch or scikit-learn.
    """
    _check_dependencies()
    from metav.experiments.scenarios.digits import digits_scenario

    tell = say if say is not None else _ignore
    # its models are many and take a second each: workers pay, though each stage of them looks too short for it
    jobs = job_count(jobs)
    narrator = _Narrator(tell)
    scenario = digits_scenario(seed)
    with narrator.phase("owner", "Training the owner's model, a small CNN, on real handwritten digits"):
        owner = scenario.train_owner(seed)
    accuracy = scenario.test_metric(owner)
    tell(f"        {accuracy:.1%} of the digits kept back are read correctly")
    tell(f"        {_time_to_go(narrator.clock.seconds['owner'], size, jobs)}")
    fp = _fingerprint(owner, scenario, narrator, seed=seed, jobs=jobs, size=size)
    evaluation = _evaluation(fp, owner, scenario, narrator, seed=seed, jobs=jobs, size=size)
    tell(f"\n{evaluation}\n")
    tell(f"Done in {sum(narrator.clock.seconds.values()):.0f} s.")
    return DemoResult(owner_accuracy=accuracy, fingerprint=fp, evaluation=evaluation, seconds=narrator.clock.seconds)


def seconds_to_go(owner: float, size: DemoSize, processes: int) -> float:
    """Return about how long everything after the owner's training takes.

    owner: seconds of that training, the only thing that was measured here.
    processes: that train.
    """
    shares = {
        "zoo": (size.positives + size.negatives) / (FULL.positives + FULL.negatives),
        "fingerprint": size.steps / FULL.steps,
        "suspects": size.suspects / FULL.suspects,
        "verify": size.suspects / FULL.suspects,
    }
    return owner * sum(
        TRAININGS[phase] * share / (processes if phase in IN_PROCESSES else 1) for phase, share in shares.items()
    )


def _time_to_go(owner: float, size: DemoSize, jobs: int | None) -> str:
    processes = job_count(jobs)
    named = "one process" if processes == 1 else f"{processes} processes"
    return f"about {duration(seconds_to_go(owner, size, processes))} to go in {named}, as this training's time tells"


def write_picture(result: DemoResult, path: str | Path) -> None:
    """Draw the scores of all suspects, family by family. Raises InputError where the file cannot be written."""
    from metav.reports.score_plot import plot_scores, save_plot

    save_plot(plot_scores(result.evaluation), path)


def _fingerprint(
    owner: Any, scenario: Scenario, narrator: _Narrator, *, seed: int, jobs: int | None, size: DemoSize
) -> Fingerprint:
    from metav.fingerprinting import fingerprint
    from metav.optimization.options import OptimizationOptions
    from metav.zoo.building import build_zoo

    with narrator.phase("zoo", f"Training {size.positives} derived and {size.negatives} independent surrogate models"):
        zoo = build_zoo(
            owner,
            scenario.task,
            positives=size.positives,
            negatives=size.negatives,
            snapshots=size.snapshots,
            architectures=scenario.zoo_architectures,
            recipe=scenario.train_owner,
            seed=seed,
            jobs=jobs,
        )
    options = OptimizationOptions(steps=size.steps)
    # models this small gain nothing from more threads, and lose much where another program has a core
    with (
        narrator.phase("fingerprint", "Optimising 100 queries and the meta-verifier, then calibrating"),
        fixed_arithmetic(),
    ):
        return fingerprint(owner, scenario.task, zoo=zoo, options=options, seed=seed)


def _evaluation(
    fp: Fingerprint, owner: Any, scenario: Scenario, narrator: _Narrator, *, seed: int, jobs: int | None, size: DemoSize
) -> Evaluation:
    from metav.verdicts.evaluation import evaluate
    from metav.zoo.building import build_suspects

    text = f"Training {size.suspects} derived and {size.suspects} independent suspects"
    with narrator.phase(
        "suspects", f"{text} with seeds, strengths,\n        architectures and data that no surrogate had"
    ):
        suspects = build_suspects(
            owner,
            scenario.task,
            positives=size.suspects,
            negatives=size.suspects,
            architectures=scenario.suspect_architectures,
            recipe=scenario.train_owner,
            thief_task=scenario.thief_task,
            other_task=scenario.other_task,
            seed=seed,
            jobs=jobs,
        )
    text = f"Verifying all {2 * size.suspects}, from their answers to the queries alone"
    with narrator.phase("verify", text), fixed_arithmetic():
        return evaluate(fp, suspects, progress=False)


class _Narrator:
    """Says what begins and how long each phase took."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.clock = PhaseClock()

    @contextmanager
    def phase(self, name: str, text: str) -> Iterator[None]:
        """Announce a phase, and tell its seconds when it is done."""
        self.say(f"[{len(self.clock.seconds) + 1}/5]   {text} ...")
        with self.clock.phase(name):
            yield
        self.say(f"        {self.clock.seconds[name]:.1f} s")


def _ignore(_: str) -> None:
    """Say nothing."""


def _check_dependencies() -> None:
    missing = []
    for module, package in (("torch", "torch"), ("sklearn", "scikit-learn")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                __import__(module)
        except ImportError:
            missing.append(package)
    if missing:
        raise MissingDependencyError(
            f"metav demo needs {' and '.join(missing)}, not installed here: pip install {' '.join(missing)} (from the "
            'folder of metav: pip install ".[demo]")'
        )
