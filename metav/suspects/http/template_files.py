"""The template of a service: a YAML or TOML file that says how its requests look and where its answers stand."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from metav.errors import InputError
from metav.support.arguments import seconds, whole_number
from metav.support.dependencies import require
from metav.support.text import byte_size, harmless
from metav.suspects.http.credentials import checked_address
from metav.suspects.tensor_specifications import Layout, checked_layout

ENDINGS = (".yaml", ".yml", ".toml")
LARGEST_FILE = 2**20
"""Bytes of a template."""
DEEPEST = 50
"""Fields within fields of a template."""
PLACEHOLDER = re.compile(r"\$(QUERIES|QUERY)(_PNG|_NPY)?(?![A-Za-z0-9_])")
_METHODS = ("POST", "PUT", "PATCH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How a service is asked.

    url, method, headers: of each request; $NAME comes from the environment.
    body: JSON in which $QUERIES stands for the batch as nested lists, $QUERIES_PNG for a list of PNG pictures and
        $QUERIES_NPY for one .npy file, both as base64; with $QUERY, $QUERY_PNG and $QUERY_NPY each request holds one
        query. PNG and NPY may stand within a longer text. Any other $NAME comes from the environment.
    answer: JSONPath (RFC 9535) to the answers in the service's JSON: one match for all queries, or one for each.
    labels: names of the classes in the order of the task's class numbers, where answers name them: a name alone, an
        object of scores by name, or a list of objects, each with a name and a score.
    label_key, score_key: of these objects.
    layout: of images in nested lists and .npy, see `arranged`.
    bounds: values of a query that are black and white in a PNG, which has 256 levels.
    batch_size: most queries of one request. timeout: seconds for one request.
    """

    url: str
    body: Any
    answer: str
    method: str = "POST"
    headers: Mapping[str, str]
    labels: tuple[str, ...] | None = None
    label_key: str = "label"
    score_key: str = "score"
    layout: Layout | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    batch_size: int | None = None
    timeout: float | None = None

    @property
    def placeholders(self) -> frozenset[str]:
        """The names in the body that stand for queries."""
        return frozenset(found.group(1) for text in texts_in(self.body) for found in PLACEHOLDER.finditer(text))

    @property
    def asks_one(self) -> bool:
        """Whether each request holds one query."""
        return self.placeholders == {"QUERY"}


def read_template(path: Path) -> Template:
    """Return the template in a file.

    Raises InputError on a file that cannot be read, and where something in it is unknown, missing or of another kind.
    """
    shown = harmless(path, limit=200)
    content = _content(path)
    if not isinstance(content, dict):
        raise InputError(f"{shown} holds no fields; expected at least url, body and answer")
    known = [field.name for field in fields(Template)]
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; expected some of {', '.join(known)}"
            raise InputError(f"{shown} has an unknown field {harmless(repr(name), limit=60)}{hint}")
    for name in ("url", "body", "answer"):
        if name not in content:
            raise InputError(f"{shown} has no field {name!r}; expected at least url, body and answer")
    try:
        return _checked(content)
    except InputError as error:
        raise InputError(f"{shown}: {error}") from None


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text of a body, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(entry)


def _checked(content: Mapping[str, Any]) -> Template:
    headers = content.get("headers", {})
    if not isinstance(headers, Mapping) or not all(
        isinstance(entry, str) for pair in headers.items() for entry in pair
    ):
        raise InputError("headers must be texts by name")
    labels = content.get("labels")
    if labels is not None and (not _texts(labels) or len(set(labels)) != len(labels)):
        raise InputError("labels must be a list of texts, each of them once")
    for name in ("url", "answer", "method", "label_key", "score_key"):
        if not isinstance(content.get(name, ""), str):
            raise InputError(f"{name} must be a text, got {content[name]!r}")
    method = content.get("method", "POST").upper()
    if method not in _METHODS:
        raise InputError(f"method must be one of {', '.join(_METHODS)}, got {harmless(method, limit=20)}")
    checked_address(content["url"])
    batch_size = content.get("batch_size")
    template = Template(
        url=content["url"],
        body=content["body"],
        answer=content["answer"],
        method=method,
        headers=dict(headers),
        labels=None if labels is None else tuple(labels),
        label_key=content.get("label_key", "label"),
        score_key=content.get("score_key", "score"),
        layout=checked_layout(content.get("layout")),
        bounds=_bounds(content.get("bounds", (0.0, 1.0))),
        batch_size=None if batch_size is None else whole_number("batch_size", batch_size, least=1),
        timeout=None if content.get("timeout") is None else seconds("timeout", content["timeout"]),
    )
    _check_body(template)
    return template


def _check_body(template: Template) -> None:
    if len(template.placeholders) != 1:
        found = "none" if not template.placeholders else "both"
        raise InputError(
            f"the body must hold $QUERIES (a batch) or $QUERY (one a request), in some form; it has {found}"
        )
    for text in texts_in(template.body):
        for match in PLACEHOLDER.finditer(text):
            name, form = match.groups()
            if match.group() != text and (form is None or (name, form) == ("QUERIES", "_PNG")):
                raise InputError(f"{match.group()} stands for a list, so it must be a text of its own in the body")


def _bounds(value: Any) -> tuple[float, float]:
    numbers = isinstance(value, list | tuple) and all(isinstance(entry, int | float) for entry in value)
    if not numbers or len(value) != 2 or not value[0] < value[1]:
        raise InputError(f"bounds must be two numbers, the lower one first, got {value!r}")
    return float(value[0]), float(value[1])


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)


def _content(path: Path) -> Any:
    shown = harmless(path, limit=200)
    if not path.is_file():
        raise InputError(f"there is no file {shown}; expected a template of a service: check the path")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{shown} is larger than {byte_size(LARGEST_FILE)}; expected a template of a service")
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix.lower() == ".toml" else _from_yaml(text)
    except (ValueError, RecursionError) as error:  # of tomllib, of decoding, of values such as a date 2001-02-30
        raise InputError(f"{shown} cannot be read ({harmless(error, limit=300)}); mend the file") from error


def _from_yaml(text: str) -> Any:
    require("a template in YAML", "yaml", extra="http")
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # a few aliases of aliases stand for more than fits into memory, and deep nesting for hours of reading
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has YAML aliases, which templates do without")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"it nests its fields more than {DEEPEST} levels deep")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
