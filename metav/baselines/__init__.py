"""The schemes that metav is compared with, each written from its paper's description.

`BASELINES` holds all of them by name; each is fitted on an owner's model with `fit`, and judges a suspect with `score`.
"""

from metav.baselines.base import Baseline
from metav.baselines.boundary import ConferAE, IPGuard
from metav.baselines.correlation import SAC
from metav.baselines.hardness import AKH
from metav.baselines.meta import FixedQueryVerifier, LiteGuard, MatchedFilter
from metav.baselines.published import PublishedMetaV
from metav.baselines.similarity import DeepJudge, DeepJudgeDistances, ModelDiff, OutputDistance

BASELINES: dict[str, type[Baseline]] = {
    scheme.name: scheme
    for scheme in (
        IPGuard,
        ConferAE,
        AKH,
        SAC,
        ModelDiff,
        DeepJudge,
        LiteGuard,
        FixedQueryVerifier,
        MatchedFilter,
        OutputDistance,
        PublishedMetaV,
    )
}
"""Every scheme by its name, in the order of the tables."""

__all__ = [
    "AKH",
    "BASELINES",
    "SAC",
    "Baseline",
    "ConferAE",
    "DeepJudge",
    "DeepJudgeDistances",
    "FixedQueryVerifier",
    "IPGuard",
    "LiteGuard",
    "MatchedFilter",
    "ModelDiff",
    "OutputDistance",
    "PublishedMetaV",
]
