"""A model in an ONNX file as a suspect, run by ONNX Runtime."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from metav.errors import InputError, MissingDependencyError, SuspectError
from metav.support.arguments import seconds
from metav.support.arrays import FloatArray
from metav.support.dependencies import require
from metav.support.text import harmless
from metav.suspects.base import AskedSuspect
from metav.suspects.onnx_safety import check_onnx
from metav.suspects.tensor_specifications import (
    Layout,
    TensorSpecification,
    arranged,
    checked_layout,
    chosen,
    constant_for_batch,
    constants_for,
    converted,
    in_fixed_batches,
)

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Where a model can run: our name, and ONNX Runtime's."""

DEFAULT_TIMEOUT = 600.0
"""Seconds that one batch may take."""

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@final
class OnnxSuspect(AskedSuspect):
    """An ONNX model, checked before it is loaded (`check_onnx`), then asked in its own precision and layout.

    path: of the .onnx file; external weights lie in its folder.
    input: name or place of the input that takes the queries; None where there is one.
    constants: fixed values of all further inputs by name, a number or an array.
    output: name or place of the output that is judged; None takes the only one, or the only one of real numbers.
    layout: of images; None goes by the shape of the input.
    provider: "cpu", or "cuda", which needs onnxruntime-gpu.
    timeout: seconds that one batch may take.

    A model of a fixed batch size is asked in batches of that size, the last one filled up with copies.

    Raises InputError on a file that is refused or an option that does not fit it, MissingDependencyError without the
    extra "onnx".
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        input: str | int | None = None,
        constants: Mapping[str, Any] | None = None,
        output: str | int | None = None,
        layout: Layout | None = None,
        provider: str = "cpu",
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.path = Path(path)
        self.layout = checked_layout(layout)
        self.timeout = seconds("timeout", timeout)
        if not self.path.is_file():
            raise InputError(
                f"there is no file {harmless(self.path, limit=200)}; expected an ONNX model: check the path"
            )
        require("an ONNX suspect", "onnx", "onnxruntime", extra="onnx")
        runtime_provider = _available(provider)
        check_onnx(self.path)
        self._session_of_model = _loaded(self.path, runtime_provider)
        inputs = [_specification(entry) for entry in self._session_of_model.get_inputs()]
        outputs = [_specification(entry) for entry in self._session_of_model.get_outputs()]
        place = chosen(inputs, input, what="input")
        self.input = inputs[place]
        self.output = outputs[chosen(outputs, output, what="output")]
        self._others = inputs[:place] + inputs[place + 1 :]
        self._constants = constants_for(inputs, place, constants or {})
        self.description = f"ONNX model {harmless(self.path.name, limit=80)}"

    def _ask(self, batch: FloatArray) -> Any:
        queries = arranged(batch, self.input.shape, self.layout)
        return in_fixed_batches(self._run, queries, self.input.batch)

    def _run(self, queries: FloatArray) -> NDArray[Any]:
        feeds = {self.input.name: converted(queries, self.input.dtype, name=self.input.name)}
        for entry in self._others:
            feeds[entry.name] = constant_for_batch(entry, self._constants[entry.name], len(queries))
        with self._within_time() as options:
            answer = self._session_of_model.run([self.output.name], feeds, options)[0]
        return _as_array(answer, len(queries))

    @contextmanager
    def _within_time(self) -> Iterator[Any]:
        """Yield options of a run that is stopped, between two operators, when its time is over."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        over = threading.Event()

        def stop() -> None:
            over.set()
            options.terminate = True

        timer = threading.Timer(self.timeout, stop)
        timer.daemon = True
        timer.start()
        try:
            yield options
        except Exception as error:
            if over.is_set():
                message = (
                    f"the suspect took more than {self.timeout:g} seconds for one batch; give it more time (timeout)"
                )
                raise SuspectError("timeout", message) from error
            raise
        finally:
            timer.cancel()


def _available(provider: str) -> str:
    """Return ONNX Runtime's name of a provider that this installation has."""
    import onnxruntime

    if provider not in PROVIDERS:
        raise InputError(f"provider must be one of {', '.join(PROVIDERS)}, got {provider!r}")
    name = PROVIDERS[provider]
    if name not in onnxruntime.get_available_providers():
        raise MissingDependencyError(
            f"provider={provider!r} is not part of the installed onnxruntime; install onnxruntime-gpu in its place"
        )
    return name


def _loaded(path: Path, provider: str) -> Any:
    """Return a session on exactly the provider that was asked for: ONNX Runtime by itself replaces one that fails."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # warnings would show text from the file
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = _threads()
    providers = [provider] if provider == PROVIDERS["cpu"] else [provider, PROVIDERS["cpu"]]
    try:
        session = onnxruntime.InferenceSession(
            path,
            sess_options=options,
            providers=providers,
            # constants of a hostile file could be folded into more memory than there is before any time limit counts
            disabled_optimizers=["ConstantFolding"],
            enable_fallback=0,
        )
    # ONNX Runtime raises its own classes, which share no base but Exception
    except Exception as error:
        reason = harmless(f"{type(error).__name__}: {error}", limit=300)
        raise InputError(f"{harmless(path, limit=200)} cannot be loaded ({reason}); export the model again") from error
    session.disable_fallback()
    if provider not in session.get_providers():
        raise InputError(f"ONNX Runtime cannot use {provider} here; check the driver, or leave out the provider")
    return session


def _threads() -> int:
    """Return OMP_NUM_THREADS, which users and the workers of a scan set and ONNX Runtime ignores; 0 is its choice."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isascii() and given.isdigit() else 0


def _specification(entry: Any) -> TensorSpecification:
    is_tensor = str(entry.type).startswith("tensor(")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in entry.shape) if is_tensor else None
    return TensorSpecification(name=entry.name, dtype=_DTYPES.get(entry.type), shape=shape)


def _as_array(answer: Any, rows: int) -> NDArray[Any]:
    """Return an answer as an array; scikit-learn's exporter makes a dictionary of classes and scores for each query."""
    if isinstance(answer, list) and answer and all(isinstance(entry, dict) for entry in answer):
        classes = sorted(answer[0])
        if any(sorted(entry) != classes for entry in answer):
            raise SuspectError("ragged", "the suspect names other classes for some queries than for others")
        answer = [[entry[name] for name in classes] for entry in answer]
    array = np.asarray(answer)
    if array.ndim == 0 or len(array) != rows:
        raise SuspectError(
            "wrong_rows", f"the suspect answered {rows} queries with shape {array.shape}, expected ({rows}, ...)"
        )
    return array
