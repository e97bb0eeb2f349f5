"""Answers that are more than one array (tuples, mappings, dataclasses): their parts by name, and the choice of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

OutputChoice: TypeAlias = str | int | Callable[[Any], Any]
"""Which part of an answer counts: its name ("logits", "hidden_states.0"), its number, or a function from the answer."""

MOST_DEPTH = 3
"""How deep parts are looked for: a name such as "hidden_states.0" has a depth of 2."""
MOST_LISTED = 8
"""Parts that a message lists."""


def is_array(value: Any) -> bool:
    """Return whether a value is an array or tensor of any library."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def is_structured(answer: Any) -> bool:
    """Return whether an answer is no array, but holds at least one under a name or number."""
    return not is_array(answer) and bool(parts_of(answer))


def parts_of(answer: Any) -> dict[str, Any]:
    """Return the arrays in an answer by name; an array alone has the name "".

    Parts are named by the keys of a mapping, the fields of a dataclass or named tuple, the attributes of another
    object, and by their place in a tuple or list; those of parts by both, with a dot between.
    """
    return {name: part for name, part in _walk(answer, "", 0) if is_array(part)}


def chosen_part(answer: Any, choice: OutputChoice) -> Any:
    """Return the part of an answer that is chosen; an array alone is what every name and number stands for.

    Raises LookupError, with what there is, where there is no such part.
    """
    if callable(choice):
        return choice(answer)
    if is_array(answer):
        return answer
    parts = parts_of(answer)
    if isinstance(choice, int):
        top = [part for _, part in _children(answer, 0)]
        if -len(top) <= choice < len(top) and is_array(top[choice]):
            return top[choice]
    elif choice in parts:
        return parts[choice]
    raise LookupError(f"the answer has no part {choice!r}, but {listed(parts)}")


def fitting_parts(answer: Any, fits: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the parts of an answer that fit, by name; one array under two names counts once."""
    found: dict[str, Any] = {}
    for name, part in parts_of(answer).items():
        if fits(part) and not any(part is other for other in found.values()):
            found[name] = part
    return found


def listed(parts: Mapping[str, Any]) -> str:
    """Return names and shapes of parts for a message, such as "logits (2, 10), states (2, 64)"."""
    texts = [f"{name or 'one array'} {tuple(part.shape)}" for name, part in list(parts.items())[:MOST_LISTED]]
    more = len(parts) - len(texts)
    return ", ".join([*texts, *([f"{more} more"] if more > 0 else [])]) or "no array at all"


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if is_array(value):
        yield name, value
        return
    if depth >= MOST_DEPTH:
        return
    for key, child in _children(value, depth):
        yield from _walk(child, f"{name}.{key}" if name else key, depth + 1)


def _children(value: Any, depth: int) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", None) or map(str, range(len(value)))
        return list(zip(names, value, strict=True))
    # attributes only of the answer itself: what a part such as a cache keeps to itself is no answer
    if depth == 0 and hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        return [(key, child) for key, child in vars(value).items() if is_array(child)]
    return []
