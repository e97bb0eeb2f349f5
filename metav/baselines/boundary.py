"""Fingerprints along the decision boundary of a classifier: IPGuard and conferrable adversarial examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.baselines.base import Baseline, FitContext, agreement, models_of, most_natural
from metav.baselines.inputs import box_around, clamp, predicted
from metav.errors import InputError
from metav.optimization.boundary_queries import crossings
from metav.support.arrays import FloatArray
from metav.tasks.classification import log_probabilities
from metav.tasks.kinds import TaskNeeds


class IPGuard(Baseline):
    """Points near the boundary between two classes; the score is the share of equal labels, in [0, 1].

    margin: k below, in nats. It trades uniqueness for robustness; 10, which is used with CIFAR-10, puts the points of
        smaller models deep into class j, and 1 did better on digits.
    steps: of Adam, at most.
    learning_rate: of Adam, in units of a feature's range.

    From a natural input of class i, minimise relu(Z_i - Z_j + k) + relu(max over t other than i, j of Z_t - Z_i) for a
    class j, by Adam. Z are log-probabilities, which differ like logits between classes. Here j is drawn at random. A
    point that has reached the goal moves back along its last step as far as it may: class j then leads by k, or by more
    where a third class stood in the way.

    Raises InputError for numbers that are not positive.

    Source: Cao, Jia, Gong: "IPGuard: Protecting Intellectual Property of Deep Neural Networks via Fingerprinting the
        Classification Boundary", AsiaCCS 2021, eq. 5.
    """

    name = "IPGuard"
    needs: ClassVar[TaskNeeds] = TaskNeeds(classes=True)

    def __init__(self, *, margin: float = 1.0, steps: int = 1000, learning_rate: float = 1e-2) -> None:
        if margin <= 0 or steps < 1 or learning_rate <= 0:
            raise InputError(
                f"margin, steps and learning_rate must be positive, got {margin}, {steps} and {learning_rate}"
            )
        self.margin, self.steps, self.learning_rate = margin, steps, learning_rate

    def _fit(self, context: FitContext) -> Tensor:
        natural = context.natural(context.queries)
        own = predicted(context.owner, natural)
        with torch.no_grad():
            classes = log_probabilities(context.owner(natural)).shape[1]
        draws = torch.randint(1, classes, own.shape, generator=context.generator("targets")).to(own.device)
        pair = torch.stack([own, (own + draws) % classes])
        return self._to_boundary(context, natural, pair)

    def _to_boundary(self, context: FitContext, start: Tensor, pair: Tensor) -> Tensor:
        """Return points moved by Adam from `start`, each to its own first success; pair: classes i and j, (2, n)."""
        lower, upper = context.lower, context.upper
        scale = torch.where(upper > lower, upper - lower, torch.ones_like(upper))
        # Adam's steps do not depend on the scale of the gradient: in these units its rate is a share of the range.
        position = ((start - lower) / scale).requires_grad_(True)
        optimizer = torch.optim.Adam([position], lr=self.learning_rate)
        found, done = start.clone(), torch.zeros(len(start), dtype=torch.bool, device=start.device)
        before = start.clone()
        for _ in range(self.steps):
            loss = boundary_loss(context.owner, lower + position * scale, pair, self.margin)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                position.clamp_(0.0, 1.0)
                position.copy_(torch.where(upper > lower, position, (start - lower) / scale))
                current = lower + position * scale
                reached = ~done & (boundary_loss(context.owner, current, pair, self.margin) == 0)
                if bool(reached.any()):
                    found[reached] = self._moved_back(
                        context.owner, before[reached], current[reached], pair[:, reached]
                    )
                done |= reached
                found[~done] = current[~done]
                before = current
            if bool(done.all()):
                break
        return clamp(found, lower, upper)

    def _moved_back(self, owner: nn.Module, before: Tensor, after: Tensor, pair: Tensor) -> Tensor:
        """Return the first points between two steps at which the loss is 0."""
        return crossings(before, after, lambda points: boundary_loss(owner, points, pair, self.margin) == 0)

    def _score(self, responses: FloatArray) -> float:
        return agreement(responses, self._reference.argmax(axis=1))


def boundary_loss(owner: nn.Module, inputs: Tensor, pair: Tensor, margin: float) -> Tensor:
    """Return the loss (n,) of IPGuard's eq. 5; 0 where class j leads class i by the margin and no third class leads i.

    inputs: (n, ...).
    pair: classes i and j, (2, n).
    margin: k, in nats.
    """
    scores = log_probabilities(owner(inputs))
    own, other = (scores.gather(1, row[:, None])[:, 0] for row in pair)
    thirds = scores.scatter(1, pair.T, -torch.inf).amax(dim=1)
    # of two classes there is no third: relu(-inf) is 0
    return functional.relu(own - other + margin) + functional.relu(thirds - own)


class ConferAE(Baseline):
    """Adversarial examples that transfer to derived models alone; the score is the share of equal labels, in [0, 1].

    epsilon: largest change in units of a feature's range; much less will do for large colour images, but 8x8 digits
        hardly change class then.
    steps: of Adam.
    learning_rate: of Adam, in units of epsilon.
    dropout: chance that an output is dropped, in [0, 1).
    candidates: per query.
    surrogates: most of each class, drawn from the zoo.

    The conferrability of class t is Surr(x)_t (1 - Ref(x)_t), where Surr and Ref are the mean predictions of derived
    and of independent models under dropout on their outputs. The ensemble method of the paper (section 5) minimises
    over a small change of x, by Adam, the sum, equally weighted, of: the cross-entropy of 1 and the highest
    conferrability; minus that of the owner's prediction before and after the change; that of the owner's prediction and
    Surr. Of more candidates than queries those of the highest conferrability are kept, where the paper keeps all above
    a bound.

    Raises InputError for numbers outside these ranges.

    Source: Lukas, Zhang, Kerschbaum: "Deep Neural Network Fingerprinting by Conferrable Adversarial Examples", ICLR
        2021.
    """

    name = "ConferAE"
    needs: ClassVar[TaskNeeds] = TaskNeeds(classes=True)
    least_positives = 1
    least_negatives = 1

    def __init__(
        self,
        *,
        epsilon: float = 0.15,
        steps: int = 100,
        learning_rate: float = 0.05,
        dropout: float = 0.3,
        candidates: int = 2,
        surrogates: int = 9,
    ) -> None:
        if epsilon <= 0 or steps < 1 or learning_rate <= 0 or candidates < 1 or surrogates < 1 or not 0 <= dropout < 1:
            raise InputError(
                "epsilon, steps, learning_rate, candidates and surrogates must be positive, dropout in [0, 1)"
            )
        self.epsilon, self.steps, self.learning_rate = epsilon, steps, learning_rate
        self.dropout, self.candidates, self.surrogates = dropout, candidates, surrogates

    def _fit(self, context: FitContext) -> Tensor:
        entries = context.surrogates(snapshots=False) or context.surrogates(snapshots=True)
        derived, independent = (self._drawn(models_of(entries, kind), context, str(kind)) for kind in (True, False))
        start = context.natural(most_natural(context.task, self.candidates * context.queries, context.queries))
        found = self._optimised(context, start, derived, independent)
        with torch.no_grad():
            scores = conferrability(found, derived, independent)
            changed = predicted(context.owner, found) != predicted(context.owner, start)
        # an example that the owner itself is not fooled by is no adversarial example
        order = torch.argsort(scores + changed.to(scores.dtype), descending=True, stable=True)
        return found[order[: context.queries]]

    def _drawn(self, models: Sequence[nn.Module], context: FitContext, label: str) -> list[nn.Module]:
        order = torch.randperm(len(models), generator=context.generator(f"models {label}"))
        return [models[int(index)] for index in sorted(order[: self.surrogates].tolist())]

    def _optimised(
        self, context: FitContext, start: Tensor, derived: Sequence[nn.Module], independent: Sequence[nn.Module]
    ) -> Tensor:
        low, high = box_around(start, context.lower, context.upper, self.epsilon)
        scale = self.epsilon * (context.upper - context.lower)
        with torch.no_grad():
            before = log_probabilities(context.owner(start)).exp()
        change = torch.zeros_like(start).requires_grad_(True)
        optimizer = torch.optim.Adam([change], lr=self.learning_rate)
        generator = context.generator("dropout")
        for _ in range(self.steps):
            inputs = start + change * scale
            after = log_probabilities(context.owner(inputs))
            surr = _mean_prediction(derived, inputs, self.dropout, generator)
            ref = _mean_prediction(independent, inputs, self.dropout, generator)
            highest = (surr.exp() * (1 - ref.exp())).amax(dim=1)
            loss = (
                -highest.clamp_min(1e-6).log()
                # bounded, as its maximum would be infinite
                + (before * after.clamp_min(-10.0)).sum(dim=1)
                - (after.exp() * surr).sum(dim=1)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                inside = clamp(start + change * scale, low, high)
                change.copy_(torch.where(scale > 0, (inside - start) / scale.clamp_min(1e-12), torch.zeros_like(start)))
        return clamp(start + change.detach() * scale, low, high)

    def _score(self, responses: FloatArray) -> float:
        return agreement(responses, self._reference.argmax(axis=1))


def conferrability(inputs: Tensor, derived: Sequence[nn.Module], independent: Sequence[nn.Module]) -> Tensor:
    """Return the highest conferrability (n,) of inputs (n, ...) over the classes.

    That of a class is the share of derived models that predict it, times the share of independent ones that do not.

    Source: Lukas et al., ICLR 2021, section 4.
    """
    transfer = []
    for models in (derived, independent):
        votes = [log_probabilities(model(inputs)) for model in models]
        classes = votes[0].shape[1]
        transfer.append(torch.stack([functional.one_hot(vote.argmax(1), classes) for vote in votes]).double().mean(0))
    return (transfer[0] * (1 - transfer[1])).amax(dim=1)


def _mean_prediction(models: Sequence[nn.Module], inputs: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """Return log-probabilities (n, classes) of the mean of the models' outputs, each output dropped with a chance."""
    total = torch.zeros(())
    for model in models:
        outputs = log_probabilities(model(inputs))
        # log-probabilities all lie on one side of 0: centred, a dropped output is neither likely nor unlikely
        outputs = outputs - outputs.mean(dim=1, keepdim=True)
        kept = torch.rand(outputs.shape, generator=generator).to(outputs.device) >= dropout
        total = outputs * kept / (1 - dropout) + total.to(outputs.device)
    return functional.log_softmax(total / len(models), dim=1)
