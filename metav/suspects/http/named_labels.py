"""Answers that name their classes, brought into the order of the task's class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class UnreadableLabelError(ValueError):
    """An answer whose rows or class names are not what was expected; the message says which."""


def numbers_of(rows: Sequence[Any], *, labels: Sequence[str] | None, label_key: str, score_key: str) -> list[Any]:
    """Return rows of an answer as numbers.

    rows: one entry for each query: numbers; the name of a class; an object of scores by name; an object, or a list of
        them, with a name and a score each, of all classes or of the best ones, the others counting as 0.
    labels: names of the classes in order; None where rows hold plain numbers.
    label_key, score_key: of the objects in a list.

    Raises UnreadableLabelError where names are unknown or missing.
    """
    places = None if labels is None else {name: place for place, name in enumerate(labels)}
    return [_row(row, places, label_key, score_key) for row in rows]


def _row(row: Any, places: Mapping[str, int] | None, label_key: str, score_key: str) -> Any:
    if isinstance(row, Mapping) and label_key in row and score_key in row:
        row = [row]
    if isinstance(row, list) and row and all(isinstance(entry, Mapping) for entry in row):
        row = _scores(row, label_key, score_key)
    if not isinstance(row, str | Mapping):
        return row
    if places is None:
        raise UnreadableLabelError("it names classes; say which in the template (labels: [...], in the task's order)")
    if isinstance(row, str):
        return _place(row, places)
    vector: list[Any] = [0.0] * len(places)
    for name, score in row.items():
        vector[_place(name, places)] = score
    return vector


def _scores(entries: Sequence[Mapping[str, Any]], label_key: str, score_key: str) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for entry in entries:
        if label_key not in entry or score_key not in entry:
            raise UnreadableLabelError(f"an entry has no {label_key!r} or no {score_key!r} (label_key, score_key)")
        name = entry[label_key]
        if not isinstance(name, str) or name in scores:
            raise UnreadableLabelError(f"{label_key!r} is not the name of another class in each entry")
        scores[name] = entry[score_key]
    return scores


def _place(name: str, places: Mapping[str, int]) -> int:
    if name not in places:
        raise UnreadableLabelError(f"the class {name!r} is none of the template's labels")
    return places[name]
