"""Time to the same ARUC: metav's fit beside MetaV as published, in plain PyTorch, on one digits zoo, in one run.

    python tests/benchmarks/fit_speed.py --cache zoo-benchmark

Both see the same surrogates and are judged by the ARUC on the same held-out suspects. metav's clock holds all of its
fit: optimisation, selection, refit and calibration. The published method's clock stops for its evaluations, at the
first one that reaches metav's ARUC, or at `--limit` times metav's seconds. One JSON line a repeat, the medians last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch

from metav.baselines.published import fit_published
from metav.experiments.scenarios.digits import digits_scenario
from metav.models.ensembles import Ensemble
from metav.optimization.optimization import optimize
from metav.optimization.options import OptimizationOptions
from metav.statistics.roc_aruc import aruc
from metav.zoo.building import build_suspects, build_zoo


def measure(seed: int, repeat: int, cache: str, limit: float, surrogates: int) -> dict[str, object]:
    scenario = digits_scenario(seed)
    owner = scenario.train_owner(seed)
    common = {"seed": seed, "cache": cache, "jobs": 2}
    zoo = build_zoo(
        owner,
        scenario.task,
        positives=surrogates,
        negatives=surrogates,
        architectures=scenario.zoo_architectures,
        **common,
    )
    suspects = build_suspects(
        owner, scenario.task, architectures=scenario.suspect_architectures, other_task=scenario.other_task, **common
    )
    started = time.perf_counter()
    found = optimize(owner, scenario.task, zoo, options=OptimizationOptions(), seed=repeat, progress=False)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        answers = Ensemble([entry.model for entry in suspects]).responses(torch.from_numpy(found.queries)).numpy()
    scores = found.calibration.score(found.meta_verifier.logits(answers))
    derived = np.array([entry.is_positive for entry in suspects])
    reached = aruc(scores[derived], scores[~derived])
    published = fit_published(
        owner,
        scenario.task,
        zoo,
        seed=repeat,
        target_aruc=reached,
        max_seconds=limit * seconds,
        held_out=suspects.models,
    )
    return {
        "case": f"digits, {surrogates}+{surrogates} surrogates, 100 queries",
        "repeat": repeat,
        "metav_s": round(seconds, 2),
        "metav_aruc": round(reached, 4),
        "published_s": round(published.seconds, 2),
        "published_best_aruc": round(published.aruc, 4),
        "published_reached_it": published.aruc >= reached,
        "ratio": round(published.seconds / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default="zoo-benchmark", help="folder of trained models, to continue from")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--limit", type=float, default=5.0, help="give the published method up to this many times longer"
    )
    parser.add_argument("--surrogates", type=int, default=48, help="of each class")
    parser.add_argument("--threads", type=int, default=1, help="torch threads, of both")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for repeat in range(arguments.repeats):
        rows.append(measure(0, repeat, arguments.cache, arguments.limit, arguments.surrogates))
        print(json.dumps(rows[-1]), flush=True)
    medians = {
        name: statistics.median(float(row[name]) for row in rows) for name in ("metav_s", "published_s", "ratio")
    }
    print(json.dumps({"case": "median", **medians}))


if __name__ == "__main__":
    main()
