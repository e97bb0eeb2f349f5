"""A service of any protocol as a suspect: requests and answers as a template describes them."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from metav.errors import InputError, SuspectError
from metav.support.arrays import FloatArray
from metav.support.text import harmless
from metav.suspects.http.connection import Connection, Received
from metav.suspects.http.credentials import without_secrets
from metav.suspects.http.json_answers import read_json
from metav.suspects.http.named_labels import UnreadableLabelError, numbers_of
from metav.suspects.http.template_files import PLACEHOLDER, read_template, texts_in
from metav.suspects.tensor_specifications import arranged
from metav.suspects.transports import Reply, Transport, sha256


@final
class TemplateTransport(Transport):
    """A service that a template describes.

    path: of the template, .yaml, .yml or .toml (see `Template`).
    timeout: seconds for one request; None for the template's own.

    Raises InputError on a template that cannot be used, MissingDependencyError without the extra "http".
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        self._template = template = read_template(Path(path))
        self._connection = Connection(
            template.url,
            headers=template.headers,
            texts=texts_in(template.body),
            timeout=template.timeout if timeout is None else timeout,
        )
        self._find = _compiled(template.answer, path)
        self.endpoint = self._connection.address
        self.description = f"service at {self.endpoint}"
        self.configuration = {
            "protocol": "template",
            "url": self.endpoint,
            "method": template.method,
            "headers": dict(template.headers),
            "body": without_secrets(template.body),
            "answer": template.answer,
            "labels": None if template.labels is None else list(template.labels),
            "layout": template.layout,
            "bounds": list(template.bounds),
        }

    @property
    def largest_batch(self) -> int | None:
        """One for templates that send one query a request, else the template's own batch_size."""
        return 1 if self._template.asks_one else self._template.batch_size

    def answer_batch(self, queries: FloatArray) -> Reply:
        """Send a batch once; see `Transport`."""
        largest = self.largest_batch
        if largest is not None and len(queries) > largest:
            raise InputError(
                f"the template sends {largest} queries at once, got {len(queries)}: ask in smaller batches"
            )
        body = json.dumps(self._filled(self._template.body, queries)).encode()
        received = self._connection.send(self._template.method, body)
        return Reply(
            values=self._values(received, len(queries)),
            status=received.status,
            request_sha256=received.request_sha256,
            response_sha256=sha256(received.content),
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _filled(self, value: Any, queries: FloatArray) -> Any:
        """Return a body with the queries, and what the environment holds, in place."""
        if isinstance(value, Mapping):
            return {key: self._filled(entry, queries) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._filled(entry, queries) for entry in value]
        if not isinstance(value, str):
            return value
        whole = PLACEHOLDER.fullmatch(value)
        if whole:
            return self._standing_for(whole.group(1), whole.group(2), queries)
        return PLACEHOLDER.sub(
            lambda found: str(self._standing_for(found.group(1), found.group(2), queries)),
            self._connection.expanded(value),
        )

    def _standing_for(self, name: str, form: str | None, queries: FloatArray) -> Any:
        if form == "_PNG":
            pictures = [png(query, self._template.bounds) for query in queries]
            return pictures if name == "QUERIES" else pictures[0]
        sent = arranged(queries, None, self._template.layout)
        content = sent if name == "QUERIES" else sent[0]
        return npy(content) if form == "_NPY" else content.tolist()

    def _values(self, received: Received, rows: int) -> Any:
        """Return the answers as rows of numbers."""
        answer = read_json(received, self._connection)
        try:
            matches = self._find(answer)
        # of a library that walks through what a service sent: too deep, too long, of another kind
        except Exception as error:
            raise received.fault(
                f"the answer of {self.endpoint} cannot be searched by {self._template.answer}: "
                f"{self._connection.hidden(error)}"
            ) from None
        template = self._template
        try:
            return numbers_of(
                _rows(matches, rows),
                labels=template.labels,
                label_key=template.label_key,
                score_key=template.score_key,
            )
        except UnreadableLabelError as error:
            raise received.fault(
                f"{self.endpoint} answered what the template does not describe: {self._connection.hidden(error)}; the "
                f"answer begins {self._connection.excerpt(received.content)}"
            ) from None


def png(query: FloatArray, bounds: tuple[float, float]) -> str:
    """Return a query (channels, height, width) or (height, width) as a PNG picture of 256 levels in base64.

    bounds: values that are black and white.

    Raises SuspectError where it is no picture, or leaves the bounds.
    """
    from PIL import Image

    planes = query[None] if query.ndim == 2 else query
    if planes.ndim != 3 or len(planes) not in (1, 3):
        raise SuspectError(
            "failed", f"a query of shape {query.shape} is no picture of 1 or 3 channels; send it as a list or .npy"
        )
    low, high = bounds
    levels = np.rint((planes.astype(np.float64) - low) * (255 / (high - low)))
    if not (levels >= 0).all() or not (levels <= 255).all():
        raise SuspectError(
            "failed", f"the queries leave the template's bounds {low:g} to {high:g}; set bounds to what the task uses"
        )
    pixels = np.moveaxis(levels.astype(np.uint8), 0, -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if len(planes) == 1 else pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def npy(array: FloatArray) -> str:
    """Return an array as a .npy file in base64."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _rows(matches: list[Any], rows: int) -> list[Any]:
    """Return one entry for each query from what the JSONPath found."""
    if not matches:
        raise UnreadableLabelError("nothing stands where the template's answer points")
    only = matches[0]
    if len(matches) > 1:
        # one match for each query; or, of a single query, one for each output
        return matches if len(matches) == rows > 1 else [matches]
    if not isinstance(only, list):
        return [only]
    # one query: a list that holds its row, or a bare row of numbers
    return only if rows > 1 or (len(only) == 1 and isinstance(only[0], list | str | dict)) else [only]


def _compiled(path: str, template: str | os.PathLike[str]) -> Callable[[Any], list[Any]]:
    import jsonpath

    try:
        find: Callable[[Any], list[Any]] = jsonpath.compile(path).findall
    except jsonpath.JSONPathError as error:
        shown = harmless(template, limit=200)
        raise InputError(
            f"{shown}: the answer {harmless(repr(path), limit=100)} is no JSONPath ({harmless(error, limit=200)}); "
            "expected one such as $.predictions"
        ) from None
    return find
