"""Vectors ─▶ the text of `rank_features` values, a batch at a time.

To name each token, round each weight and write both takes longer than to look a text's words up. There are only so many
tokens and weights (see `bridge.tokens`), so the texts of all lie one after the other in one array, and the texts of a
batch are gathered from it by a few array operations for all of its vectors together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from bridge.encode.base import OverlayVocabulary, TokenVocabulary
from bridge.records import ReadyVector, SparseVector
from bridge.tokens import feature_key, stored_numbers, stored_places

FROM = 2_000
"""Vectors; so many come before the texts of all tokens are worth writing, which takes a fraction of a second."""

_Places = npt.NDArray[np.int32]


class FeatureText:
    """Writes the vectors of one vocabulary. For one thread.

    Args:
        vocabulary: of the vectors; those of an overlay on it are written, too.
        start: how many vectors come first that are left as they are.
    """

    def __init__(self, vocabulary: TokenVocabulary, start: int = FROM) -> None:
        self._vocabulary, self._left = vocabulary, start
        self._table: _Table | None = None

    def of(self, vectors: Sequence[SparseVector]) -> list[SparseVector | ReadyVector]:
        """Each vector as its text, in order.

        One stays as it is where it has a token that the vocabulary does not list, or a weight that no engine takes:
        `bridge.tokens.field_value` writes it, or says what is wrong.
        """
        found: list[SparseVector | ReadyVector] = list(vectors)
        if self._left > 0:
            self._left -= len(vectors)
            return found
        if self._table is None:
            self._table = _Table(self._vocabulary)
        places = [place for place, vector in enumerate(vectors) if self._is_ours(vector)]
        if places:
            written = self._table.written([vectors[place] for place in places])
            for place, one in zip(places, written, strict=True):
                if one is not None:
                    found[place] = one
        return found

    def _is_ours(self, vector: SparseVector) -> bool:
        vocabulary = vector.vocabulary
        base = vocabulary.base if isinstance(vocabulary, OverlayVocabulary) else vocabulary
        return base is self._vocabulary and len(vector.ids) > 0


class _Table:
    """The texts of all tokens, ``"name":``, and after them those of all weights, ``1.5,``; and where each stands."""

    def __init__(self, vocabulary: TokenVocabulary) -> None:
        self._tokens = tokens = [vocabulary.token(i) for i in range(len(vocabulary))]
        self._numbers = stored_numbers()
        names = list(map(_name, tokens))
        weights = [b"" if number is None else msgspec.json.encode(number) + b"," for number in self._numbers.tolist()]
        self._text = np.frombuffer(b"".join((*names, *weights)), dtype=np.uint8)
        self._name_length = np.fromiter(map(len, names), np.int32, len(names))
        self._weight_length = np.fromiter(map(len, weights), np.int32, len(weights))
        self._name_start = _starts(self._name_length, 0)
        self._weight_start = _starts(self._weight_length, int(self._name_length.sum()))
        self._dotted = np.fromiter(("." in token for token in tokens), np.bool_, len(tokens))

    def written(self, vectors: Sequence[SparseVector]) -> list[ReadyVector | None]:
        """Each vector, none of them empty, as its text; None for one that has a token or weight without."""
        ids = np.concatenate([vector.ids for vector in vectors])
        weights = stored_places(np.concatenate([vector.weights for vector in vectors]))
        bounds = np.cumsum([0, *(len(vector.ids) for vector in vectors)])
        strange = (ids >= len(self._tokens)) | (weights >= len(self._numbers))
        if strange.any():
            ids, weights = np.where(strange, 0, ids), np.where(strange, 0, weights)
        strange |= (self._name_length[ids] == 0) | (self._weight_length[weights] == 0)
        left_out, dotted = _vectors_of(strange, bounds), _vectors_of(self._dotted[ids], bounds)
        text, ends = self._gathered(ids, weights)
        last = [0, *ends[2 * bounds[1:] - 1].tolist()]
        found: list[ReadyVector | None] = []
        for place, (start, end) in enumerate(pairwise(last)):
            if place in left_out:
                found.append(None)
                continue
            beside = None
            if place in dotted:
                own = slice(bounds[place], bounds[place + 1])
                beside = self._by_token(ids[own], weights[own])
            # The last weight's comma is the object's end.
            found.append(ReadyVector(msgspec.Raw(b"{%b}" % text[start : end - 1]), beside, ""))
        return found

    def _gathered(self, ids: npt.NDArray[np.int32], weights: npt.NDArray[np.uint32]) -> tuple[bytes, _Places]:
        """The texts of names and weights in turn, and where each ends."""
        starts, lengths = np.empty(2 * len(ids), np.int32), np.empty(2 * len(ids), np.int32)
        starts[0::2], starts[1::2] = self._name_start[ids], self._weight_start[weights]
        lengths[0::2], lengths[1::2] = self._name_length[ids], self._weight_length[weights]
        ends = np.cumsum(lengths, dtype=np.int32)
        # Where each byte comes from: as far from its own place as its piece's beginning is.
        source = np.repeat(starts - (ends - lengths), lengths)
        source += np.arange(len(source), dtype=np.int32)
        return self._text[source].tobytes(), ends

    def _by_token(self, ids: npt.NDArray[np.int32], weights: npt.NDArray[np.uint32]) -> msgspec.Raw:
        """The tokens that hold a dot under their own names."""
        kept = self._dotted[ids]
        pairs = zip(ids[kept].tolist(), self._numbers[weights[kept]].tolist(), strict=True)
        return msgspec.Raw(msgspec.json.encode({self._tokens[i]: number for i, number in pairs}))


def _name(token: str) -> bytes:
    try:
        return msgspec.json.encode(feature_key(token)) + b":"
    except UnicodeEncodeError:
        return b""


def _starts(lengths: _Places, first: int) -> _Places:
    return (np.cumsum(lengths, dtype=np.int64) - lengths + first).astype(np.int32)


def _vectors_of(entries: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]) -> set[int]:
    """In which vectors these entries are."""
    return set((np.searchsorted(bounds, np.flatnonzero(entries), side="right") - 1).tolist())
