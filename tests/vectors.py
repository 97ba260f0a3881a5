"""Vectors with given tokens, for tests of keys and dialects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bridge.encode.base import TokenVocabulary
from bridge.records import SparseVector


def vector_of(weights: Mapping[str, float]) -> SparseVector:
    """A vector over a vocabulary of just these tokens."""
    ids = np.arange(len(weights), dtype=np.int32)
    return SparseVector(ids, np.array(list(weights.values()), dtype=np.float32), TokenVocabulary(tuple(weights)))
