"""What tasks have in common whose answers hold a class for each of several places: labels, or pixels."""

from __future__ import annotations

from torch import Tensor, nn

from metav.models.read_models import ReadModel
from metav.tasks.supervised import SupervisedTask
from metav.verifiers.places import Places


class PlacesTask(SupervisedTask):
    """A task whose answers hold a class for each of several places.

    places: all of them, and those that a fingerprint reads.
    """

    view = "relative"
    places: Places

    def read(self, model: nn.Module, *, is_read: bool = False) -> nn.Module:
        """Return a model as a fingerprint reads it: log-probabilities at the chosen places."""
        return ReadModel(model, self.places, is_read=is_read)

    def read_targets(self, targets: Tensor) -> Tensor:
        """Return the true classes (n, chosen places) of targets (n, ...)."""
        return targets.reshape(len(targets), -1)[:, list(self.places.chosen)]
