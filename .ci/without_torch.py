"""Verification where PyTorch is not installed: an ONNX file, a service and recorded answers, as where it is.

python .ci/without_torch.py make FOLDER       where torch, onnx and scikit-learn are installed
python .ci/without_torch.py judge FOLDER      where torch is not, with the extras onnx and http
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

import metav


def make(folder: Path) -> None:
    """Write a fingerprint, a copy of its owner as an ONNX file, its answers, and the verdict on it."""
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = torch.tensor(data.images[:, None] / 16, dtype=torch.float32), torch.tensor(data.target)

    def trained(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        layers = torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[:600]), labels[:600]).backward()
            optimizer.step()
        return model.eval()

    owner = trained(0)
    task = metav.Classification(images[:600], labels[:600])
    zoo = metav.build_zoo(owner, task, recipe=trained, positives=24, negatives=24, progress=False)
    fp = metav.fingerprint(owner, task, zoo=zoo, queries=30, progress=False)
    fp.save(folder / "owner.metav")
    example = torch.from_numpy(np.array(fp.queries))
    torch.onnx.export(
        owner, (example,), folder / "copy.onnx", dynamo=False, input_names=["images"], dynamic_axes={"images": {0: "n"}}
    )
    np.save(folder / "answers.npy", owner(example).detach().numpy())
    verdict = metav.verify(fp, owner)
    (folder / "verdict.json").write_text(json.dumps({"decision": str(verdict.decision), "score": verdict.score}))


class _Service(BaseHTTPRequestHandler):
    """The Open Inference Protocol as far as one model needs it."""

    session: Any

    def do_GET(self) -> None:
        described = {"name": "images", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
        answer = {"name": "scores", "datatype": "FP32", "shape": [-1, 10]}
        self._send({"name": "copy", "platform": "onnx", "inputs": [described], "outputs": [answer]})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]
        batch = np.array(sent["data"], dtype=np.float32).reshape(sent["shape"])
        rows = self.session.run(None, {"images": batch})[0]
        found = {"name": "scores", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        self._send({"model_name": "copy", "outputs": [found]})

    def _send(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Keep quiet."""


def judge(folder: Path) -> None:
    """Verify the copy in three ways; raise AssertionError where one differs from the verdict on the model itself."""
    import onnxruntime

    assert importlib.util.find_spec("torch") is None, "PyTorch is installed here, so that this shows nothing"
    wanted = json.loads((folder / "verdict.json").read_text())
    _Service.session = onnxruntime.InferenceSession(folder / "copy.onnx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/v2/models/copy"
        for suspect in (str(folder / "copy.onnx"), address, str(folder / "answers.npy")):
            verdict = metav.verify(folder / "owner.metav", suspect)
            print(f"{suspect}: {verdict.decision}, score {verdict.score:.6f}")
            assert str(verdict.decision) == wanted["decision"] == "MATCH"
            assert verdict.score is not None
            assert abs(verdict.score - wanted["score"]) < 1e-4
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    {"make": make, "judge": judge}[sys.argv[1]](Path(sys.argv[2]))
