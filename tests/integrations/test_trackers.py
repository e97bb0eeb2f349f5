"""Trackers: the same values in all, read back from what each of them wrote, and the secret only where asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from small_fingerprints import handmade
from small_trainings import TINY, Network, quiet, task

import metav
from metav.integrations.loop import fingerprinting
from metav.integrations.trackers import (
    TRACKERS,
    MlflowTracker,
    TensorBoardTracker,
    WandbTracker,
    log_fingerprint,
    tracked_values,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    found = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which needs no database
    before = found.get_tracking_uri()
    found.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield found
    found.end_run()
    found.set_tracking_uri(before)


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    found = pytest.importorskip("wandb", reason="wandb is not installed")
    for name, value in {"MODE": "offline", "DIR": tmp_path, "SILENT": "true", "CACHE_DIR": tmp_path / "cache"}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield found
    found.finish()


def in_mlflow(mlflow, run):
    data = mlflow.MlflowClient().get_run(run.info.run_id).data
    texts = {name: text for name, text in data.tags.items() if name.startswith("metav.")}
    return texts, dict(data.metrics), artifacts(mlflow, run)["fingerprint.html"].decode()


def artifacts(mlflow, run):
    folder = Path(mlflow.MlflowClient().download_artifacts(run.info.run_id, "metav"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_wandb(folder):
    """Texts, numbers and the page in the file of an offline run."""
    import json

    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    texts, numbers, page = {}, {}, ""
    while (content := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(content)
        for entry in record.config.update:
            texts[entry.key or ".".join(entry.nested_key)] = json.loads(entry.value_json)
        for entry in record.history.item:
            name, value = entry.key or ".".join(entry.nested_key), json.loads(entry.value_json)
            if name == "metav/card.path":
                page = (file.parent / "files" / value).read_text()
            elif name.startswith("metav/") and not name.startswith("metav/card"):
                numbers[name] = value
    return {name: text for name, text in texts.items() if name.startswith("metav.")}, numbers, page


def in_tensorboard(folder):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    numbers = {name: accumulator.Scalars(name)[-1].value for name in accumulator.Tags()["scalars"]}
    texts = {
        name.removesuffix("/text_summary"): accumulator.Tensors(name)[-1].tensor_proto.string_val[0].decode()
        for name in accumulator.Tags()["tensors"]
    }
    return texts, numbers, texts.pop("metav/card")


def test_all_trackers_hold_the_same_values(tmp_path, mlflow, wandb):
    fp = handmade(
        zoo={"positives": 4, "negatives": 50, "owner_metric": 0.9375, "standing": {"recipe": "told", "covered": True}}
    )
    expected = tracked_values(fp)
    with mlflow.start_run() as run:
        log_fingerprint(fp, "mlflow")
    wandb.init()
    log_fingerprint(fp, "wandb")
    wandb.finish()
    log_fingerprint(fp, TensorBoardTracker(tmp_path / "events"))
    for texts, numbers, page in (in_mlflow(mlflow, run), in_wandb(tmp_path), in_tensorboard(tmp_path / "events")):
        assert texts == expected.texts
        assert page.strip() == expected.card.strip()
        assert numbers == pytest.approx(expected.numbers, rel=1e-6)
    assert expected.texts["metav.commitment"] == fp.commitment
    assert expected.numbers["metav/owner_matches"] == 1.0
    assert expected.numbers["metav/owner_score"] == 0.875
    assert expected.numbers["metav/owner_stands_among_independent"] == 1.0
    rates = fp.calibration.false_positives
    ends = [expected.numbers[f"metav/false_positives{end}"] for end in ("", "_low", "_high", "_of")]
    assert ends == [rates.value, rates.low, rates.high, rates.total]


def test_what_trackers_are_told_is_no_secret():
    fp = handmade()
    values = tracked_values(fp)
    told = f"{values.texts} {values.numbers} {values.card}"
    assert fp.salt not in told
    assert fp.commitment in values.card
    assert not any("seed" in name for name in (*values.texts, *values.numbers))
    changed = tracked_values(handmade(queries=fp.queries + 0.125))
    assert {name for name in values.texts if values.texts[name] != changed.texts[name]} == {"metav.commitment"}


def test_numbers_that_are_not_known_are_left_out():
    assert "metav/owner_matches" not in tracked_values(handmade(check={})).numbers
    assert "metav/owner_metric" not in tracked_values(handmade(zoo={"owner_metric": None})).numbers


def test_mlflow_keeps_the_file_only_where_asked_and_warns(mlflow, tmp_path):
    fp = handmade()
    with mlflow.start_run() as run, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        log_fingerprint(fp, "mlflow")
    assert set(artifacts(mlflow, run)) == {"fingerprint.html"}
    with mlflow.start_run() as run, pytest.warns(UserWarning, match="whoever has its queries can evade it"):
        log_fingerprint(fp, MlflowTracker(fingerprint_file=True))
    (tmp_path / "again.metav").write_bytes(artifacts(mlflow, run)["fingerprint.metav"])
    assert metav.load(tmp_path / "again.metav").commitment == fp.commitment


def test_mlflow_takes_a_run_its_id_or_the_last_one_and_tags_a_registered_model(mlflow):
    fp, client = handmade(), mlflow.MlflowClient()
    with pytest.raises(metav.InputError, match="no active run"):
        log_fingerprint(fp, "mlflow")
    client.create_registered_model("digits")
    version = client.create_model_version("digits", "file:///nowhere").version
    with mlflow.start_run() as run:
        pass
    for given in (run, MlflowTracker(run.info.run_id), "mlflow", MlflowTracker(registered_model=("digits", version))):
        log_fingerprint(fp, given, step=2)
    assert in_mlflow_steps(client, run) == {2}
    tags = client.get_model_version("digits", version).tags
    assert tags["metav.commitment"] == fp.commitment
    assert float(tags["metav.owner_score"]) == 0.875


def in_mlflow_steps(client, run):
    return {entry.step for entry in client.get_metric_history(run.info.run_id, "metav/owner_score")}


def test_wandb_keeps_the_file_only_where_asked_and_warns(wandb, tmp_path):
    fp, run = handmade(), wandb.init()
    log_fingerprint(fp, run)
    assert not list((tmp_path / "data").rglob("*.metav"))
    with pytest.warns(UserWarning, match="whoever has its queries can evade it"):
        log_fingerprint(fp, WandbTracker(fingerprint_file=True))
    wandb.finish()
    saved = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes()[:2] == b"PK"]
    assert [metav.load(path).commitment for path in saved]
    assert {metav.load(path).commitment for path in saved} == {fp.commitment}
    with pytest.raises(metav.InputError, match="no active run"):
        log_fingerprint(fp, "wandb")


@pytest.mark.slow
def test_loggers_of_lightning_are_trackers(tmp_path, mlflow):
    loggers = pytest.importorskip("lightning.pytorch.loggers", reason="lightning is not installed")
    fp = handmade()
    events = loggers.TensorBoardLogger(tmp_path / "events")
    log_fingerprint(fp, events)
    assert in_tensorboard(events.log_dir)[0] == tracked_values(fp).texts
    if not loggers.mlflow._MLFLOW_AVAILABLE:
        pytest.skip("Lightning's MLFlowLogger does not take this MLflow")
    logger = loggers.MLFlowLogger(tracking_uri=mlflow.get_tracking_uri())
    log_fingerprint(fp, logger)
    assert in_mlflow(mlflow, mlflow.get_run(logger.run_id))[0] == tracked_values(fp).texts


def test_a_writer_gets_the_epoch_and_stays_open(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed")
    with tensorboard.SummaryWriter(tmp_path) as writer, quiet():
        with fingerprinting(tmp_path / "o.metav", task(), trackers=writer, every=1, **TINY) as release:
            model = Network()
            release.epoch(1, model)
            release.ship(model)
        writer.add_scalar("still", 1.0, 0)
    _, numbers, page = in_tensorboard(tmp_path)
    assert numbers["still"] == 1.0
    assert release.fingerprint.commitment in page


@pytest.mark.parametrize("kind", TRACKERS, ids=lambda kind: kind.name)
def test_a_missing_library_is_named_with_what_to_install(kind, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, kind.module, None)
    with pytest.raises(metav.MissingDependencyError, match=rf"{kind.name} needs {kind.module}.*\[integrations\]"):
        log_fingerprint(handmade(), kind.name)
