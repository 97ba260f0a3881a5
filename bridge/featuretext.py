"""Vectors ─▶ the text of `rank_features` values, a batch at a time.

To name each token, round each weight and write both takes longer than to look a text's words up. There are only so many
tokens and weights (see `bridge.tokens`), so the texts of all are kept, and those of a batch are taken from them for all
of its vectors together.
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

        One stays as it is where it is of another vocabulary, or has a token or a weight that no engine takes:
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
    """The texts of all tokens, ``"name":``, and of all weights, ``1.5,``."""

    def __init__(self, vocabulary: TokenVocabulary) -> None:
        self._tokens = [vocabulary.token(i) for i in range(len(vocabulary))]
        self._names = _objects(list(map(_name, self._tokens)))
        self._dotted = np.fromiter(("." in token for token in self._tokens), np.bool_, len(self._tokens))
        self._numbers = stored_numbers()
        self._weights = _objects(
            [b"" if number is None else msgspec.json.encode(number) + b"," for number in self._numbers.tolist()]
        )
        self._nameless, self._weightless = self._names == b"", self._weights == b""

    def written(self, vectors: Sequence[SparseVector]) -> list[ReadyVector | None]:
        """Each vector, none of them empty, as its text; None for one that has a token or weight without."""
        ids = np.concatenate([vector.ids for vector in vectors])
        weights = stored_places(np.concatenate([vector.weights for vector in vectors]))
        bounds = np.cumsum([0, *(len(vector.ids) for vector in vectors)])
        new, strange = ids >= len(self._tokens), weights >= len(self._numbers)
        if new.any() or strange.any():
            ids, weights = np.where(new, 0, ids), np.where(strange, 0, weights)
        strange |= self._nameless[ids] | self._weightless[weights]
        dotted = self._dotted[ids] & ~new
        left_out, have_dots = _vectors_of(strange, bounds), _vectors_of(dotted, bounds)
        pieces = np.empty(2 * len(ids), object)
        pieces[0::2], pieces[1::2] = self._names[ids], self._weights[weights]
        for place in _vectors_of(new, bounds):
            own = slice(bounds[place], bounds[place + 1])
            names = _new_names(vectors[place], new[own])
            pieces[0::2][own][new[own]] = names
            if not all(names):
                left_out.add(place)
        texts: list[bytes] = pieces.tolist()
        found: list[ReadyVector | None] = []
        for place, (start, end) in enumerate(pairwise(bounds.tolist())):
            if place in left_out:
                found.append(None)
                continue
            beside = None
            if place in have_dots:
                dots = start + np.flatnonzero(dotted[start:end])
                beside = self._by_token(ids[dots], weights[dots])
            # The last weight's comma is the object's end.
            text = b"".join(texts[2 * start : 2 * end])[:-1]
            found.append(ReadyVector(msgspec.Raw(b"{%b}" % text), beside, ""))
        return found

    def _by_token(self, ids: npt.NDArray[np.int32], weights: npt.NDArray[np.uint32]) -> msgspec.Raw:
        """Tokens that hold a dot under their own names."""
        pairs = zip(ids.tolist(), self._numbers[weights].tolist(), strict=True)
        return msgspec.Raw(msgspec.json.encode({self._tokens[i]: number for i, number in pairs}))


def _name(token: str) -> bytes:
    try:
        return msgspec.json.encode(feature_key(token)) + b":"
    except UnicodeEncodeError:
        return b""


def _new_names(vector: SparseVector, new: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """The names of those tokens that lie over the vocabulary; empty for one that is written in another way."""
    tokens = vector.vocabulary.tokens(vector.ids[new])
    return _objects([b"" if "." in token else _name(token) for token in tokens])


def _objects(texts: list[bytes]) -> npt.NDArray[np.object_]:
    found = np.empty(len(texts), object)
    found[:] = texts
    return found


def _vectors_of(entries: npt.NDArray[np.bool_], bounds: npt.NDArray[np.int64]) -> set[int]:
    """In which vectors these entries are."""
    return set((np.searchsorted(bounds, np.flatnonzero(entries), side="right") - 1).tolist())
