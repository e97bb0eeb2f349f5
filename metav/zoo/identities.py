"""What the cache keys of a zoo go by: the identity of all that its models are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from metav.models.architectures import Architecture, build
from metav.models.content_identity import UnidentifiedError, content_identity
from metav.models.identity import architecture_identity, state_digest
from metav.support.user_warnings import warn_user
from metav.tasks.base import Task

RECIPE = "the recipe"
"""What the told recipe is called among what has no identity."""


@dataclass(slots=True)
class Identities:
    """Identities by name, and for what has none, why.

    digests: of the owner's model, tasks, architectures, ...
    unidentified: what has no identity, with the reason.
    """

    digests: dict[str, str] = field(default_factory=dict)
    unidentified: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, thing: object, *, text: str = "") -> None:
        """Add the identity of something by its content.

        name: what it is called in messages, and its key.
        text: more that goes into its digest.
        """
        try:
            self.digests[name] = f"{text} {content_identity(thing, name)}"
        except UnidentifiedError as error:
            self.digests[name], self.unidentified[name] = text, str(error)

    def warn(self) -> None:
        """Say for what a cache is not used, and why."""
        for name, reason in self.unidentified.items():
            concerned = " for its models" if name == RECIPE else ""
            warn_user(
                f"it cannot be seen whether {name} is still the same ({reason}), so that the cache is not used"
                f"{concerned}, neither read nor written; name attributes that no model depends on in their class's "
                "not_in_identity, or let a class or function state an identity_name, which then stands for it"
            )


def identities_of(
    owner: nn.Module,
    tasks: Mapping[str, Task | None],
    architectures: Sequence[Architecture],
    recipe: Callable[[int], nn.Module] | None,
    *,
    is_cached: bool,
) -> Identities:
    """Return the identities of what the models of a zoo are made from.

    owner: a private copy of the owner's model.
    tasks: by name, the owner's as "task"; None where there is none.
    architectures: besides the owner's own class.
    recipe: how the owner's model was trained; None where it is not told.
    is_cached: whether there is a cache; without one, content is not read.
    """
    found = Identities({"owner": state_digest(owner), "architecture 0": architecture_identity(owner)})
    models = [build(architecture, 0) for architecture in architectures]
    found.digests |= {f"architecture {number}": architecture_identity(model) for number, model in enumerate(models, 1)}
    if not is_cached:
        return found
    found.add("the owner's model", owner)
    for name, task in tasks.items():
        if name != "task" and task is tasks["task"]:
            found.digests[name] = found.digests["task"]
        elif task is not None:
            found.add(name, task, text=f"{task.digest()} {task.identity()}")
    for number, (architecture, model) in enumerate(zip(architectures, models, strict=True)):
        name = f"architectures[{number}]"
        found.add(name, architecture)
        # what it is and begins with, wherever the code for that stands
        found.add(f"a model of {name}", model)
        again = Identities()
        again.add(f"a model of {name}", build(architecture, 0))
        if not again.digests.items() <= found.digests.items():
            found.unidentified[name] = f"{name} returns other initial weights at each call with the same seed"
    if recipe is not None:
        found.add(RECIPE, recipe)
    return found
