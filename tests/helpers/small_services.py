"""Services on loopback for tests: each starts with the `with` statement that needs it, and ends with it.

Annotations are evaluated here: FastAPI goes by those of functions within functions.
"""

import atexit
import base64
import functools
import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answers = Callable[[NDArray[Any]], NDArray[Any]]
"""From queries (n, ...) to answers (n, K)."""

_NUMBERS = itertools.count()
_DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


class Host:
    """One server for many applications, each under a number of its own: starting one takes longer than most tests."""

    def __init__(self) -> None:
        import uvicorn

        self.apps: dict[str, Any] = {}
        options = {"port": 0, "log_level": "critical", "lifespan": "off"}
        self.server = uvicorn.Server(uvicorn.Config(self, host="127.0.0.1", **options))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), "the server ended before it started"
            time.sleep(0.005)
        self.address = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        atexit.register(self.stop)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        number, _, path = scope["path"][1:].partition("/")
        await self.apps[number]({**scope, "path": f"/{path}", "raw_path": b""}, receive, send)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)


@functools.cache
def host() -> Host:
    return Host()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run an ASGI application on loopback; yield its address."""
    number = str(next(_NUMBERS))
    host().apps[number] = app
    try:
        yield f"{host().address}/{number}"
    finally:
        del host().apps[number]


@contextmanager
def speaking(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """Hand every connection, once a request came, to a function that writes what it wants; yield the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            read_request(connection)
            handle(connection)

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # close alone does not wake a thread that waits in accept
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_request(connection: socket.socket) -> bytes:
    """Read one request with its body."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65536)
        if not piece:
            return head
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head


def response(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; underscores in names of headers stand for hyphens."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def open_inference_app(
    answers: Answers,
    *,
    shape: list[int] | None,
    datatype: str = "FP32",
    binary: bool = False,
    outputs: tuple[str, ...] = ("scores",),
    seen: list[Any] | None = None,
) -> Any:
    """A server of the Open Inference Protocol v2, written from its REST specification.

    shape: of the input as the metadata tells it; None: no metadata.
    binary: whether binary tensors are offered and expected.
    outputs: their names; all hold the answers, the second and further ones as whole numbers.
    seen: gets every request's header object.
    """
    from fastapi import FastAPI, Request, Response

    app = FastAPI()

    @app.get("/v2")
    def server() -> Any:
        return {"name": "small", "version": "1", "extensions": ["binary_tensor_data"] if binary else []}

    @app.get("/v2/models/m")
    def model() -> Any:
        if shape is None:
            return Response(status_code=404)
        inputs = [{"name": "image", "datatype": datatype, "shape": shape}]
        return {"name": "m", "platform": "", "inputs": inputs, "outputs": []}

    @app.post("/v2/models/m/infer")
    async def infer(request: Request) -> Any:
        body = await request.body()
        length = int(request.headers.get("inference-header-content-length", len(body)))
        head = json.loads(body[:length])
        if seen is not None:
            seen.append(head)
        tensor = head["inputs"][0]
        if shape is not None and (tensor["name"] != "image" or (shape[0] > 0 and tensor["shape"][0] != shape[0])):
            return Response(json.dumps({"error": "another input was expected"}), status_code=400)
        if binary:
            assert tensor["parameters"]["binary_data_size"] == len(body) - length
            queries = np.frombuffer(body[length:], _DTYPES[tensor["datatype"]])
        else:
            queries = np.asarray(tensor["data"])
        result = answers(queries.reshape(tensor["shape"]).astype(np.float32)).astype(np.float32)
        found, blobs = [], b""
        wanted = [entry["name"] for entry in head.get("outputs", [])]
        for number, name in enumerate(outputs):
            if wanted and name not in wanted:
                continue
            values = result if number == 0 else result.argmax(axis=1)
            entry = {"name": name, "shape": list(values.shape), "datatype": "INT64" if number else "FP32"}
            if binary:
                blob = values.astype("<i8" if number else "<f4").tobytes()
                blobs += blob
                found.append({**entry, "parameters": {"binary_data_size": len(blob)}})
            else:
                found.append({**entry, "data": values.ravel().tolist()})
        text = json.dumps({"model_name": "m", "outputs": found}).encode()
        headers = {"inference-header-content-length": str(len(text))} if binary else {}
        return Response(text + blobs, headers=headers, media_type="application/octet-stream" if binary else None)

    return app


def mlflow_app(answers: Answers, *, form: Callable[[list[Any]], Any] = lambda rows: rows) -> Any:
    """MLflow's scoring server as its documentation describes it. form: of the predictions."""
    from fastapi import FastAPI, Request

    app = FastAPI()

    @app.post("/invocations")
    async def invocations(request: Request) -> Any:
        inputs = (await request.json())["inputs"]
        inputs = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
        return {"predictions": form(answers(np.asarray(inputs, np.float32)).tolist())}

    return app


def json_app(reply: Callable[[Any, Any], Any]) -> Any:
    """A service with one address, /ask: reply(body, headers) returns what it answers."""
    from fastapi import FastAPI, Request

    app = FastAPI()

    @app.post("/ask")
    async def ask(request: Request) -> Any:
        return reply(await request.json(), request.headers)

    return app


def from_npy(text: str) -> NDArray[Any]:
    """The array of a .npy file in base64."""
    return np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)  # type: ignore[no-any-return]


def from_png(text: str) -> NDArray[Any]:
    """The levels (height, width) or (height, width, 3) of a PNG picture in base64."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
