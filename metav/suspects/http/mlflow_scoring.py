"""MLflow's scoring server: POST /invocations with inputs as nested lists.

Source: MLflow's documentation, "Inference Server Specification".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, final

from metav.support.arrays import FloatArray
from metav.suspects.http.connection import Connection, Received
from metav.suspects.http.json_answers import columns, listed, read_json
from metav.suspects.tensor_specifications import Layout, arranged, checked_layout
from metav.suspects.transports import Reply, Transport, sha256


@final
class MlflowTransport(Transport):
    """A model behind MLflow's scoring server.

    url: ends with /invocations.
    input: name of the input, where the model's signature names several or asks for names; None sends a bare tensor.
    output: name of the output or column, where the answer names several.
    layout: of images; None leaves queries as they are.
    headers, timeout: see `Connection`.
    """

    def __init__(
        self,
        url: str,
        *,
        input: str | None = None,
        output: str | None = None,
        layout: Layout | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._connection = Connection(url, headers=headers, timeout=timeout)
        self._input, self._output, self._layout = input, output, checked_layout(layout)
        self.endpoint = self._connection.address
        self.description = f"MLflow model at {self.endpoint}"
        self.configuration = {
            "protocol": "mlflow",
            "url": self.endpoint,
            "headers": dict(headers or {}),
            "input": input,
            "output": output,
            "layout": layout,
        }

    def answer_batch(self, queries: FloatArray) -> Reply:
        """Send a batch once; see `Transport`."""
        nested = arranged(queries, None, self._layout).tolist()
        body = json.dumps({"inputs": nested if self._input is None else {self._input: nested}}).encode()
        received = self._connection.send("POST", body)
        return Reply(
            values=self._predictions(received),
            status=received.status,
            request_sha256=received.request_sha256,
            response_sha256=sha256(received.content),
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _predictions(self, received: Received) -> Any:
        answer = read_json(received, self._connection)
        if not isinstance(answer, dict) or "predictions" not in answer:
            raise received.fault(f'{self.endpoint} answered without "predictions"; is it MLflow\'s scoring server?')
        predictions = answer["predictions"]
        if isinstance(predictions, dict):
            return self._chosen(predictions, received)
        if self._output is not None and isinstance(predictions, list):
            rows = [row for row in predictions if isinstance(row, dict) and self._output in row]
            if len(rows) != len(predictions):
                raise received.fault(f"{self.endpoint} answered rows without a column {self._output!r}; check output")
            return [row[self._output] for row in rows]
        return columns(predictions) if isinstance(predictions, list) else predictions

    def _chosen(self, outputs: dict[str, Any], received: Received) -> Any:
        if self._output is None and len(outputs) == 1:
            return next(iter(outputs.values()))
        if self._output in outputs:
            return outputs[self._output]
        names = listed(list(outputs), self._connection)
        raise received.fault(f"{self.endpoint} answered several outputs ({names}); choose one with output=")
