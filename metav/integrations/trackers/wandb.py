"""Weights & Biases: texts in the configuration, numbers in history and summary, the page as HTML; works offline."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.integrations.trackers.tracked_values import TrackedValues, Tracker


class WandbTracker(Tracker):
    """A run of Weights & Biases.

    run: the run, or Lightning's WandbLogger; None for the run that is active when something is logged.
    fingerprint_file: whether the fingerprint's file is kept as an artifact, too.
    """

    def __init__(self, run: Any = None, *, fingerprint_file: bool = False) -> None:
        self._given = run
        self.fingerprint_file = fingerprint_file

    def log(self, values: TrackedValues, step: int | None) -> None:
        """Log texts into the configuration, numbers and page into history and summary."""
        import wandb

        run = self._run()
        run.config.update(dict(values.texts), allow_val_change=True)
        epoch = {} if step is None else {"metav/epoch": step}
        run.log({**values.numbers, **epoch, "metav/card": wandb.Html(values.card, inject=False)})

    def log_file(self, fingerprint: Fingerprint) -> None:
        """Keep the fingerprint's file as an artifact."""
        import wandb

        artifact = wandb.Artifact(f"fingerprint-{fingerprint.commitment[:12]}", type="metav-fingerprint")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fingerprint.metav"
            fingerprint.save(path)
            artifact.add_file(str(path))
        self._run().log_artifact(artifact)

    def _run(self) -> Any:
        import wandb

        given = self._given
        run = getattr(given, "experiment", given) if given is not None else wandb.run
        if run is None:
            raise InputError("W&B has no active run; start one with wandb.init(), or pass WandbTracker(run)")
        return run
