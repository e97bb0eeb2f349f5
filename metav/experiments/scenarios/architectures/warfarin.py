"""Architectures of the warfarin experiment: (n, 24) -> (n, 1), the standardised dose.

Each public function returns a fresh, randomly initialised model; OWNER, ZOO and SUSPECTS name the roles.
"""

from __future__ import annotations

from torch import nn

from metav.experiments.scenarios.architectures.building_blocks import Residual, fully_connected
from metav.models.architectures import Architecture

FEATURES = 24


def warfarin_mlp() -> nn.Module:
    """Build two layers of 64 units with ReLU: the owner's."""
    return fully_connected((FEATURES, 64, 64, 1), nn.ReLU)


def warfarin_wide_mlp() -> nn.Module:
    """Build layers of 128 and 64 units with ReLU."""
    return fully_connected((FEATURES, 128, 64, 1), nn.ReLU)


def warfarin_deep_mlp() -> nn.Module:
    """Build three layers of 32 units with ReLU."""
    return fully_connected((FEATURES, 32, 32, 32, 1), nn.ReLU)


def warfarin_tanh_mlp() -> nn.Module:
    """Build two layers of 48 units with tanh."""
    return fully_connected((FEATURES, 48, 48, 1), nn.Tanh)


def warfarin_residual() -> nn.Module:
    """Build a residual block of 48 units between two linear layers."""
    return nn.Sequential(
        nn.Linear(FEATURES, 48),
        Residual(nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)),
        nn.ReLU(),
        nn.Linear(48, 1),
    )


def warfarin_gelu_mlp() -> nn.Module:
    """Build layers of 96 and 48 units with GELU."""
    return fully_connected((FEATURES, 96, 48, 1), nn.GELU)


def warfarin_normed_mlp() -> nn.Module:
    """Build two layers of 56 units with batch norm and ReLU."""
    return nn.Sequential(
        nn.Linear(FEATURES, 56),
        nn.BatchNorm1d(56),
        nn.ReLU(),
        nn.Linear(56, 56),
        nn.BatchNorm1d(56),
        nn.ReLU(),
        nn.Linear(56, 1),
    )


def warfarin_shallow_mlp() -> nn.Module:
    """Build one layer of 256 units with ReLU."""
    return fully_connected((FEATURES, 256, 1), nn.ReLU)


def warfarin_silu_mlp() -> nn.Module:
    """Build four layers of 40 units with SiLU."""
    return fully_connected((FEATURES, 40, 40, 40, 40, 1), nn.SiLU)


OWNER: Architecture = warfarin_mlp
ZOO: tuple[Architecture, ...] = (warfarin_wide_mlp, warfarin_deep_mlp, warfarin_tanh_mlp, warfarin_residual)
SUSPECTS: tuple[Architecture, ...] = (warfarin_gelu_mlp, warfarin_normed_mlp, warfarin_shallow_mlp, warfarin_silu_mlp)
