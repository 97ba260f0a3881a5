"""Pruning: a shorter vector that scores nearly the same.

Every method keeps some number of the heaviest tokens, so they combine to the shortest of what each
would keep. The names and meanings are those of OpenSearch's `sparse_encoding` processor (top_k,
max_ratio, alpha_mass; its abs_value is `threshold` here).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from bridge.errors import UsageError
from bridge.records import SparseVector, Weights


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning left."""

    vector: SparseVector
    removed: int
    """Tokens that went."""
    removed_mass: float
    """The sum of their weights, in the vector's own units."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which tokens of a vector go. Methods that are None do nothing; the others apply in this order:

    1. `threshold`: weights below it go.
    2. `max_ratio`: weights below ratio × the vector's largest go.
    3. `alpha_mass`: the fewest of the heaviest stay whose weights sum to alpha or more of the sum of
       what the methods before it left (all of it for 1.0).
    4. `top_k`: the k heaviest stay.

    Among equal weights the lower id counts as the heavier. A vector that had tokens keeps its heaviest,
    whatever the settings.

    Raises:
        UsageError: a value outside its range.

    >>> str(Pruning(top_k=128, max_ratio=0.1))
    'top-k=128,max-ratio=0.1'
    """

    top_k: int | None = None
    """1 or more."""
    max_ratio: float | None = None
    """0 to 1."""
    alpha_mass: float | None = None
    """Above 0, to 1."""
    threshold: float | None = None
    """0 or more, in the units of the weights."""

    def __post_init__(self) -> None:
        if self.top_k is not None and (not _whole(self.top_k) or self.top_k < 1):
            raise UsageError(f"top-k is {self.top_k}; it is a whole number, 1 or more")
        if self.max_ratio is not None and not 0 <= self.max_ratio <= 1:
            raise UsageError(f"max-ratio is {self.max_ratio}; it lies between 0 and 1")
        if self.alpha_mass is not None and not 0 < self.alpha_mass <= 1:
            raise UsageError(f"alpha-mass is {self.alpha_mass}; it lies above 0, up to 1")
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise UsageError(f"threshold is {self.threshold}; it is 0 or more")

    def __str__(self) -> str:
        """The form that `parse_pruning` reads."""
        asked = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ",".join(f"{name.replace('_', '-')}={value}" for name, value in asked if value is not None)

    def apply(self, vector: SparseVector) -> Pruned:
        """`vector` without the tokens that go, ids still ascending."""
        if not len(vector):
            return Pruned(vector, 0, 0.0)
        # Stable on the negated weights: among equals the lower id comes first, whatever the platform.
        order = np.argsort(-vector.weights, kind="stable")
        kept = self._kept(vector.weights[order])
        if kept == len(vector):
            return Pruned(vector, 0, 0.0)
        gone = float(vector.weights[order[kept:]].sum(dtype=np.float64))
        stay = np.sort(order[:kept])
        left = SparseVector(vector.ids[stay], vector.weights[stay], vector.vocabulary)
        return Pruned(left, len(vector) - kept, gone)

    def _kept(self, weights: Weights) -> int:
        """How many of `weights` float32[n], heaviest first, stay; 1 or more."""
        kept = len(weights)
        # Compared as float32: a weight that prints as 0.7 is not below a threshold of 0.7.
        if self.threshold is not None:
            kept = int(np.count_nonzero(weights >= np.float32(self.threshold)))
        if self.max_ratio is not None:
            kept = min(kept, int(np.count_nonzero(weights >= np.float32(self.max_ratio) * weights[0])))
        kept = max(kept, 1)
        # All of the mass is all of the tokens, even those too light to change the sum.
        if self.alpha_mass is not None and self.alpha_mass < 1:
            mass = np.cumsum(weights[:kept], dtype=np.float64)
            kept = 1 + int(np.searchsorted(mass, self.alpha_mass * mass[-1]))
        return kept if self.top_k is None else min(kept, self.top_k)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_READERS: dict[str, Callable[[str], float]] = {
    "top-k": int,
    "max-ratio": float,
    "alpha-mass": float,
    "threshold": float,
}


def parse_pruning(text: str) -> Pruning:
    """`text` like ``top-k=128,max-ratio=0.1``: one or more methods with their values.

    Raises:
        UsageError: not of that form, an unknown method, one that comes twice, or a value outside its range.
    """
    values: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = name.replace("_", "-")
        reader = _READERS.get(name)
        if reader is None or not equals:
            raise UsageError(
                f"pruning {part.strip()!r} is not METHOD=VALUE with one of {', '.join(_READERS)}; "
                "it looks like top-k=128,max-ratio=0.1"
            )
        key = name.replace("-", "_")
        if key in values:
            raise UsageError(f"pruning names {name} twice")
        try:
            values[key] = reader(value)
        except ValueError:
            kind = "a whole number" if reader is int else "a number"
            raise UsageError(f"pruning {name}={value!r} is not {kind}") from None
    return Pruning(**values)  # type: ignore[arg-type]  # the reader of top-k gives an int
