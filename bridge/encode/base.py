"""What every encoder is, and the two kinds of vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bridge.offsets import Span
from bridge.records import Ids, SparseVector, Vocabulary


class Encoder(Protocol):
    """Text ─▶ learned-sparse vectors.

    `space` names the vocabulary and weighting that the vectors live in; `fingerprint` names this very
    encoder. A query encoder fits an index when the spaces agree and the index lists its fingerprint.
    """

    @property
    def name(self) -> str: ...
    @property
    def space(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def query_fingerprint(self) -> str:
        """The fingerprint of what encodes queries: `fingerprint`, or that of a query side of its own."""
        ...

    @property
    def encodes_documents(self) -> bool: ...
    @property
    def portable(self) -> Mapping[str, tuple[Path, ...]]:
        """Fingerprint ─▶ files of what travels with an index: every part that needs no neural model's weights."""
        ...

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def open_vocabulary(self) -> bool:
        """True where a text may hold tokens that the vocabulary does not list."""
        ...

    @property
    def ceilings(self) -> tuple[float, float]:
        """The largest weights to expect of a document and of a query (SEISMIC quantises below them)."""
        ...

    def spans(self, text: str) -> list[Span]:
        """The tokens that the text's own words give, in reading order; what a model adds stands nowhere in it."""
        ...

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector a text, in order; an empty text is an empty vector."""
        ...

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector a text, in order; an empty text is an empty vector."""
        ...


class TokenVocabulary:
    """A closed vocabulary: `token_list[i]` is the token of id i."""

    def __init__(self, token_list: Sequence[str]) -> None:
        self._tokens = tuple(token_list)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Token ─▶ id."""
        return {token: i for i, token in enumerate(self._tokens)}

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, ids: Ids) -> tuple[str, ...]:
        known = self._tokens
        return tuple([known[i] for i in ids.tolist()])  # faster than a generator: every query comes by

    def token(self, i: int) -> str:
        """The token of one id."""
        return self._tokens[i]


class OverlayVocabulary:
    """`base`, and after its last id the tokens of one batch that it does not list.

    An open vocabulary must not remember every word it ever met, or memory grows with the corpus: so
    the new words of a batch live as long as the batch's vectors do. Ids past ``len(base)`` mean
    nothing outside of it; tokens do.
    """

    def __init__(self, base: TokenVocabulary) -> None:
        self._base = base
        self._extra: list[str] = []
        self._extra_ids: dict[str, int] = {}

    @property
    def base(self) -> TokenVocabulary:
        """What it is laid over."""
        return self._base

    def __len__(self) -> int:
        return len(self._base) + len(self._extra)

    def id_of(self, token: str) -> int:
        """The token's id; a new token gets the next one."""
        known = self._base.index.get(token)
        if known is not None:
            return known
        found = self._extra_ids.get(token)
        if found is None:
            found = self._extra_ids[token] = len(self)
            self._extra.append(token)
        return found

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The ids of `tokens`, in order; new ones get the next."""
        listed = list(tokens)
        found = list(map(self._base.index.get, listed))
        if None in found:
            return list(map(self.id_of, listed))
        return found  # type: ignore[return-value]

    def vector(self, tokens: Collection[str], weights: npt.NDArray[np.float64]) -> SparseVector:
        """A vector of distinct `tokens` and their `weights`, all above zero, in the same order."""
        ids = np.array(self.ids(tokens), dtype=np.int32)
        order = np.argsort(ids)
        return SparseVector(ids[order], weights[order].astype(np.float32), self)

    def tokens(self, ids: Ids) -> tuple[str, ...]:
        size = len(self._base)
        listed = ids.tolist()
        if not listed or listed[-1] < size:
            return self._base.tokens(ids)
        known = [i for i in listed if i < size]
        return (
            *self._base.tokens(np.asarray(known, dtype=np.int32)),
            *(self._extra[i - size] for i in listed if i >= size),
        )
