"""Trackers of experiments: what a fingerprint shows goes there, the fingerprint itself only where that is asked for."""

from __future__ import annotations

from metav.integrations.trackers.mlflow import MlflowTracker
from metav.integrations.trackers.registry import TRACKERS, TrackerKind, log_fingerprint, open_tracker
from metav.integrations.trackers.tensorboard import TensorBoardTracker
from metav.integrations.trackers.tracked_values import TrackedValues, Tracker, tracked_values
from metav.integrations.trackers.wandb import WandbTracker

__all__ = [
    "TRACKERS",
    "MlflowTracker",
    "TensorBoardTracker",
    "TrackedValues",
    "Tracker",
    "TrackerKind",
    "WandbTracker",
    "log_fingerprint",
    "open_tracker",
    "tracked_values",
]
