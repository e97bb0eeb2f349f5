"""Models whose answers hold a class for each of several places, as fingerprints read them: a few places of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metav.models.staging import on_device
from metav.verifiers.places import Places


class ReadModel(nn.Module):
    """A model as a fingerprint reads it: log-probabilities of the classes at the chosen places, (n, outputs).

    inner: answers log-odds (n, labels) where each place has two classes and one number, else scores (n, classes, ...).
    places: all of them, and those that are read.
    is_read: whether the model answers numbers at the chosen places already, and is only brought to their form.
    """

    identity_name = "ReadModel"
    corners: Tensor
    weights: Tensor

    def __init__(self, inner: nn.Module, places: Places, *, is_read: bool = False) -> None:
        super().__init__()
        self.inner, self.places, self.is_read = inner, places, is_read
        corners, weights = places.points(places.shape)
        self.register_buffer("corners", torch.from_numpy(corners), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights), persistent=False)

    def forward(self, queries: Tensor) -> Tensor:
        """Return the log-probabilities (n, places * classes) for queries (n, ...)."""
        outputs, places = self.inner(queries), self.places
        if self.is_read:
            return functional.log_softmax(outputs.reshape(len(outputs), -1, places.classes), dim=2).flatten(1)
        where, share = self.corners, self.weights
        resized = outputs.ndim == 2 + len(places.shape) and tuple(outputs.shape[2:]) != places.shape
        if resized:
            corners, weights = places.points(tuple(outputs.shape[2:]))
            where, share = (on_device(torch.from_numpy(part), outputs.device) for part in (corners, weights))
        scores = outputs.flatten(2) if resized else outputs.reshape(len(outputs), -1, places.count)
        read = (scores[:, :, where] * share).sum(dim=2)
        return place_log_probabilities(read).transpose(1, 2).flatten(1)

    def extra_repr(self) -> str:
        """Return all that decides what is read."""
        return f"{self.places}, is_read={self.is_read}"


def place_log_probabilities(scores: Tensor) -> Tensor:
    """Return log-probabilities (n, classes, ...) of scores (n, classes, ...), or of log-odds (n, 1, ...) of the second.

    Scores are logits, log-probabilities, or probabilities that sum to one at each place.
    """
    if scores.shape[1] == 1:
        return torch.cat([functional.logsigmoid(-scores), functional.logsigmoid(scores)], dim=1)
    return class_log_probabilities(scores)


def class_log_probabilities(scores: Tensor) -> Tensor:
    """Return log-probabilities (n, classes, ...) of logits, log-probabilities, or probabilities that sum to one."""
    known = scores.detach()
    if scores.device.type == "cpu":
        if bool((known >= 0).all()) and bool(((known.sum(dim=1) - 1.0).abs() < 1e-4).all()):
            return scores.clamp_min(1e-8).log()
        return functional.log_softmax(scores, dim=1)
    # both, and the choice made there: the host would have to wait for it, at each step of a training
    are_probabilities = (known >= 0).all() & ((known.sum(dim=1) - 1.0).abs() < 1e-4).all()
    return torch.where(are_probabilities, scores.clamp_min(1e-8).log(), functional.log_softmax(scores, dim=1))
