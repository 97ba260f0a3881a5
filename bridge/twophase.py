"""A query in two phases: the heaviest tokens find candidates, and the light ones change the order of the best.

Most documents share only light tokens with a query, and are never scored. Of the candidates within the window the score
is the whole dot product. The same as OpenSearch's `neural_sparse_two_phase_processor`, as a `rescore` of the search
body: for engines that have no such processor, for `rank_feature`, and where it is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.dialects.features import Query
from bridge.errors import UsageError
from bridge.prune import Pruning
from bridge.records import SparseVector

LARGEST_WINDOW = 10_000
"""The engines' own limit (`index.max_rescore_window`)."""


@dataclass(frozen=True, slots=True)
class TwoPhase:
    """How a query is parted.

    Attributes:
        prune_ratio: tokens that weigh less than this share of the heaviest wait for the second phase; 0 to 1.
        expansion_rate: of each shard so many times the wanted hits are scored anew; 1 or more.

    Raises:
        UsageError: a value outside its range.
    """

    prune_ratio: float = 0.4
    expansion_rate: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.prune_ratio <= 1:
            raise UsageError(f"prune_ratio is {self.prune_ratio}; it lies between 0 and 1")
        if not 1 <= self.expansion_rate < math.inf:
            raise UsageError(f"expansion_rate is {self.expansion_rate}; it is 1 or more")

    def part(self, vector: SparseVector) -> tuple[SparseVector, SparseVector]:
        """The tokens of the first phase, and those that are left; none are where all are heavy."""
        heavy = Pruning(max_ratio=self.prune_ratio).apply(vector).vector
        light = ~np.isin(vector.ids, heavy.ids)
        return heavy, SparseVector(vector.ids[light], vector.weights[light], vector.vocabulary)

    def rescore(self, light: SparseVector, ask: Callable[[SparseVector], Query], size: int) -> dict[str, Any]:
        """The body's `rescore` with the `light` tokens; `size` is how many hits are wanted, those passed over too.

        Raises:
            UsageError: more hits are wanted than an engine scores anew.
        """
        if size > LARGEST_WINDOW:
            raise UsageError(f"two phases give up to {LARGEST_WINDOW:,} hits; ask for {size:,} in one")
        window = min(LARGEST_WINDOW, math.ceil(size * self.expansion_rate))
        both = {"query_weight": 1.0, "rescore_query_weight": 1.0}
        return {"window_size": max(1, window), "query": {"rescore_query": ask(light), **both}}
