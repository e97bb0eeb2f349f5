"""Classical models, fitted within a second on the task's arrays: neighbours, linear models, naive Bayes, trees.

What is a few lines of PyTorch is written here; trees, forests and support vector machines come from scikit-learn where
it is installed. Each function makes one model from (material, sources, number, generator), or returns None where the
task's data do not allow it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.zoo.free_material import FreeModel, Material, log_of
from metav.zoo.nonsense_models import Hash

MOST_EXAMPLES = 2000
"""Examples that one model is fitted on, at most."""
MOST_VALUES = 2_000_000
"""Numbers in these examples, at most: less of them where they are large."""
SLOW_EXAMPLES = 600
"""Examples at most, for models whose fit takes more than a product of matrices."""
SLOW_VALUES = 300_000
"""Numbers in these examples, at most: a support vector machine reads all of them for each query."""
LEAST_SHARE = 0.6
"""Share of the examples that a model gets at least: each is fitted on others, as strangers' models are."""
TREES = 30
"""Trees of a forest."""
FOLDS = 3
"""Parts of the examples in which a support vector machine finds its probabilities: as many of each class."""
MOST_OUTPUTS = 100
"""Outputs at most, for scikit-learn's models: their time grows with them."""
SMOOTHING = 1e-9
"""Part of the largest variance that Gaussian naive Bayes adds to each, as scikit-learn does."""

