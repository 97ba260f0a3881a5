"""From a corpus's words and a dense encoder to the table of a projection model: no judgements, no training.

Three things are asked of the dense encoder (the teacher): the embeddings of the words, each in its most frequent
form; those of a sample of documents, for their mean; and none of any query. With E(t) the embedding of a word and
Ē the mean over words, d an embedding of a document and d̄ its mean::

    words[t] = scale · (E(t) − Ē)            so that a query's terms add up to scale · Σ q(t)·(E(t) − Ē) · (d − d̄)
    scale    = SHARE · spread(lexical) / spread(Σ q(t)·(E(t) − Ē) · (d − d̄))

The spreads (mean over queries of the standard deviation over documents) are those of pseudo-queries, short runs of
terms from the sampled documents, on the sampled documents: so the two parts weigh the same in every corpus, and
with every teacher. The formulas of a document's vector stand in `bridge.encode.projection`; what else was tried,
and how little the constants matter around their values, in docs/projection.md.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bridge.encode.analysis import Analyzer
from bridge.encode.lexical import saturated
from bridge.encode.projection import Floats, ProjectionTable, Teacher

SAMPLE = 1024
"""Documents whose embeddings give the mean, and the scale."""

MAX_WORDS = 60_000
"""Rows of the table: the most frequent terms. A term past them is lexical only."""

SHARE = 1.75
"""The spread of the teacher's part, as a multiple of the lexical part's."""

EXPANSION, LEAST_EXPANSION, TERMS = 128, 32, 250
"""Terms that a document gets beside its own; as few for a long one; what it should have in all."""

FLOOR = 0.05
"""Of its lexical weight an own term keeps at least this share."""

NEIGHBOURS, COSINE, NEIGHBOUR_WEIGHT = 8, 0.7, 0.4
"""A word's most similar words, how similar they must be, and what share of a weight they are lent."""

REACH = 0.3
"""The power of a term's document frequency in its rank for a place: about how likely it is to be asked for."""

_QUERIES = 400
_QUERY_TERMS = (2, 3, 4, 5, 6, 8)
_SEED = 20250101
_BATCH = 512
_BLOCK = 16_000_000
"""Similarities that are held at a time."""


class Reservoir:
    """A uniform sample of a stream, the same in every run (Vitter's algorithm R)."""

    def __init__(self, size: int = SAMPLE) -> None:
        self.texts: list[str] = []
        self._size = size
        self._seen = 0
        self._random = random.Random(_SEED)  # noqa: S311

    def add(self, text: str) -> None:
        """One more text of the stream; it is kept with the chance that every other one has."""
        self._seen += 1
        if len(self.texts) < self._size:
            self.texts.append(text)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self.texts[place] = text


@dataclass(frozen=True, slots=True)
class Corpus:
    """What one pass over the documents left.

    Attributes:
        weights: term ─▶ query weight, the most frequent term first.
        frequency: term ─▶ documents that hold it.
        forms: term ─▶ its most frequent word form.
        sample: texts of some documents.
        function_words: terms that queries leave out.
        k1, b, average_length: of the lexical part.
    """

    weights: Mapping[str, float]
    frequency: Mapping[str, int]
    forms: Mapping[str, str]
    sample: Sequence[str]
    function_words: frozenset[str]
    k1: float
    b: float
    average_length: float


def fit_table(corpus: Corpus, analyzer: Analyzer, teacher: Teacher) -> ProjectionTable:
    """The table of the corpus's most frequent terms, in the order of its weights.

    Memory is that of two tables in float32 (n · d · 4 bytes) and one block of similarities, whatever the corpus.
    """
    terms = list(corpus.weights)[:MAX_WORDS]
    words = _embed([corpus.forms.get(term, term) for term in terms], teacher)
    neighbours, cosines = similar_words(words)
    words -= words.mean(0)
    documents = np.concatenate(
        [teacher.encode_document(corpus.sample[i : i + _BATCH]) for i in range(0, len(corpus.sample), _BATCH)]
    )
    mean = documents.mean(0)
    weights = np.fromiter((corpus.weights[term] for term in terms), dtype=np.float32, count=len(terms))
    words *= _scale(corpus, analyzer, terms, words, weights, documents - mean)
    frequency = np.fromiter((corpus.frequency[term] for term in terms), dtype=np.float32, count=len(terms))
    reach = weights * frequency**REACH
    # No query asks for a function word beside others, so it takes no place.
    reach[[i for i, term in enumerate(terms) if term in corpus.function_words]] = 0
    return ProjectionTable(words.astype(np.float16), mean, reach.astype(np.float32), neighbours, cosines)


