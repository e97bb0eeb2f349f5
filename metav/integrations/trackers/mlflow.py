"""MLflow: texts as tags, numbers as metrics, the page as an artifact, and tags of a registered model's version."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from metav.errors import InputError
from metav.fingerprints.fingerprint import Fingerprint
from metav.integrations.trackers.tracked_values import TrackedValues, Tracker

FOLDER = "metav"
"""The artifact folder of a run."""


class MlflowTracker(Tracker):
    """A run of MLflow.

    run: an MLflow run, its id, or Lightning's MLFlowLogger; None for the run that is active when something is logged,
        else the one that was last.
    registered_model: (name, version) in the model registry, which gets all values as tags; None for none.
    fingerprint_file: whether the fingerprint's file is kept as an artifact, too.
    """

    def __init__(
        self,
        run: Any = None,
        *,
        registered_model: tuple[str, str | int] | None = None,
        fingerprint_file: bool = False,
    ) -> None:
        self._run = run
        self._registered = registered_model
        self.fingerprint_file = fingerprint_file

    def log(self, values: TrackedValues, step: int | None) -> None:
        """Log texts as tags, numbers as metrics, the page as an artifact."""
        client, run = self._client(), self._run_id()
        for name, text in values.texts.items():
            client.set_tag(run, name, text)
        for name, number in values.numbers.items():
            client.log_metric(run, name, number, step=step)
        client.log_text(run, values.card, f"{FOLDER}/fingerprint{'' if step is None else f'-epoch{step}'}.html")
        if self._registered is not None:
            model, version = self._registered
            for name, value in {**values.texts, **values.numbers}.items():
                client.set_model_version_tag(model, str(version), name.replace("/", "."), str(value))

    def log_file(self, fingerprint: Fingerprint) -> None:
        """Keep the fingerprint's file as an artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fingerprint.metav"
            fingerprint.save(path)
            self._client().log_artifact(self._run_id(), str(path), FOLDER)

    def _client(self) -> Any:
        from mlflow import MlflowClient

        own = getattr(self._run, "experiment", None)  # of Lightning's logger
        return own if isinstance(own, MlflowClient) else MlflowClient()

    def _run_id(self) -> str:
        import mlflow
        from mlflow.exceptions import MlflowException

        missing = "MLflow has no active run; start one with mlflow.start_run(), or pass MlflowTracker(run)"
        try:
            run = self._run or mlflow.active_run() or mlflow.last_active_run()
        except MlflowException as error:  # the last one is kept elsewhere
            raise InputError(missing) from error
        if run is None:
            raise InputError(missing)
        if isinstance(run, str):
            return run
        found = getattr(run, "run_id", None) or run.info.run_id
        return str(found)
