"""Vectors with given tokens, for tests of keys and dialects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from bridge.encode.base import TokenVocabulary
from bridge.records import SparseVector, Vocabulary
from bridge.tokens import store_precision


def vector_of(weights: Mapping[str, float]) -> SparseVector:
    """A vector over a vocabulary of just these tokens."""
    ids = np.arange(len(weights), dtype=np.int32)
    return SparseVector(ids, np.array(list(weights.values()), dtype=np.float32), TokenVocabulary(tuple(weights)))


def sparse_vector(weights: Mapping[int, float] | Iterable[tuple[int, float]], vocabulary: Vocabulary) -> SparseVector:
    """A `SparseVector` from id ─▶ weight; entries that are zero or less are left out."""
    pairs = sorted((i, w) for i, w in dict(weights).items() if w > 0)
    ids = np.fromiter((i for i, _ in pairs), dtype=np.int32, count=len(pairs))
    values = np.fromiter((w for _, w in pairs), dtype=np.float32, count=len(pairs))
    return SparseVector(ids, values, vocabulary)


def stored(vector: SparseVector) -> dict[str, float]:
    """Token ─▶ weight, as an engine keeps it."""
    return dict(zip(vector.tokens, store_precision(vector.weights).tolist(), strict=True))
