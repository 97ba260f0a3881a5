"""The lexical model: BM25 as a pair of sparse encoders, so that an engine's dot product is BM25.

A term's weight in a document of length L is its saturated frequency, in a query its IDF::

    document   tf·(k1 + 1) / (tf + k1·(1 − b + b·L/avgL))
    query      ln(1 + (N − df + ½) / (df + ½))

(Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the IDF is
Lucene's.) N, df and avgL come from `bridge fit`. Query terms are a set, like those of every
inference-free model. Function words ("what", "is", …) of the model's language do not ask for
anything: they are left out of a query unless nothing else is in it; documents keep them.

A folder of this family::

    bridge.json       family, analyzer, k1, b, documents, average_length, unseen_weight
    idf.json          term ─▶ query weight
    tokenizer.json    only where the terms are word pieces
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, cached_property
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from bridge.encode.analysis import Analyzer, WordAnalyzer, WordOffsets
from bridge.encode.base import OverlayVocabulary, TokenVocabulary
from bridge.encode.folder import CARD_FILE, file_hash
from bridge.encode.lookup import Wordpieces, read_idf
from bridge.encode.numbered import NumberedWords
from bridge.errors import ModelFormatError
from bridge.offsets import Span, TokenOffsets
from bridge.records import SparseVector

FAMILY = "lexical"


class LexicalCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What bridge.json holds."""

    family: Literal["lexical"] = "lexical"
    format: Literal[1] = 1
    analyzer: Literal["words", "wordpieces"] = "words"
    language: str | None = None
    stemmer: str | None = None
    k1: float = 0.9
    b: float = 0.4
    documents: int
    average_length: float
    unseen_weight: float


class PieceAnalyzer:
    """Word pieces of a tokenizer.json as terms, special tokens left out."""

    def __init__(self, pieces: Wordpieces) -> None:
        self.pieces = pieces

    def terms(self, texts: Sequence[str]) -> list[list[str]]:
        token = self.pieces.vocabulary.token
        return [list(map(token, ids)) for ids in self.pieces.ids(texts)]

    def spans(self, text: str) -> list[Span]:
        return self.pieces.spans(text)


@cache
def _function_word_lists() -> dict[str, str]:
    content = (files("bridge.encode") / "function_words.json").read_bytes()
    return msgspec.json.decode(content, type=dict[str, str])


def function_terms(language: str | None, analyzer: Analyzer) -> frozenset[str]:
    """The analyzed function words of `language`; empty where no list is kept for it."""
    words = _function_word_lists().get(language or "", "").split()
    analyzed = analyzer.terms(words)
    # A word that falls into several pieces is no function word as far as its pieces go.
    return frozenset(terms[0] for terms in analyzed if len(terms) == 1)


def saturated(counted: Counter[str], k1: float, b: float, average_length: float) -> npt.NDArray[np.float64]:
    """Saturated frequencies tf·(k1 + 1) / (tf + k1·(1 − b + b·L/avgL)) of a document's terms: float64[n], in order."""
    frequency = np.fromiter(counted.values(), dtype=np.float64, count=len(counted))
    return _saturated(frequency, frequency.sum(), k1, b, average_length)


def _saturated(
    frequency: npt.NDArray[np.float64], length: Any, k1: float, b: float, average_length: float
) -> npt.NDArray[np.float64]:
    """The same of terms whose documents have these lengths, one or one a term."""
    impacts: npt.NDArray[np.float64] = frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * length / average_length))
    return impacts


def asked_terms(terms: Sequence[str], function_words: frozenset[str]) -> list[str]:
    """A query's distinct terms without function words, unless there is nothing else in it."""
    distinct = list(dict.fromkeys(terms))
    return [term for term in distinct if term not in function_words] or distinct


