"""Tokens: every token of a real vocabulary, and hostile ones, come back from the engine as themselves.

What the engine (OpenSearch 3.6.0) does with names, found here: it takes any name of up to 32,766
bytes of UTF-8, the empty one, blanks and control characters included; a longer one makes it refuse
the document. `rank_feature` reads its feature from a path, so a name with a dot is never found by it;
`neural_sparse` finds such a name. `bridge.tokens.feature_key` therefore only has to spell dots anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bridge import dialects
from bridge.bulk import BulkSender
from bridge.dialects import Dialect
from bridge.encode.base import TokenVocabulary
from bridge.encode.lookup import Wordpieces
from bridge.engines import Engine
from bridge.records import BulkOutcome, EncodedDoc, Position, SparseVector
from bridge.tokens import field_value, heaviest

VERSION = (3, 6, 0)
DIALECTS: tuple[Dialect, ...] = ("neural_sparse", "rank_feature")
MAPPING = {"mappings": {"dynamic": False, "properties": {"v": {"type": "rank_features"}}}}

TOKENS_A_DOCUMENT = 100
LONGEST = 32_766
"""Bytes of UTF-8 that Lucene takes for a term."""

HOSTILE = [
    "", " ", "  ", "\t", "\n", "\x00", "\u00a0", "\u3000", "\u200b", "\ufeff",
    ".", "..", "...", "##.", "a.b", ".a", "a.", "a..b", "%2E", "a%2Eb", "\u2024", "\u2025", "\u2024\u2024",
    "\u2025\u2025", "\u2024\u2025", "\u2025\u2024", "a\u2024b", "a\u2025b", "a.\u2024b", "…", "。", "．",
    "_id", "_source", "_ignored", "__proto__", "v", "v.a", "null", "true", "0", "-1", "1e5", "NaN",
    "*", "a*", "?", "[a]", "{", "}", "\\", "\\.", "\"", "'", "<a>", "/", "a b", "a:b", "${field}", "^2", "~",
    "e\u0301", "\u00e9", "\u0301", "\u1eb9\u0300k\u1ecd\u0301", "क्षि", "\u0e33", "\uac00", "\u1100\u1161",
    "😀", "👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "\U0010ffff", "\ue000",
    "A", "a", "ß", "ss", "İ", "i\u0307", "ﬁ", "fi", "½", "x" * 1000, "x" * LONGEST, "é" * (LONGEST // 2),
]  # fmt: skip


def vector_of(vocabulary: TokenVocabulary, ids: Sequence[int], weights: Sequence[float]) -> SparseVector:
    return SparseVector(np.array(ids, np.int32), np.array(weights, np.float32), vocabulary)


def weight_of(place: int) -> float:
    """A weight of its own for each place in a document, which the engine keeps to the last bit."""
    return 1 + place / 128


def store(engine: Engine, index: str, documents: Sequence[tuple[str, SparseVector]]) -> list[BulkOutcome]:
    encoded = [EncodedDoc(name, {}, Position("memory", 1), "", vector) for name, vector in documents]

    def body(document: EncodedDoc) -> dict[str, Any]:
        assert document.sparse
        return {"v": field_value(document.sparse, "rank_features", "opensearch")}

    engine.create_index(index, MAPPING)
    outcomes = list(BulkSender(lambda chunk: engine.bulk(index, chunk), body, lambda ids: {}).run(encoded))
    engine.refresh(index)
    return outcomes


def ask(engine: Engine, index: str, dialect: Dialect, vectors: Sequence[SparseVector]) -> Iterator[dict[str, float]]:
    """For each vector id ─▶ score."""
    step = 1000
    for start in range(0, len(vectors), step):
        lines = b""
        for vector in vectors[start : start + step]:
            query = dialects.query_for(dialect, "opensearch", VERSION, "rank_features", "v", vector, 10)
            lines += b"{}\n" + msgspec.json.encode({"query": query, "_source": False, "size": 20}) + b"\n"
        params = {"filter_path": "responses.hits.hits._id,responses.hits.hits._score,responses.error.reason"}
        answer = engine.request("POST", f"/{index}/_msearch", params=params, body=lines, ndjson=True)
        for response in answer["responses"]:
            assert "error" not in response, response
            hits = response.get("hits", {}).get("hits", [])
            # The engine writes the fewest digits that are its float32.
            yield {hit["_id"]: float(np.float32(hit["_score"])) for hit in hits}


@pytest.fixture(scope="module")
def bert(shared: Path) -> TokenVocabulary:
    return Wordpieces(shared / "bert-uncased").vocabulary


@pytest.fixture(scope="module")
def stored(module_engine: Engine, module_index: str, bert: TokenVocabulary) -> str:
    """An index of documents of a hundred tokens each, which together hold the vocabulary once."""
    documents = []
    for start in range(0, len(bert), TOKENS_A_DOCUMENT):
        ids = range(start, min(len(bert), start + TOKENS_A_DOCUMENT))
        weights = [weight_of(place) for place in range(len(ids))]
        documents.append((str(start // TOKENS_A_DOCUMENT), vector_of(bert, ids, weights)))
    outcomes = store(module_engine, module_index, documents)
    assert {outcome.result for outcome in outcomes} == {"indexed"}
    return module_index


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_of_the_30522_bert_tokens_finds_its_own_document_with_its_own_weight(
    module_engine: Engine, stored: str, bert: TokenVocabulary, dialect: Dialect
) -> None:
    """Ten tokens of ten documents a query, each with a query weight of its own: no two could be exchanged unseen."""
    assert len(bert) == 30_522
    queries, expected = [], []
    for first in range(0, len(bert), 10 * TOKENS_A_DOCUMENT):
        for place in range(TOKENS_A_DOCUMENT):
            ids = list(range(first + place, min(len(bert), first + 10 * TOKENS_A_DOCUMENT), TOKENS_A_DOCUMENT))
            weights = [2.0 + i for i in range(len(ids))]
            queries.append(vector_of(bert, ids, weights))
            documents = [str(i // TOKENS_A_DOCUMENT) for i in ids]
            expected.append({name: weight * weight_of(place) for name, weight in zip(documents, weights, strict=True)})
    assert sum(map(len, expected)) == len(bert)
    found = ask(module_engine, stored, dialect, queries)
    wrong = [(query.tokens, one, due) for query, one, due in zip(queries, found, expected, strict=True) if one != due]
    assert wrong == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_query_of_a_whole_documents_tokens_scores_their_sum(
    module_engine: Engine, stored: str, bert: TokenVocabulary, dialect: Dialect
) -> None:
    ids = range(1000, 1100)  # the dots are among them: they must not count twice, raw and spelt anew
    assert {".", "..."} & set(bert.tokens(np.array(ids)))
    (found,) = ask(module_engine, stored, dialect, [vector_of(bert, ids, [2.0] * 100)])
    assert found == {"10": sum(2 * weight_of(place) for place in range(100))}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hostile_tokens_find_their_own_document_and_no_other(engine: Engine, index: str, dialect: Dialect) -> None:
    assert len(set(HOSTILE)) == len(HOSTILE)
    vocabulary = TokenVocabulary(HOSTILE)
    outcomes = store(engine, index, [(str(i), vector_of(vocabulary, [i], [1.5])) for i in range(len(HOSTILE))])
    assert {outcome.result for outcome in outcomes} == {"indexed"}
    found = list(ask(engine, index, dialect, [vector_of(vocabulary, [i], [2.0]) for i in range(len(HOSTILE))]))
    assert {HOSTILE[i]: found[i] for i in range(len(HOSTILE)) if found[i] != {str(i): 3.0}} == {}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_hostile_tokens_of_one_document_do_not_meet(engine: Engine, index: str, dialect: Dialect) -> None:
    vocabulary = TokenVocabulary(HOSTILE)
    everything = vector_of(vocabulary, range(len(HOSTILE)), [weight_of(i) for i in range(len(HOSTILE))])
    (outcome,) = store(engine, index, [("all", everything)])
    assert outcome.result == "indexed"
    found = list(ask(engine, index, dialect, [vector_of(vocabulary, [i], [2.0]) for i in range(len(HOSTILE))]))
    assert found == [{"all": 2 * weight_of(i)} for i in range(len(HOSTILE))]


def test_a_token_longer_than_lucene_takes_is_one_dead_document_with_the_engines_reason(
    engine: Engine, index: str
) -> None:
    vocabulary = TokenVocabulary(["fine", "x" * (LONGEST + 1)])
    fine, dead = store(engine, index, [("0", vector_of(vocabulary, [0], [1])), ("1", vector_of(vocabulary, [1], [1]))])
    assert fine.result == "indexed"
    assert dead.result == "dead"
    assert dead.reason
    assert "longer than the max length 32766" in dead.reason


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_token_of_32767_bytes_in_a_query_finds_nothing_and_harms_nothing(
    engine: Engine, index: str, dialect: Dialect
) -> None:
    vocabulary = TokenVocabulary(["fine", "x" * (LONGEST + 1)])
    store(engine, index, [("0", vector_of(vocabulary, [0], [1]))])
    assert list(ask(engine, index, dialect, [vector_of(vocabulary, [0, 1], [2, 2])])) == [{"0": 2.0}]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_largest_query_that_the_bridge_sends_is_within_the_engines_clause_limit(
    engine: Engine, index: str, bert: TokenVocabulary, dialect: Dialect
) -> None:
    # Lighter from token to token; the first one is the only one that the document has.
    everything = vector_of(bert, range(2000), np.linspace(3, 1, 2000).tolist())
    store(engine, index, [("0", vector_of(bert, [0], [1]))])
    cut, dropped = heaviest(everything, 1024)
    assert dropped == 976
    assert list(ask(engine, index, dialect, [cut])) == [{"0": 3.0}]


def test_weights_above_the_engines_64_score_in_full(engine: Engine, index: str) -> None:
    vocabulary = TokenVocabulary(["a", "b"])
    store(engine, index, [("0", vector_of(vocabulary, [0, 1], [1, 2]))])
    query = vector_of(vocabulary, [0, 1], [1000, 0.5])
    assert [list(ask(engine, index, dialect, [query])) for dialect in DIALECTS] == [[{"0": 1001.0}]] * 2