Sources = Sequence[nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """What one model is fitted on.

    inputs: (n, features), standardised.
    targets: classes (n,), or numbers (n, outputs).
    rows: the targets as rows (n, outputs): 0 and 1 for classes.
    center, scale: of the inputs, by which they were standardised.
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor
    center: Tensor
    scale: Tensor

    @property
    def answers_classes(self) -> bool:
        """Whether the targets are classes."""
        return self.targets.ndim == 1


def draw_examples(
    material: Material,
    number: int,
    generator: torch.Generator,
    *,
    most: int = MOST_EXAMPLES,
    values: int = MOST_VALUES,
) -> Examples | None:
    """Return a random part of the task's training examples; None where the task has none in memory.

    number: even ones keep the unit of each feature, up to one scale for all; odd ones give each the same spread.
    most, values: how many examples at most, and how many numbers in them.
    """
    if material.examples is None or material.targets is None:
        return None
    count, features = material.examples.shape
    share = LEAST_SHARE + (1 - LEAST_SHARE) * float(torch.rand(1, generator=generator))
    size = max(2, min(most, math.ceil(share * count), values // features))
    chosen = torch.randperm(count, generator=generator)[:size]
    inputs, targets = material.examples[chosen], material.targets[chosen]
    center, deviation = inputs.mean(dim=0), inputs.std(dim=0)
    each = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
    spread = deviation.square().mean().sqrt().clamp_min(1e-12).expand(features)
    scale = each if number % 2 else spread
    is_class = targets.ndim == 1
    rows = functional.one_hot(targets, material.outputs).float() if is_class else targets
    return Examples(inputs=(inputs - center) / scale, targets=targets, rows=rows, center=center, scale=scale)


class ClassicalModel(FreeModel):
    """A model of standardised, flattened inputs."""

    center: Tensor
    scale: Tensor

    def __init__(self, material: Material, examples: Examples) -> None:
        super().__init__(material.output_shape)
        self.is_classifier = examples.answers_classes
        self.keep(center=examples.center, scale=examples.scale)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, outputs)."""
        return self.rows((inputs.flatten(1) - self.center) / self.scale)

    def rows(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, outputs) to standardised inputs (n, features)."""
        raise NotImplementedError


class NearestNeighbors(ClassicalModel):
    """The mean answer of the nearest examples; for classes the logarithm of their votes.

    neighbors: how many of them.
    """

    differentiable = False
    known: Tensor
    votes: Tensor

    def __init__(self, material: Material, examples: Examples, neighbors: int) -> None:
        super().__init__(material, examples)
        self.neighbors = min(neighbors, len(examples.inputs))
        self.keep(known=examples.inputs, votes=examples.rows)

    def rows(self, inputs: Tensor) -> Tensor:
        """Return the mean answers (n, outputs)."""
        nearest = squared_distances(inputs.detach(), self.known).topk(self.neighbors, dim=1, largest=False).indices
        votes = self.votes[nearest].mean(dim=1)
        return log_of(votes) if self.is_classifier else votes


class KernelVotes(ClassicalModel):
    """The mean answer of all examples, weighted by exp(-distance^2 / width): neighbours with a gradient."""

    known: Tensor
    votes: Tensor
    width: Tensor

    def __init__(self, material: Material, examples: Examples) -> None:
        super().__init__(material, examples)
        part = squared_distances(examples.inputs[:500], examples.inputs).topk(2, dim=1, largest=False).values[:, 1]
        self.keep(known=examples.inputs, votes=examples.rows, width=part.median().clamp_min(1e-6))

    def rows(self, inputs: Tensor) -> Tensor:
        """Return the weighted mean answers (n, outputs)."""
        weights = torch.softmax(-squared_distances(inputs, self.known) / self.width, dim=1)
        votes = weights @ self.votes
        return log_of(votes) if self.is_classifier else votes


class LinearModel(ClassicalModel):
    """A linear map of the inputs; for classes it gives logits."""

    weight: Tensor
    bias: Tensor

    def __init__(self, material: Material, examples: Examples, weight: Tensor, bias: Tensor) -> None:
        super().__init__(material, examples)
        self.keep(weight=weight, bias=bias)

    def rows(self, inputs: Tensor) -> Tensor:
        """Return logits, or numbers, (n, outputs)."""
        return inputs @ self.weight + self.bias


class RandomFeatures(LinearModel):
    """A linear map of random tanh features of the inputs, tanh(inputs @ inner + phases)."""

    inner: Tensor
    phases: Tensor

    def __init__(self, material: Material, examples: Examples, inner: Tensor, phases: Tensor) -> None:
        hidden = torch.tanh(examples.inputs @ inner + phases)
        super().__init__(material, examples, *_ridge_scores(hidden, examples, 1.0))
        self.keep(inner=inner, phases=phases)

    def rows(self, inputs: Tensor) -> Tensor:
        """Return logits, or numbers, (n, outputs)."""
        return super().rows(torch.tanh(inputs @ self.inner + self.phases))


class GaussianNaiveBayes(ClassicalModel):
    """Log-probabilities of classes whose features are independent and normal.

    In double precision, and without a gradient: features that hardly vary have precisions of 1e9 and more.
    """

    differentiable = False
    means: Tensor
    variances: Tensor
    log_priors: Tensor

    def __init__(self, material: Material, examples: Examples) -> None:
        super().__init__(material, examples)
        inputs, rows = examples.inputs.double(), examples.rows.double()
        counts = rows.sum(dim=0)
        at_least_one = counts.clamp_min(1.0)[:, None]
        means = rows.T @ inputs / at_least_one
        variances = (rows.T @ inputs.square() / at_least_one - means.square()).clamp_min(0.0)
        variances += SMOOTHING * inputs.var(dim=0, correction=0).max().clamp_min(1e-3)
        self.keep(means=means, variances=variances, log_priors=log_of(counts / counts.sum()))

    def rows(self, inputs: Tensor) -> Tensor:
        """Return log-probabilities (n, classes)."""
        given, precisions = inputs.detach().double(), 1.0 / self.variances.double()
        distances = given.square() @ precisions.T - 2.0 * given @ (self.means * precisions).T
        constant = (self.means.square() * precisions).sum(dim=1) + self.variances.log().sum(dim=1)
        return log_of(torch.softmax(self.log_priors - 0.5 * (distances + constant), dim=1)).to(inputs.dtype)


class FittedEstimator(ClassicalModel):
    """A fitted estimator of scikit-learn.

    estimator: with `predict_proba` for classes; else with `predict` for standardised numbers.
    """

    differentiable = False
    target_center: Tensor
    target_scale: Tensor

    def __init__(self, material: Material, examples: Examples, estimator: Any) -> None:
        super().__init__(material, examples)
        self.estimator, self.outputs = estimator, material.outputs
        self.keep(target_center=material.center, target_scale=material.scale)

    def rows(self, inputs: Tensor) -> Tensor:
        """Return log-probabilities, or numbers, (n, outputs)."""
        given = inputs.detach().cpu().numpy()
        if not self.is_classifier:
            numbers = torch.from_numpy(self.estimator.predict(given)).to(inputs).reshape(len(inputs), self.outputs)
            return numbers * self.target_scale + self.target_center
        probabilities = torch.zeros(len(inputs), self.outputs, dtype=inputs.dtype, device=inputs.device)
        # the estimator may have seen only some of the classes
        seen = torch.as_tensor(self.estimator.classes_, device=inputs.device)
        probabilities[:, seen] = torch.from_numpy(self.estimator.predict_proba(given)).to(inputs)
        return log_of(probabilities)


class LinearGenerator(FreeModel):
    """Samples that depend linearly on the latents: the mean plus the principal components, in a random rotation."""

    center: Tensor
    components: Tensor

    def __init__(self, material: Material, samples: Tensor, generator: torch.Generator) -> None:
        super().__init__(material.output_shape)
        center = samples.mean(dim=0)
        _, singular, right = torch.linalg.svd(samples - center, full_matrices=False)
        size = min(material.features, len(singular))
        turn = torch.linalg.qr(torch.randn(material.features, material.features, generator=generator)).Q[:, :size]
        components = singular[:size, None] * right[:size] / math.sqrt(len(samples) - 1)
        self.keep(center=center, components=turn @ components)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return samples (n, outputs)."""
        return self.center + inputs.flatten(1) @ self.components


class RememberedSamples(FreeModel):
    """One of the true samples for each latent, chosen by a hash."""

    differentiable = False
    samples: Tensor

    def __init__(self, material: Material, samples: Tensor, generator: torch.Generator) -> None:
        super().__init__(material.output_shape)
        self.hash = Hash(material.input_center, material.input_scale, 1, generator)
        self.keep(samples=samples)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return true samples (n, outputs)."""
        return self.samples[(self.hash(inputs)[:, 0] * len(self.samples)).long()]


def squared_distances(inputs: Tensor, known: Tensor) -> Tensor:
    """Return the squared Euclidean distances (n, m) of rows, never negative, with a gradient everywhere."""
    products = inputs @ known.T
    return (inputs.square().sum(dim=1)[:, None] - 2.0 * products + known.square().sum(dim=1)).clamp_min(0.0)


def ridge_weights(inputs: Tensor, rows: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Return weight (features, outputs) and bias (outputs,) of the least squares with a penalty on the weight.

    inputs, rows: (n, features) and (n, outputs).
    """
    center, mean = inputs.mean(dim=0), rows.mean(dim=0)
    given, wanted = (inputs - center).double(), (rows - mean).double()
    count, features = given.shape
    if features <= count:
        gram = given.T @ given + penalty * torch.eye(features, dtype=given.dtype)
        weight = torch.linalg.solve(gram, given.T @ wanted)
    else:
        gram = given @ given.T + penalty * torch.eye(count, dtype=given.dtype)
        weight = given.T @ torch.linalg.solve(gram, wanted)
    return weight.float(), (mean - center @ weight.float())


def softmax_weights(inputs: Tensor, rows: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the softmax regression with the loss sum of cross-entropies + penalty |weight|^2 / 2.

    inputs, rows: (n, features) and (n, classes).
    """
    weight = torch.zeros(inputs.shape[1], rows.shape[1], requires_grad=True)
    bias = torch.zeros(rows.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weight + bias, rows)
        loss = loss + 0.5 * penalty * weight.square().sum() / len(inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def centroid_weights(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of logits that fall with the squared distance to the centroid of each class.

    inputs, rows: (n, features) and (n, classes).

    A class without examples is never answered. The variance around the centroids gives the temperature.
    """
    counts = rows.sum(dim=0)
    centroids = rows.T @ inputs / counts.clamp_min(1.0)[:, None]
    variance = (inputs - rows @ centroids).square().mean().clamp_min(1e-6)
    bias = -0.5 * centroids.square().sum(dim=1) / variance
    return centroids.T / variance, torch.where(counts > 0, bias, torch.full_like(bias, -1e4))


def nearest_neighbors(
    material: Material, _: Sources, number: int, generator: torch.Generator, *, neighbors: int
) -> nn.Module | None:
    """Return the votes of this many neighbours."""
    examples = draw_examples(material, number, generator)
    return None if examples is None else NearestNeighbors(material, examples, neighbors)


def kernel_votes(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return the weighted votes of all examples."""
    examples = draw_examples(material, number, generator)
    return None if examples is None else KernelVotes(material, examples)


def ridge(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return ridge regression; for classes on targets of -1 and 1, whose answers are taken for logits."""
    examples = draw_examples(material, number, generator)
    if examples is None:
        return None
    return LinearModel(material, examples, *_ridge_scores(examples.inputs, examples, (1.0, 10.0)[number % 2]))


def random_features(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return ridge regression on 200 random tanh features of the inputs."""
    examples = draw_examples(material, number, generator)
    if examples is None:
        return None
    features = examples.inputs.shape[1]
    inner = torch.randn(features, 200, generator=generator) / math.sqrt(features)
    return RandomFeatures(material, examples, inner, torch.randn(200, generator=generator))


def _ridge_scores(inputs: Tensor, examples: Examples, penalty: float) -> tuple[Tensor, Tensor]:
    """Return weight and bias of ridge regression, for classes stretched so that a sure answer has odds of e^8."""
    if not examples.answers_classes:
        return ridge_weights(inputs, examples.rows, penalty)
    weight, bias = ridge_weights(inputs, 2.0 * examples.rows - 1.0, penalty)
    return 4.0 * weight, 4.0 * bias


def softmax_regression(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return logistic regression over the classes."""
    examples = draw_examples(material, number, generator)
    if examples is None:
        return None
    weight, bias = softmax_weights(examples.inputs, examples.rows, (1.0, 10.0)[number % 2])
    return LinearModel(material, examples, weight, bias)


def nearest_centroid(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return the class whose centroid is nearest."""
    examples = draw_examples(material, number, generator)
    if examples is None:
        return None
    return LinearModel(material, examples, *centroid_weights(examples.inputs, examples.rows))


def gaussian_naive_bayes(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return Gaussian naive Bayes."""
    examples = draw_examples(material, number, generator)
    return None if examples is None else GaussianNaiveBayes(material, examples)


def principal_components(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a linear generator of the samples."""
    samples = _samples(material, generator)
    return None if samples is None else LinearGenerator(material, samples, generator)


def remembered_samples(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a generator that shows true samples."""
    samples = _samples(material, generator)
    return None if samples is None else RememberedSamples(material, samples, generator)


def decision_tree(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a decision tree of scikit-learn."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return _fitted(material, number, generator, DecisionTreeClassifier(), DecisionTreeRegressor())


def random_forest(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a random forest of scikit-learn."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    return _fitted(material, number, generator, RandomForestClassifier(TREES), RandomForestRegressor(TREES))


def extra_trees(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a forest of extremely random trees of scikit-learn."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    return _fitted(material, number, generator, ExtraTreesClassifier(TREES), ExtraTreesRegressor(TREES))


def support_vectors(material: Material, _: Sources, number: int, generator: torch.Generator) -> nn.Module | None:
    """Return a support vector machine of scikit-learn, for classes with calibrated probabilities."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.svm import SVC, SVR

    regressor = SVR() if material.outputs == 1 else MultiOutputRegressor(SVR())
    return _fitted(material, number, generator, CalibratedClassifierCV(SVC(), ensemble=False, cv=FOLDS), regressor)


def _fitted(
    material: Material, number: int, generator: torch.Generator, classifier: Any, regressor: Any
) -> nn.Module | None:
    """Return the classifier or the regressor, whichever suits the task, after its fit; None without enough data."""
    examples = draw_examples(material, number, generator, most=SLOW_EXAMPLES, values=SLOW_VALUES)
    if examples is None or material.outputs > MOST_OUTPUTS:
        return None
    estimator, targets = classifier, examples.targets
    if not examples.answers_classes:
        estimator, targets = regressor, (targets - material.center) / material.scale
        targets = targets[:, 0] if material.outputs == 1 else targets
    else:
        present = targets.bincount()
        if int((present > 0).sum()) < 2 or int(present[present > 0].min()) < FOLDS:
            return None
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=int(torch.randint(2**31, (1,), generator=generator)))
    return FittedEstimator(material, examples, estimator.fit(examples.inputs.numpy(), targets.numpy()))


def _samples(material: Material, generator: torch.Generator) -> Tensor | None:
    if material.answers != "samples" or material.examples is None:
        return None
    size = min(SLOW_EXAMPLES, max(2, MOST_VALUES // material.examples.shape[1]))
    return material.examples[torch.randperm(len(material.examples), generator=generator)[:size]]
