"""What a sparse model's runtime gives, whichever library it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Entries = tuple[np.ndarray[Any, np.dtype[np.int32]], np.ndarray[Any, np.dtype[np.float32]]]
"""Ids ascending int32[n] and weights float32[n] > 0."""

NO_ENTRIES: Entries = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))


class SparseRuntime(Protocol):
    """A loaded sparse model: token sequences ─▶ entries over its vocabulary."""

    vocabulary_size: int

    def encode(self, ids: Sequence[Sequence[int]], *, dropped: Sequence[int] = ()) -> list[Entries]:
        """Entries of each token sequence, in order; an empty sequence has none.

        Args:
            ids: token ids, special ones included, each no longer than the model takes.
            dropped: vocabulary ids whose entries are set to zero.
        """
        ...
