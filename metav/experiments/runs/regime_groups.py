"""The groups of regimes: one row a group, which regimes, comparisons and tables go by. No PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metav.baselines.base import Baseline


def every_scheme(_: type[Baseline]) -> bool:
    """Compare with all other schemes: where the tables rank them."""
    return True


def quick_schemes(scheme: type[Baseline]) -> bool:
    """Compare without the slowest: where the schemes' queries, surrogates or answers vary."""
    return not scheme.fit_takes_minutes


def nearest_scheme(scheme: type[Baseline]) -> bool:
    """Compare with the nearest rival alone, whose only difference from metav is that its queries are not optimised."""
    return scheme.differs_in_queries_alone


def no_scheme(_: type[Baseline]) -> bool:
    """Compare with none: where what happens to suspects is made for metav's queries."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeGroup:
    """One group of regimes.

    name: what `--regimes` calls it; its regimes are "name" or "name:detail".
    title: of its table of rates; None where it has a table of another kind.
    about: what changes in it, for the command's help; empty where the name says it.
    home: "module:function" of f(task, scale) -> its regimes that make sense for the task; imported when needed.
    beside: which of the other schemes are compared with metav.
    unlearned: whether its derived suspects are those that unlearned the fingerprint's queries.
    """

    name: str
    title: str | None
    home: str
    beside: Callable[[type[Baseline]], bool]
    about: str = ""
    unlearned: bool = False

    def load_maker(self) -> Callable[[Any, Any], list[Any]]:
        """Return the function (task, scale) -> regimes; needs PyTorch."""
        module, _, name = self.home.partition(":")
        found: Callable[[Any, Any], list[Any]] = getattr(importlib.import_module(module), name)
        return found


REGIME_GROUPS: Mapping[str, RegimeGroup] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            RegimeGroup(
                name="full",
                title="Full zoo",
                home="metav.experiments.runs.regimes:full_zoo",
                beside=every_scheme,
            ),
            RegimeGroup(
                name="recipe",
                title="Whether metav is told how the owner trained",
                about="told or not",
                home="metav.experiments.runs.regimes:recipes_told",
                beside=quick_schemes,
            ),
            RegimeGroup(
                name="form",
                title="The form of the answers",
                about="as services answer",
                home="metav.experiments.runs.regimes:forms_of_answers",
                beside=every_scheme,
            ),
            RegimeGroup(
                name="nonsense",
                title="Suspects that are no model of the task",
                home="metav.experiments.runs.regimes:nonsense",
                beside=every_scheme,
            ),
            RegimeGroup(
                name="base",
                title="Owner and honest others fine-tuned one public base",
                about="relatives of one public base",
                home="metav.experiments.runs.regimes:public_base",
                beside=quick_schemes,
            ),
            RegimeGroup(
                name="ablation",
                title=None,
                about="the method without each of its parts",
                home="metav.experiments.runs.regimes:ablations",
                beside=no_scheme,
            ),
            RegimeGroup(
                name="few",
                title="Few surrogates: one trained model of each class in each share, with its snapshots",
                home="metav.experiments.runs.regimes:few_surrogates",
                beside=every_scheme,
            ),
            RegimeGroup(
                name="without",
                title=None,
                about="leave one family out",
                home="metav.experiments.runs.regimes:families_left_out",
                beside=nearest_scheme,
            ),
            RegimeGroup(
                name="queries",
                title="Number of queries",
                home="metav.experiments.runs.regimes:numbers_of_queries",
                beside=quick_schemes,
            ),
            RegimeGroup(
                name="surrogates",
                title="Trained surrogates of each class",
                home="metav.experiments.runs.regimes:numbers_of_surrogates",
                beside=quick_schemes,
            ),
            RegimeGroup(
                name="output",
                title="Output access",
                home="metav.experiments.runs.regimes:output_accesses",
                beside=quick_schemes,
            ),
            RegimeGroup(
                name="one",
                title="One fingerprint, made for labels, for every output access",
                home="metav.experiments.runs.regimes:one_for_all_accesses",
                beside=nearest_scheme,
            ),
            RegimeGroup(
                name="transport",
                title="Input transport",
                home="metav.experiments.runs.regimes:transports",
                beside=nearest_scheme,
            ),
            RegimeGroup(
                name="front",
                title="Blur, noise or resizing in front of the suspect",
                home="metav.experiments.runs.regimes:changes_in_front",
                beside=nearest_scheme,
            ),
            RegimeGroup(
                name="leaked",
                title="A leaked fingerprint, unlearned by the thief",
                home="metav.experiments.runs.regimes:leaked_queries",
                beside=no_scheme,
                unlearned=True,
            ),
        )
    }
)
"""The groups by name, in the order of their runs and tables."""
