"""The schemes that metav is compared with, each written from its paper's description.

`BASELINES` holds all of them by name; each is fitted on an owner's model with `fit`, and judges a suspect with `score`.
"""

from metav.baselines.base import Baseline
from metav.baselines.published import PublishedMetaV

BASELINES: dict[str, type[Baseline]] = {scheme.name: scheme for scheme in (PublishedMetaV,)}
"""Every scheme by its name, in the order of the tables."""

__all__ = ["BASELINES", "Baseline", "PublishedMetaV"]
