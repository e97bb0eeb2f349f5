"""Types of the C core. The mathematics stands in csrc/metav.h.

A `Tensor` is a float32, C-contiguous CPU tensor: a numpy.ndarray, a torch.Tensor without gradient, or any object with
`__dlpack__`. M is the number of models, N the number of queries, K the number of outputs per query.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Tensor: TypeAlias = Any
VerifierKind: TypeAlias = str  # a name in verifier_kinds()

__version__: Final[str]

ROLE_NEGATIVE: Final = 0
ROLE_POSITIVE: Final = 1
ROLE_OWNER: Final = 2

def cpu_info() -> dict[str, Any]:
    """Return the instruction set in use (isa), the usable ones (isas, best first), cpus of this process, threads."""

def get_num_threads() -> int:
    """Return how many threads one call may use."""

def set_num_threads(threads: int, /) -> None:
    """Set how many threads one call may use, its own included; results do not depend on them."""

def views() -> dict[str, dict[str, bool]]:
    """Return all views by name, in the core's order.

    parameter: whether it takes a number in parentheses, as in "topk(3)".
    reads_classes: whether it reads answers as a classifier's.
    reads_labels: whether it reads nothing but the most likely class.
    """

def apply_view(responses: Tensor, view: str, /, *, out: Tensor | None = None) -> NDArray[np.float32]:
    """Return the features (M, N, K) of raw responses (M, N, K) under a view.

    view: "identity", "identity_round(d)", "logprob", "round(d)", "topk(k)", "label" or "relative"; views() tells what
        each reads. "relative" reads all answers of a model together, the others each answer by itself.
    """

def view_gradient(
    responses: Tensor, feature_gradient: Tensor, view: str, /, *, out: Tensor | None = None
) -> NDArray[np.float32]:
    """Return the gradient (M, N, K) with respect to the raw responses, given the one with respect to the features."""

def verifier_kinds() -> dict[str, dict[str, bool]]:
    """Return all kinds of verifier by name, in the order in which to try them.

    closed_form: whether it is fitted by fit_closed_form, from the owner's and the negatives' responses, not by steps.
    preferred: whether candidates of this kind alone decide, where one of them is close to the best.
    pairs_with_owner: whether it may also read how far a response lies from the owner's.
    """

def parameter_shapes(
    kind: VerifierKind, queries: int, outputs: int, *, hidden: int = 64
) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of all parameters that a verifier would have; None where any number of columns will do."""

@final
class Verifier:
    """A meta-verifier: view -> standardise -> score, with its loss, gradients and Adam state."""

    kind: Final[VerifierKind]
    queries: Final[int]
    outputs: Final[int]
    hidden: Final[int]
    view: Final[str]
    steps: Final[int]

    def __new__(
        cls,
        kind: VerifierKind,
        queries: int,
        outputs: int,
        *,
        view: str = "identity",
        hidden: int = 64,
        seed: int = 0,
    ) -> Verifier: ...
    def standardize(self, responses: Tensor, /) -> None:
        """Set shift (per feature mean) and scale (per output, pooled over queries) from responses (M, N, K)."""
    def fit_closed_form(
        self, owner: Tensor, negatives: Tensor, /, *, shrinkage: float = 0.2, floor: float = 1e-2
    ) -> None:
        """Fit a kind that has a closed form to the owner's (N, K) and M >= 2 negatives' (M, N, K) responses.

        Raises RuntimeError for the other kinds.
        """
    def step(
        self,
        responses: Tensor,
        roles: bytes,
        /,
        *,
        gradient: Tensor | None = None,
        learning_rate: float = 1e-3,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        weight_decay: float = 0.0,
        mix: float = 0.0,
        noise: float = 0.0,
        dropout: float = 0.0,
        update: bool = True,
    ) -> float:
        """Take one joint step; return the three-term loss.

        gradient: where d loss / d responses is written, if given.
        weights: (a_F, a_P, a_N), of the owner, the positives and the negatives.
        """
    def logits(self, responses: Tensor, /, *, out: Tensor | None = None) -> NDArray[np.float32]:
        """Return the logits (M,) of responses (M, N, K)."""
    def scores(self, responses: Tensor, /, *, out: Tensor | None = None) -> NDArray[np.float32]:
        """Return the scores (M,) in [0, 1] of responses (M, N, K)."""
    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of all parameters, `shift` and `scale` included."""
    def load_parameters(self, parameters: Mapping[str, Tensor], /) -> None:
        """Replace all parameters; the optimiser Adam starts anew.

        parameters: must name each one that parameters() gives.

        On an error (unknown or missing name, wrong shape, a value that is not finite) nothing has changed.
        """
    def copy(self) -> Verifier:
        """Return an independent verifier in the same state, Adam's and the augmentation's included."""

@final
class QueryOptimizer:
    """Adam on the queries of a fingerprint, followed by the projection onto bounds, radius and levels."""

    def __new__(
        cls,
        natural: Tensor,
        lower: Tensor,
        upper: Tensor,
        /,
        *,
        radius: float | None = None,
        levels: int | None = None,
    ) -> QueryOptimizer:
        """Return an optimiser that starts at given queries.

        natural: the queries (N, ...) to start at.
        lower, upper: bounds, of the shape of one query.
        radius: largest change of a query, in units of upper - lower; None for no limit.
        levels: number of values that a feature may take; None for continuous ones.
        """
    def update(self, gradient: Tensor, queries: Tensor, /, *, learning_rate: float = 1e-2) -> None:
        """Take one step, and write the projected queries (N, ...) in place."""
