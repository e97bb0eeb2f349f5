"""Test suspects of another library: scikit-learn's models, fitted on the task's data, as modules without weights.

What zoos hold of them is in `classical_negatives`; no suspect is of a family that is there, nor shares code with it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metav.errors import InputError
from metav.support.randomness import derive_seed
from metav.tasks.array_task import ArrayTask
from metav.tasks.base import Task

MOST_FEATURES = 1024
"""Features of one input up to which scikit-learn's models are fitted."""
MOST_EXAMPLES = 2000
"""Examples that each is fitted on, at most."""


class ClassicalSuspect(nn.Module):
    """A fitted scikit-learn estimator as a module: classifiers answer probabilities (n, classes).

    estimator: fitted on flattened inputs, float32.
    output_shape: of one answer.
    """

    def __init__(self, estimator: Any, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.estimator, self.output_shape = estimator, output_shape

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the answers (n, ...) to inputs (n, ...)."""
        rows = inputs.detach().flatten(1).cpu().numpy()
        if hasattr(self.estimator, "predict_proba"):
            answers = np.zeros((len(rows), math.prod(self.output_shape)), dtype=np.float32)
            answers[:, self.estimator.classes_] = self.estimator.predict_proba(rows)
        else:
            answers = np.asarray(self.estimator.predict(rows), dtype=np.float32)
        return torch.from_numpy(answers).reshape(len(rows), *self.output_shape).to(inputs.device)

    def extra_repr(self) -> str:
        """Return the estimator, so that models of different ones have different identities."""
        return repr(self.estimator)


def takes_classical(task: Task) -> bool:
    """Return whether scikit-learn is installed, and the inputs are vectors or small images, so that it can be used."""
    if not isinstance(task, ArrayTask) or task.targets is None or task.kind.inputs_are_latents or task.places:
        return False
    return math.prod(task.input_shape) <= MOST_FEATURES and importlib.util.find_spec("sklearn") is not None


def classical_suspect(task: Task, number: int, seed: int) -> ClassicalSuspect:
    """Return a fitted scikit-learn model; `number` chooses its family in turn, `seed` the examples and its draws.

    Raises InputError for a task that `takes_classical` refuses.
    """
    if not isinstance(task, ArrayTask) or task.targets is None:
        raise InputError(f"scikit-learn's models need arrays with targets, got a {task.name} task without")
    generator = torch.Generator().manual_seed(derive_seed(seed, "examples"))
    part = task.training_indices
    chosen = part[torch.randperm(len(part), generator=generator)[: min(MOST_EXAMPLES, max(2, round(0.9 * len(part))))]]
    inputs, targets = task.examples[chosen].flatten(1).numpy(), task.targets[chosen].numpy()
    own_seed = derive_seed(seed, "estimator") % 2**32
    if task.kind.answers_classes:
        estimator = _classifiers(own_seed, number, len(inputs))
    else:
        targets = targets.reshape(len(targets), -1)
        estimator = _regressors(own_seed, number, len(inputs), targets.shape[1])
        targets = targets[:, 0] if targets.shape[1] == 1 else targets
    with warnings.catch_warnings():
        # a network whose training is short on purpose
        warnings.simplefilter("ignore", _convergence_warning())
        estimator.fit(inputs, targets)
    shape = (int(task.outputs or 1),) if task.kind.answers_classes else tuple(task.targets.shape[1:])
    return ClassicalSuspect(estimator, shape).eval()


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    return ConvergenceWarning  # type: ignore[no-any-return]


def _classifiers(seed: int, number: int, count: int) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=60, batch_size=min(64, count), random_state=seed)
    return (
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
        HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=8, early_stopping=False, random_state=seed),
        make_pipeline(StandardScaler(), network),
        AdaBoostClassifier(n_estimators=60, random_state=seed),
    )[number % 4]


def _regressors(seed: int, number: int, count: int, outputs: int) -> Any:
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    boosting = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=8, early_stopping=False, random_state=seed)
    network = MLPRegressor(hidden_layer_sizes=(64,), max_iter=120, batch_size=min(64, count), random_state=seed)
    return (
        PLSRegression(n_components=1),
        boosting if outputs == 1 else MultiOutputRegressor(boosting),
        make_pipeline(StandardScaler(), network),
        make_pipeline(StandardScaler(), KernelRidge(kernel="laplacian", alpha=1.0)),
    )[number % 4]
