"""The recipe of a net of skorch: a clone of it, fitted to the same data under another seed."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self

from sklearn.base import clone
from torch import Tensor, nn

from metav.integrations.shipped_weights import fresh, shipped, structure_identity
from metav.models.copying import duplicate


class SkorchRecipe:
    """From a seed to what such a training ships.

    net: that is not fitted yet, without callbacks that only show or report.
    data: what it is fitted to, X and y.
    template: the module as it was before; None where the net makes it.
    build: returns the module before its training; None for the net's class, or the template with new weights.
    weights, part: see FingerprintCallback.
    """

    not_in_identity = ("template",)

    def __init__(
        self,
        *,
        net: Any,
        data: tuple[Any, Any],
        template: nn.Module | None,
        build: Callable[[], nn.Module] | None,
        weights: Callable[[Any], Mapping[str, Tensor]] | None,
        part: str | None,
    ) -> None:
        self.net, self.data, self.template = net, data, template
        self.build, self.weights, self.part = build, weights, part
        self.structure = ""
        if template is not None:
            self.structure = structure_identity(template)

    @classmethod
    def of(
        cls,
        net: Any,
        own: object,
        data: tuple[Any, Any],
        build: Callable[[], nn.Module] | None,
        weights: Callable[[Any], Mapping[str, Tensor]] | None,
        part: str | None,
    ) -> Self:
        """Return the recipe of a net that is about to be fitted.

        own: metav's callback, which is left away.
        """
        twin = clone(net, safe=False)
        kept = [entry for entry in net.callbacks or () if _callback(entry) is not own and _counts(_callback(entry))]
        is_given = isinstance(net.module, nn.Module)
        twin.set_params(callbacks=clone(kept, safe=False), verbose=0)
        if is_given:
            twin.set_params(module=None)
        return cls(
            net=clone(twin, safe=False),  # set_params has made callbacks from the old ones, which a clone has not
            data=data,
            template=duplicate(net.module) if is_given and build is None else None,
            build=build,
            weights=weights,
            part=part,
        )

    def until(self, epoch: int) -> Self:
        """Return the recipe of what ships after an epoch: the weights of that epoch, not the best ones until then."""
        other = copy.copy(self)
        other.net = clone(self.net, safe=False).set_params(max_epochs=epoch)
        for entry in other.net.callbacks or ():
            if getattr(_callback(entry), "load_best", False):
                _callback(entry).load_best = False
        chosen = [name for name in vars(other.net) if name.startswith("callbacks__") and name.endswith("__load_best")]
        other.net.set_params(**dict.fromkeys(chosen, False))  # arguments of the net go before those of the callback
        return other

    def __call__(self, seed: int) -> nn.Module:
        """Return the trained module of a seed; the global generators are seeded with it already."""
        net = clone(self.net, safe=False)
        start = self.build() if self.build is not None else None if self.template is None else fresh(self.template)
        if start is not None:
            vars(net)["module"] = start  # a net takes no module by assignment once it is there
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the owner's training has told it already
            for entry in net.callbacks:
                if hasattr(_callback(entry), "dirname"):
                    _callback(entry).dirname = folder
            net.fit(*self.data)
            chosen = None if self.weights is None else self.weights(net)
            return shipped(net.module_, chosen, part=self.part)


def _callback(entry: Any) -> Any:
    """Return the callback of an entry, which may be a pair of name and callback."""
    return entry[1] if isinstance(entry, tuple) else entry


def _counts(callback: Any) -> bool:
    kind = callback if isinstance(callback, type) else type(callback)
    return not kind.__module__.startswith("skorch.callbacks.logging")
