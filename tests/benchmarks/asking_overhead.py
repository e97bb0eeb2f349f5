"""What `metav.verify` adds to a suspect's own time, its log included: a ResNet-18, 100 queries, one thread.

    python tests/benchmarks/asking_overhead.py --size 224
    python tests/benchmarks/asking_overhead.py --size 28 --scan 500 --width 64

The suspect's own time is that of the same queries in the same batches (`verify` asks eight of them twice), in turn with
verdicts without and with a log. `--scan N` judges N ONNX files, ResNet-18 as well, one by one and by two workers
instead. Medians, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import metav
from metav import _core
from metav.experiments.scenarios.architectures.skin import skin_resnet18
from metav.fingerprints.fingerprint import Fingerprint, TaskSpecification, derive_salt
from metav.statistics.calibration import calibrate
from metav.statistics.calibration_models import CalibrationModels
from metav.verifiers.meta_verifier import Member, MetaVerifier

QUERIES, CLASSES = 100, 7


def fingerprint(size: int) -> Fingerprint:
    """A fingerprint of random numbers: what it says means nothing, it takes the time of any other."""
    random = np.random.default_rng(0)
    verifier = _core.Verifier("mlp", QUERIES, CLASSES, view="tempered", hidden=64)
    responses = random.standard_normal((60, QUERIES, CLASSES)).astype(np.float32)
    verifier.standardize(responses)
    whole = {"start": 0, "stop": QUERIES, "weight": 1.0, "center": 0.0, "spread": 1.0}
    members = MetaVerifier((Member(verifier=verifier, name="mlp:all", **whole),))
    models = CalibrationModels(
        responses=responses,
        derived=np.arange(60) < 20,
        free=np.zeros(60, bool),
        families=("noise",) * 20 + ("independent",) * 40,
        parts=np.zeros(60),
    )
    logits = members.logits_of_part(responses, 0)
    shape = (3, size, size)
    return Fingerprint(
        task=TaskSpecification(
            name="classification",
            view="tempered",
            input_shape=shape,
            outputs=CLASSES,
            levels=None,
            metric_name="accuracy",
            higher_is_better=True,
        ),
        queries=random.uniform(size=(QUERIES, *shape)).astype(np.float32),
        adaptive=60,
        lower=np.zeros(shape, np.float32),
        upper=np.ones(shape, np.float32),
        meta_verifier=members,
        calibration=calibrate(logits[:20], logits[20:], target_fpr=0.05),
        zoo={},
        options={},
        history={},
        versions={},
        seed=0,
        salt=derive_salt(0, "0" * 64),
        calibration_models=models,
    )


def seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    call()
    return clock() - start


def overhead(size: int, batch_size: int, repeats: int, clock: Callable[[], float]) -> dict[str, object]:
    fp, model = fingerprint(size), skin_resnet18(64).eval()
    queries = torch.from_numpy(np.array(fp.queries))
    again = queries[np.unique(np.linspace(0, QUERIES - 1, 8).astype(int))]

    def own() -> None:
        with torch.no_grad():
            for part in (queries, again):
                for batch in part.split(batch_size):
                    model(batch)

    own(), metav.verify(fp, model, batch_size=batch_size)
    times: dict[str, list[float]] = {"own": [], "verify": [], "logged": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            log = Path(folder) / f"{repeat}.db"
            times["own"].append(seconds(own, clock))
            times["verify"].append(seconds(lambda: metav.verify(fp, model, batch_size=batch_size), clock))
            times["logged"].append(
                seconds(lambda file=log: metav.verify(fp, model, batch_size=batch_size, log=file), clock)
            )
    middle = {name: statistics.median(values) for name, values in times.items()}
    added = {name: statistics.median(a - b for a, b in zip(times[name], times["own"], strict=True)) for name in times}
    return {
        "size": size,
        "batch_size": batch_size,
        "clock": clock.__name__,
        **{f"{name}_seconds": round(value, 4) for name, value in middle.items()},
        "verify_percent": round(100 * added["verify"] / middle["own"], 2),
        "logged_percent": round(100 * added["logged"] / middle["own"], 2),
    }


def scan_speed(size: int, count: int, width: int) -> dict[str, object]:
    fp = fingerprint(size)
    with tempfile.TemporaryDirectory() as folder:
        fp.save(Path(folder) / "owner.metav")
        models = Path(folder) / "models"
        models.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept = models / "000.onnx"
            torch.onnx.export(
                skin_resnet18(width).eval(),
                (torch.zeros(2, 3, size, size),),
                kept,
                dynamo=False,
                dynamic_axes={"images": {0: "n"}},
                input_names=["images"],
            )
        for number in range(1, count):
            os.link(kept, models / f"{number:03}.onnx")
        megabytes = kept.stat().st_size / 1e6
        found = {}
        for workers in (1, 2):
            store = Path(folder) / f"{workers}.db"
            owner = str(Path(folder) / "owner.metav")
            found[workers] = seconds(
                lambda n=workers, file=store, fp=owner: metav.scan(fp, [str(models)], store=file, workers=n)
            )
    return {
        "suspects": count,
        "megabytes_each": round(megabytes, 1),
        "one_by_one_seconds": round(found[1], 2),
        "two_workers_seconds": round(found[2], 2),
        "times_as_fast": round(found[1] / found[2], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of a side")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cpu", action="store_true", help="time of the processor, without waiting for the disk or it")
    parser.add_argument("--scan", type=int, help="number of suspects to scan")
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer of a scanned ResNet-18")
    options = parser.parse_args()
    torch.set_num_threads(1)
    metav.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    clock = time.process_time if options.cpu else time.perf_counter
    if options.scan is None:
        print(json.dumps(overhead(options.size, options.batch_size, options.repeats, clock)))
    else:
        print(json.dumps(scan_speed(options.size, options.scan, options.width)))


if __name__ == "__main__":
    main()
