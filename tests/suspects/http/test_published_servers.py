"""The servers that others publish, on loopback: MLServer (Open Inference Protocol) and MLflow's scoring server.

Each needs an interpreter that has it: this one, or the one that METAV_MLSERVER_PYTHON or METAV_MLFLOW_PYTHON names (a
virtual environment with `mlserver`, or with `mlflow-skinny pandas uvicorn`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_fingerprints import small_fingerprint, small_owner

import metav

httpx2 = pytest.importorskip("httpx2", reason='needs the extra "http"')

RUNTIME = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Network(MLModel):
    async def load(self):
        self.weights = np.load("weights.npz")
        return True

    async def predict(self, payload):
        flat = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32).reshape(-1, 64)
        hidden = np.maximum(flat @ self.weights["body.weight"].T + self.weights["body.bias"], 0)
        scores = hidden @ self.weights["head.weight"].T + self.weights["head.bias"]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
"""

MODEL = """
import mlflow
import numpy as np


class Network(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.weights = np.load(context.artifacts["weights"])

    def predict(self, context, model_input, params=None):
        flat = np.asarray(model_input, np.float32).reshape(-1, 64)
        hidden = np.maximum(flat @ self.weights["body.weight"].T + self.weights["body.bias"], 0)
        return hidden @ self.weights["head.weight"].T + self.weights["head.bias"]


mlflow.models.set_model(Network())
"""

SAVE = """
import sys
import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

shape = tuple(map(int, sys.argv[1].split(",")))
signature = ModelSignature(inputs=Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]))
mlflow.pyfunc.save_model(
    "model", python_model="network.py", artifacts={"weights": "weights.npz"}, signature=signature, pip_requirements=[]
)
"""


def interpreter(module: str, variable: str) -> str:
    """An interpreter that can import a module; the test is skipped where there is none."""
    for python in filter(None, (os.environ.get(variable), sys.executable)):
        found = subprocess.run([python, "-c", f"import {module}"], capture_output=True, timeout=120)
        if found.returncode == 0:
            return python
    pytest.skip(f"needs an interpreter with {module}; name it in {variable}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports


@contextmanager
def running(command, folder, ready):
    """Run a server in a folder until it answers at `ready`."""
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PATH": path})
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "server.log").read_text()
            try:
                if httpx2.get(ready, timeout=5).status_code == 200:
                    break
            except httpx2.HTTPError:
                pass
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait(60)


def write_weights(folder):
    np.savez(folder / "weights.npz", **{name: tensor.numpy() for name, tensor in small_owner().state_dict().items()})


def agrees(address):
    expected = metav.verify(small_fingerprint(), small_owner())
    verdict = metav.verify(small_fingerprint(), address, batch_size=8)
    assert verdict.decision == expected.decision == "MATCH"
    assert verdict.score == pytest.approx(expected.score, abs=1e-4)
    assert verdict.noise == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_mlserver_gives_the_same_verdict(tmp_path):
    python = interpreter("mlserver", "METAV_MLSERVER_PYTHON")
    port, grpc, metrics = free_ports(3)
    shape = [-1, *small_fingerprint().queries.shape[1:]]
    model = {
        "name": "m",
        "implementation": "runtime.Network",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": shape}],
    }
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    (tmp_path / "runtime.py").write_text(RUNTIME)
    (tmp_path / "model-settings.json").write_text(json.dumps(model))
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    write_weights(tmp_path)
    url = f"http://127.0.0.1:{port}/v2/models/m"
    command = [python, "-c", "from mlserver.cli import main; main()", "start", "."]
    with running(command, tmp_path, f"{url}/ready"):
        agrees(f"{url}/infer")


@pytest.mark.slow
def test_mlflows_scoring_server_gives_the_same_verdict(tmp_path):
    python = interpreter("mlflow", "METAV_MLFLOW_PYTHON")
    (port,) = free_ports(1)
    (tmp_path / "network.py").write_text(MODEL)
    (tmp_path / "save.py").write_text(SAVE)
    write_weights(tmp_path)
    shape = ",".join(map(str, small_fingerprint().queries.shape[1:]))
    saved = subprocess.run([python, "save.py", shape], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert saved.returncode == 0, saved.stderr
    command = [python, "-m", "mlflow", "models", "serve", "-m", "model", "--env-manager", "local"]
    command += ["-h", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, tmp_path, f"{url}/ping"):
        agrees(f"{url}/invocations")
