"""Makes the fingerprints of this folder: one of each kind of task, small, and what they must answer.

Run once, with metav 0.1.0: `METAV_ISA=generic python make_fingerprints.py FOLDER`. Kept to show how the files were
made. The generic instruction set sums alike on every processor.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

import metav

OPTIONS = metav.OptimizationOptions(queries=8, hidden=4, steps=10, refit_steps=50, repeats=2)


def tasks() -> dict[str, tuple[metav.Task, nn.Module]]:
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None] / 16
    diabetes = load_diabetes()
    values = diabetes.data.astype(np.float32)
    targets = ((diabetes.target - diabetes.target.mean()) / diabetes.target.std()).astype(np.float32)[:, None]
    torch.manual_seed(0)
    return {
        "classification": (
            metav.Classification(images[:600], digits.target[:600], bounds=(0.0, 1.0), levels=17, epochs=5),
            nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)),
        ),
        "regression": (
            metav.Regression(values, targets, epochs=10),
            nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1)),
        ),
        "generation": (
            metav.Generation(images[:400], latent=4, bounds=(-3.0, 3.0), epochs=2),
            nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))),
        ),
    }


def main(folder: Path) -> None:
    assert metav.cpu_info().isa == "generic", "set METAV_ISA=generic: other instruction sets sum in another order"
    folder.mkdir(parents=True, exist_ok=True)
    expected = {"metav": metav.__version__}
    for name, (task, owner) in tasks().items():
        task.train(owner, seed=0)
        zoo = metav.build_zoo(owner, task, positives=10, negatives=10, snapshots=0, seed=1)
        fp = metav.fingerprint(owner, task, zoo=zoo, options=OPTIONS, target_fpr=0.2, seed=2)
        fp.save(folder / f"{name}.metav")
        with torch.no_grad():
            answers = owner(torch.from_numpy(np.array(fp.queries))).reshape(1, len(fp.queries), -1).numpy()
        noise = np.random.default_rng(0).normal(size=(3, *answers.shape[1:])).astype(np.float32)
        responses = np.concatenate([answers, answers + 0.3 * noise, noise]).astype(np.float32)
        np.save(folder / f"{name}_responses.npy", responses)
        verdict = metav.verify(fp, responses[0])
        expected[name] = {
            "commitment": fp.commitment,
            "logits": [float(value).hex() for value in fp.logits(responses)],
            "scores": [float(value).hex() for value in fp.scores(responses)],
            "task_digest": task.digest(),
            "decision": str(verdict.decision),
            "p_value": verdict.p_value,
        }
    (folder / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
