"""Ask an index, and show which tokens made each score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.engines import Engine
from bridge.records import HASH_FIELD, EncodedQuery, Hit, TokenScore
from bridge.rewrite import QueryRewriter, Text
from bridge.tokens import document_weights


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first; `body` is what was asked, `took` the engine's own milliseconds."""

    query: EncodedQuery
    body: Mapping[str, Any]
    hits: tuple[Hit, ...]
    took: int


def search(
    engine: Engine,
    index: str,
    rewriter: QueryRewriter,
    text: Text,
    *,
    size: int = 10,
    filter: Mapping[str, Any] | None = None,  # noqa: A002
    matches: bool = True,
    fields: bool = True,
) -> SearchResult:
    """Rewrite `text`, run it, and (with `matches`) read the stored vectors of the hits to explain them.

    Args:
        size: hits wanted.
        filter: a query clause that hits must match.
        matches: fill each hit's `matches`; costs the transfer of the vectors.
        fields: fill each hit's `source`.

    Raises:
        UsageError: the query is empty.
        EngineError: as the engine answers.
    """
    encoded = rewriter.encode(text)
    body = rewriter.body(encoded, size=size, filter=filter)
    asked = dict(body)
    if matches and fields:
        asked["_source"] = {"excludes": [HASH_FIELD], **_with_vectors(rewriter)}
    elif matches:
        asked["_source"] = [rewriter.field]
    elif not fields:
        asked["_source"] = False
    answer = engine.search(index, asked)
    weights = query_weights(encoded, rewriter)
    hits = tuple(_hit(found, weights, rewriter) for found in answer["hits"]["hits"])
    return SearchResult(encoded, body, hits, int(answer.get("took", 0)))


def _with_vectors(rewriter: QueryRewriter) -> dict[str, bool]:
    # From 9.2 on Elasticsearch leaves vectors out of what it returns, unless asked by name or so.
    newer = rewriter.engine == "elasticsearch" and rewriter.version >= (9, 2)
    return {"exclude_vectors": False} if newer else {}


def query_weights(encoded: EncodedQuery, rewriter: QueryRewriter) -> dict[str, tuple[str, float]]:
    """Stored key ─▶ (token, query weight), under the keys that `document_weights` gives."""
    if encoded.sparse is None:
        return {}
    vector = encoded.sparse
    by_id = rewriter.kind == "sparse_vector" and rewriter.engine == "opensearch"
    keys = [str(i) for i in vector.ids.tolist()] if by_id else vector.tokens
    return {
        key: (token, weight) for key, token, weight in zip(keys, vector.tokens, vector.weights.tolist(), strict=True)
    }


def _hit(found: Mapping[str, Any], weights: Mapping[str, tuple[str, float]], rewriter: QueryRewriter) -> Hit:
    source = dict(found.get("_source") or {})
    stored = document_weights(source.pop(rewriter.field, None) or {}, rewriter.kind, rewriter.engine)
    scores = [TokenScore(token, weight, stored[key]) for key, (token, weight) in weights.items() if key in stored]
    scores.sort(key=lambda score: -score.contribution)
    return Hit(found["_id"], float(found["_score"] or 0.0), source, tuple(scores))


def sample_vectors(engine: Engine, index: str, rewriter: QueryRewriter, size: int = 1000) -> Iterator[dict[str, float]]:
    """The stored vectors of up to `size` documents, drawn at random with a fixed seed: token (or id) ─▶ weight."""
    drawn = {"query": {"match_all": {}}, "random_score": {"seed": 20_240_229, "field": "_seq_no"}}
    step = 200
    for start in range(0, size, step):
        body = {
            "size": min(step, size - start),
            "from": start,
            "query": {"function_score": drawn},
            "_source": [rewriter.field],
        }
        found = engine.search(index, body)["hits"]["hits"]
        for hit in found:
            value = (hit.get("_source") or {}).get(rewriter.field) or {}
            yield document_weights(value, rewriter.kind, rewriter.engine)
        if len(found) < step:
            return