def _embed(forms: Sequence[str], teacher: Teacher) -> Floats:
    embedded: Floats = np.empty((len(forms), teacher.dimension), dtype=np.float32)
    for start in range(0, len(forms), _BATCH):
        embedded[start : start + _BATCH] = teacher.encode_query(forms[start : start + _BATCH])
    return embedded


def similar_words(words: Floats) -> tuple[npt.NDArray[np.int32], Floats]:
    """Each word's `NEIGHBOURS` most similar others with a cosine above `COSINE`.

    Args:
        words: float32[n, d], embeddings.

    Returns:
        Rows int32[n, NEIGHBOURS], −1 where there are fewer, and their cosines float32[n, NEIGHBOURS], there 0.
    """
    count = len(words)
    unit = words / np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-12)
    most = min(NEIGHBOURS, count - 1)
    rows = np.full((count, NEIGHBOURS), -1, dtype=np.int32)
    cosines = np.zeros((count, NEIGHBOURS), dtype=np.float32)
    if most <= 0:
        return rows, cosines
    block = max(1, _BLOCK // count)
    for start in range(0, count, block):
        found = unit[start : start + block] @ unit.T
        here = np.arange(len(found))
        found[here, start + here] = 0
        best = np.argpartition(found, count - most, axis=1)[:, count - most :]
        values = np.take_along_axis(found, best, 1)
        near = values > COSINE
        rows[start : start + block, :most] = np.where(near, best, -1)
        cosines[start : start + block, :most] = np.where(near, values, 0)
    return rows, cosines


def _scale(
    corpus: Corpus, analyzer: Analyzer, terms: Sequence[str], words: Floats, weights: Floats, documents: Floats
) -> float:
    """What `words` (centred) must be multiplied by; `documents` are the sample's embeddings, centred."""
    row = {term: i for i, term in enumerate(terms)}
    texts = analyzer.terms(corpus.sample)
    queries = _pseudo_queries(texts, row, corpus.function_words)
    if not queries:
        return 0.0
    asked = np.unique(np.concatenate(queries))
    place = {int(i): k for k, i in enumerate(asked)}
    lexical = np.zeros((len(texts), len(asked)), dtype=np.float32)
    for i, one in enumerate(texts):
        counted = Counter(one)
        impacts = saturated(counted, corpus.k1, corpus.b, corpus.average_length)
        for term, impact in zip(counted, impacts, strict=True):
            if (column := place.get(row.get(term, -1))) is not None:
                lexical[i, column] = impact * weights[asked[column]] ** 2
    asking = np.zeros((len(queries), len(asked)), dtype=np.float32)
    for i, query in enumerate(queries):
        asking[i, [place[int(term)] for term in query]] = 1
    dense = (asking * weights[asked]) @ words[asked] @ documents.T
    spread = float(dense.std(1).mean())
    return SHARE * float((asking @ lexical.T).std(1).mean()) / spread if spread > 0 else 0.0


def _pseudo_queries(
    texts: Sequence[Sequence[str]], row: Mapping[str, int], function_words: frozenset[str]
) -> list[npt.NDArray[np.int64]]:
    """Rows of the terms of short runs of the texts' terms, without function words."""
    chance = random.Random(_SEED)  # noqa: S311
    contents = [[row[term] for term in one if term in row and term not in function_words] for one in texts]
    contents = [one for one in contents if one]
    queries = []
    for _ in range(_QUERIES if contents else 0):
        one = chance.choice(contents)
        length = min(len(one), chance.choice(_QUERY_TERMS))
        start = chance.randrange(len(one) - length + 1)
        queries.append(np.unique(np.asarray(one[start : start + length])))
    return queries
