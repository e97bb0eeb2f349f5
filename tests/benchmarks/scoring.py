"""Scoring one suspect, and one update of the fingerprint: metav beside PyTorch, in one run.

    python tests/benchmarks/scoring.py --json

score: 1000 responses (100 queries, 10 outputs) of one suspect in a torch tensor, to a score, by a verifier with 100
hidden units. The rivals are the same module in eval and inference mode, that module traced and frozen, and a score by
hand: into buffers allocated once, the standardisation folded into the first layer, and a faster
way to the log-softmax.
update: Adam and the projection onto [0, 1] of 100 queries of 3 x 32 x 32, beside Adam(fused=True) and clamp_. The sides
must agree before they are timed.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import torch
from step_sides import FLOOR, Case, LogSoftmax, make_problem, make_verifier
from timing import (
    Budget,
    Call,
    Disagreement,
    Row,
    add_common_options,
    budget_of,
    comparison,
    interleave,
    progress,
    relative_error,
    report,
    require_agreement,
    set_threads,
    thread_counts,
)
from torch import Tensor, nn

from metav import _core

WANTED_SCORE, WANTED_FROZEN, WANTED_BY_HAND, WANTED_UPDATE = 5.0, 1.0, 1.0, 2.0
QUERY_SHAPE = (3, 32, 32)
LEARNING_RATE = 1e-3


class MetaVerifierModule(nn.Module):
    """View, standardisation and MLP as one would write them."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("shift", parameters["shift"])
        self.register_buffer("scale", parameters["scale"])
        features, hidden = parameters["weight1"].shape
        self.layer1, self.layer2 = nn.Linear(features, hidden), nn.Linear(hidden, 1)
        with torch.no_grad():
            self.layer1.weight.copy_(parameters["weight1"].t())
            self.layer1.bias.copy_(parameters["bias1"])
            self.layer2.weight.copy_(parameters["weight2"][None])
            self.layer2.bias.copy_(parameters["bias2"])

    def forward(self, responses: Tensor) -> Tensor:
        z = (responses.log_softmax(-1).clamp_min(FLOOR) - self.shift) / self.scale
        return self.layer2(self.layer1(z.flatten(1)).relu())[:, 0].sigmoid()


class ByHandScore:
    def __init__(self, case: Case, parameters: dict[str, Tensor]) -> None:
        scale = parameters["scale"].repeat(case.queries)[:, None]
        self.weight1 = parameters["weight1"] / scale
        self.bias1 = parameters["bias1"] - parameters["shift"].flatten() @ self.weight1
        self.weight2, self.bias2 = parameters["weight2"], parameters["bias2"]
        self.log_softmax = LogSoftmax(case.models, case.queries, case.outputs)
        self.features = torch.empty(case.models, case.queries, case.outputs)
        self.hidden, self.score = torch.empty(case.models, case.hidden), torch.empty(case.models)

    def __call__(self, responses: Tensor) -> Tensor:
        self.log_softmax.forward(responses, self.features)
        self.features.clamp_min_(FLOOR)
        torch.addmm(self.bias1, self.features.flatten(1), self.weight1, out=self.hidden).relu_()
        return torch.addmv(self.bias2, self.hidden, self.weight2, out=self.score).sigmoid_()


def score_rivals(case: Case, responses: Tensor, parameters: dict[str, Tensor]) -> dict[str, Call]:
    module = MetaVerifierModule(parameters).eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which still is the faster one
        traced = torch.jit.freeze(torch.jit.trace(module, responses))
    by_hand = ByHandScore(case, parameters)
    return {
        "module": lambda: module(responses),
        "traced module": lambda: traced(responses),
        "by hand": lambda: by_hand(responses),
    }


def measure_score(case: Case, budget: Budget) -> list[Row]:
    problem = make_problem(case, 0.0)
    verifier = make_verifier(case)
    verifier.load_parameters(problem.parameters)
    responses, scores = problem.responses, torch.empty(case.models)
    rivals = score_rivals(case, responses, {name: torch.from_numpy(a) for name, a in problem.parameters.items()})
    sides: dict[str, Call] = {"metav": lambda: verifier.scores(responses, out=scores), **rivals}
    with torch.inference_mode():
        sides["metav"]()
        for name, rival in rivals.items():
            require_agreement(f"scores of metav and of {name}", relative_error(scores[:, None], rival()[:, None]))
        medians = interleave(sides, budget)
    return [
        comparison(f"score {case.name}", medians, "module", WANTED_SCORE),
        comparison(f"score {case.name}", medians, "traced module", WANTED_FROZEN),
        comparison(f"score {case.name}", medians, "by hand", WANTED_BY_HAND),
    ]


class TorchUpdate:
    def __init__(self, queries: Tensor, gradient: Tensor) -> None:
        self.queries = queries.clone()
        self.queries.grad = gradient
        self.adam = torch.optim.Adam([self.queries], lr=LEARNING_RATE, fused=True)

    def __call__(self) -> None:
        self.adam.step()
        self.queries.clamp_(0.0, 1.0)


class MetavUpdate:
    def __init__(self, queries: Tensor, gradient: Tensor) -> None:
        self.queries, self.gradient = queries.clone(), gradient
        shape = queries.shape[1:]
        self.optimizer = _core.QueryOptimizer(queries, torch.zeros(shape), torch.ones(shape))

    def __call__(self) -> None:
        self.optimizer.update(self.gradient, self.queries, learning_rate=LEARNING_RATE)


def measure_update(queries: int, budget: Budget) -> Row:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(queries, *QUERY_SHAPE, generator=generator)
    gradient = torch.randn(start.shape, generator=generator)
    ours, theirs = MetavUpdate(start, gradient), TorchUpdate(start, gradient)
    for _ in range(3):
        ours()
        theirs()
    require_agreement("queries after three updates", relative_error(ours.queries, theirs.queries))
    rival = "Adam(fused=True), clamp_"
    name = f"update {'x'.join(map(str, start.shape))}"
    return comparison(name, interleave({"metav": ours, rival: theirs}, budget), rival, WANTED_UPDATE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=100)
    arguments = parser.parse_args()
    case = Case(models=1, responses=10 * arguments.queries, hidden=arguments.hidden, outputs=10, view="logprob")
    rows = []
    try:
        for threads in thread_counts(arguments):
            set_threads(threads)
            progress(f"scoring and update, {threads} threads")
            rows += measure_score(case, budget_of(arguments))
            rows.append(measure_update(arguments.queries, budget_of(arguments)))
    except Disagreement as error:
        progress(f"error: {error}")
        return 2
    return report(rows, arguments)


if __name__ == "__main__":
    sys.exit(main())
