"""Ownership obfuscations: what a thief does to a model to hide its origin, each a function model -> model.

Every function is f(model, task, *, strength, seed, ...) and returns a new module in eval mode; the given one keeps its
weights, mode and gradients, and the global random state is untouched.

task: the thief's, on whose data he trains.
strength: in (0, 1], from hardly visible to as far as a thief would go who still wants to use the model; the docstring
    of each function gives the unit.
seed: of every random choice.
architecture: a callable that returns the fresh model to train; only students use it, for others it has no effect.
on_epoch: called with (share done, model) after each epoch, by functions that train.
"""

from metav.obfuscations.registry import OBFUSCATIONS, Obfuscation
from metav.obfuscations.rewriting import filter_prune, quantize, weight_noise, weight_prune
from metav.obfuscations.steps import check_strength
from metav.obfuscations.students import distill, extract_labels, extract_scores
from metav.obfuscations.tuning import (
    adversarial_train,
    finetune_all,
    finetune_last,
    prune_then_finetune,
    retrain_all,
    retrain_last,
)

__all__ = [
    "OBFUSCATIONS",
    "Obfuscation",
    "adversarial_train",
    "check_strength",
    "distill",
    "extract_labels",
    "extract_scores",
    "filter_prune",
    "finetune_all",
    "finetune_last",
    "prune_then_finetune",
    "quantize",
    "retrain_all",
    "retrain_last",
    "weight_noise",
    "weight_prune",
]