class LexicalEncoder:
    """Documents and queries of one fitted folder."""

    encodes_documents = True

    def __init__(self, folder: Path) -> None:
        self.name = folder.name or str(folder)
        self.card = read_card(folder)
        names = [CARD_FILE, "idf.json"]
        self.analyzer: Analyzer
        if self.card.analyzer == "wordpieces":
            names.append("tokenizer.json")
            self.analyzer = PieceAnalyzer(Wordpieces(folder))
        else:
            self.analyzer = WordAnalyzer(self.card.stemmer)
        self._idf = read_idf(folder / "idf.json")
        self.folder, self._names = folder, names
        self.fingerprint = f"{FAMILY}-{file_hash(*self._files)[:16]}"
        # Impacts and IDF were fitted together: another fit is another space.
        self.space = self.fingerprint
        if isinstance(self.analyzer, PieceAnalyzer):
            self.vocabulary = self.analyzer.pieces.vocabulary
        else:
            self.vocabulary = TokenVocabulary(tuple(self._idf))
        self._function_terms = function_terms(self.card.language, self.analyzer)

    @property
    def query_fingerprint(self) -> str:
        return self.fingerprint

    @property
    def _files(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self._names)

    @property
    def portable(self) -> dict[str, tuple[Path, ...]]:
        return {self.fingerprint: self._files}

    @property
    def open_vocabulary(self) -> bool:
        return self.card.analyzer == "words"

    @cached_property
    def passage_tokenizer(self) -> TokenOffsets:
        """Counts word pieces, or words; a text has no length that would be too long."""
        analyzer = self.analyzer
        return analyzer.pieces.offsets(special=0) if isinstance(analyzer, PieceAnalyzer) else WordOffsets()

    @property
    def ceilings(self) -> tuple[float, float]:
        return self.card.k1 + 1, max(self._idf.values(), default=self.card.unseen_weight)

    def spans(self, text: str) -> list[Span]:
        return self.analyzer.spans(text)

    def encode_document(self, texts: Sequence[str]) -> list[SparseVector]:
        """See `Encoder.encode_document`; the texts are counted together, with a few arrays for all of them."""
        vocabulary, card = OverlayVocabulary(self.vocabulary), self.card
        ids, texts_of_ids = self._numbered(texts, vocabulary)
        lengths = np.bincount(texts_of_ids, minlength=len(texts))
        # Text and term in one number: in its order both ascend. The smaller the numbers, the faster they are sorted.
        size, count = len(vocabulary), len(texts)
        kind = np.int32 if count * size <= np.iinfo(np.int32).max else np.int64
        places, counts = np.unique((texts_of_ids * size + ids).astype(kind), return_counts=True)
        bounds = np.searchsorted(places, np.arange(count + 1, dtype=np.int64) * size)
        rows = np.repeat(np.arange(count), np.diff(bounds))
        found = places - rows * size
        impacts = _saturated(counts.astype(np.float64), lengths[rows], card.k1, card.b, card.average_length)
        weights, kept = impacts.astype(np.float32), found.astype(np.int32)
        return [
            SparseVector(kept[start:end], weights[start:end], vocabulary) for start, end in pairwise(bounds.tolist())
        ]

    def _numbered(
        self, texts: Sequence[str], vocabulary: OverlayVocabulary
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The ids of all terms, in reading order, repeats kept, and the place of the text that each is in."""
        if not isinstance(self.analyzer, PieceAnalyzer):
            return self._numbered_words.of(texts, vocabulary.ids)
        read = self.analyzer.pieces.ids(texts)
        ids = np.fromiter(chain.from_iterable(read), dtype=np.int64)
        return ids, np.repeat(np.arange(len(read)), list(map(len, read)))

    @cached_property
    def _numbered_words(self) -> NumberedWords:
        return NumberedWords(cast(WordAnalyzer, self.analyzer), self.vocabulary.index)

    def encode_query(self, texts: Sequence[str]) -> list[SparseVector]:
        vocabulary = OverlayVocabulary(self.vocabulary)
        return [self._query(terms, vocabulary) for terms in self.analyzer.terms(texts)]

    def _query(self, terms: list[str], vocabulary: OverlayVocabulary) -> SparseVector:
        asked = asked_terms(terms, self._function_terms)
        unseen = self.card.unseen_weight
        weights = np.fromiter((self._idf.get(term, unseen) for term in asked), dtype=np.float64, count=len(asked))
        return vocabulary.vector(asked, weights)


def read_card(folder: Path) -> LexicalCard:
    """The card of a fitted folder.

    Raises:
        ModelFormatError: missing, or not such a card.
    """
    path = folder / CARD_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=LexicalCard)
    except FileNotFoundError:
        raise ModelFormatError(f"{folder} has no {CARD_FILE}") from None
    except OSError as error:
        raise ModelFormatError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path} is not a fitted model's card: {error}") from error
