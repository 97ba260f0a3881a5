"""Ask an index, and show which tokens made each score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.dialects.passages import INNER_HITS
from bridge.engines import Engine
from bridge.errors import DocumentError
from bridge.records import EncodedQuery, Hit, PassageHit, TokenScore
from bridge.rewrite import QueryRewriter, Text
from bridge.sources import text_of
from bridge.tokens import by_ids, document_weights

Weights = Mapping[str, tuple[str, float]]
"""Stored key ─▶ token and query weight."""


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
    start: int = 0,
    min_score: float | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002
    matches: bool = True,
    fields: bool = True,
    passages: int = 0,
    collapse: str | None = None,
    rewritten: str | None = None,
) -> SearchResult:
    """Rewrite `text`, run it, and (with `matches`) read the stored vectors of the hits to explain them.

    Args:
        size: hits wanted.
        start: how many of the best hits to pass over.
        min_score: hits below it are left out.
        filter: a query clause that hits must match.
        matches: fill each hit's `matches`; costs the transfer of the vectors. Where documents keep passages, those
            are of the best one, which comes along.
        fields: fill each hit's `source`.
        passages, collapse, rewritten: see `QueryRewriter.rewrite`; passages fill each hit's `passages`, with their
            text where `fields` are read and the text fields known.

    Raises:
        UsageError: see `QueryRewriter.rewrite`.
        EngineError: as the engine answers.
    """
    encoded = rewriter.encode(text, rewritten=rewritten)
    if matches and rewriter.nested_path:
        passages = passages or 1
    how: dict[str, Any] = {
        "size": size, "start": start, "min_score": min_score, "filter": filter, "passages": passages,
        "collapse": collapse,
    }  # fmt: skip
    asked = rewriter.body(encoded, explain=matches, **how)
    if not fields:
        # Whether vectors may come at all is said here for the passages, too.
        nothing = asked["_source"] | {"excludes": ["*"]} if matches else False
        asked["_source"] = [rewriter.field] if matches and not rewriter.nested_path else nothing
    answer = engine.search(index, asked)
    weights = query_weights(encoded, rewriter)
    hits = tuple(_hit(found, weights, rewriter) for found in answer["hits"]["hits"])
    return SearchResult(encoded, rewriter.body(encoded, **how), hits, int(answer.get("took", 0)))


def query_weights(encoded: EncodedQuery, rewriter: QueryRewriter) -> dict[str, tuple[str, float]]:
    """Stored key ─▶ (token, query weight), under the keys that `document_weights` gives."""
    if encoded.sparse is None:
        return {}
    vector = encoded.sparse
    keys = [str(i) for i in vector.ids.tolist()] if by_ids(rewriter.kind, rewriter.engine) else vector.tokens
    return {
        key: (token, weight) for key, token, weight in zip(keys, vector.tokens, vector.weights.tolist(), strict=True)
    }


def _hit(found: Mapping[str, Any], weights: Weights, rewriter: QueryRewriter) -> Hit:
    inner = found.get("inner_hits", {}).get(INNER_HITS, {}).get("hits", {}).get("hits", [])
    source = dict(found.get("_source") or {})
    if rewriter.nested_path:
        text = _text(source, rewriter)
        passages = tuple(_passage(one, text, weights, rewriter) for one in inner)
        matches = passages[0].matches if passages else ()
    else:
        matches = _matches(source.pop(rewriter.field, None), weights, rewriter)
        passages = tuple(_document(one, weights, rewriter) for one in inner)
    return Hit(found["_id"], float(found["_score"] or 0.0), source, matches, passages)


def _passage(found: Mapping[str, Any], text: str | None, weights: Weights, rewriter: QueryRewriter) -> PassageHit:
    """A passage inside of a document, whose encoded text is `text`."""
    source = found.get("_source") or {}
    start, end = source.get("start"), source.get("end")
    piece = None if text is None or start is None or end is None else text[start:end]
    matches = _matches(source.get(rewriter.vector_name), weights, rewriter)
    return PassageHit(float(found["_score"] or 0.0), piece, start, end, matches=matches)


def _document(found: Mapping[str, Any], weights: Weights, rewriter: QueryRewriter) -> PassageHit:
    """A passage that is a document of its own."""
    source = dict(found.get("_source") or {})
    apart = (found.get("fields") or {}).get(rewriter.field) or [None]
    matches = _matches(source.pop(rewriter.field, None) or apart[0], weights, rewriter)
    score = float(found["_score"] or 0.0)
    return PassageHit(score, _text(source, rewriter), id=found["_id"], matches=matches)


def _text(source: Mapping[str, Any], rewriter: QueryRewriter) -> str | None:
    """The text that was encoded; None where its fields are not known, or not in `source`."""
    try:
        return text_of(source, rewriter.text_fields) if rewriter.text_fields else None
    except DocumentError:
        return None


def _matches(value: Mapping[str, Any] | None, weights: Weights, rewriter: QueryRewriter) -> tuple[TokenScore, ...]:
    stored = document_weights(value or {}, rewriter.kind, rewriter.engine)
    scores = [TokenScore(token, weight, stored[key]) for key, (token, weight) in weights.items() if key in stored]
    return tuple(sorted(scores, key=lambda score: -score.contribution))


def sample_vectors(engine: Engine, index: str, rewriter: QueryRewriter, size: int = 1000) -> Iterator[dict[str, float]]:
    """The stored vectors of up to `size` documents, drawn at random with a fixed seed: token (or id) ─▶ weight.

    Where documents keep passages, each passage's.
    """
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
            for value in _stored(hit.get("_source") or {}, rewriter):
                yield document_weights(value, rewriter.kind, rewriter.engine)
        if len(found) < step:
            return


def _stored(source: Mapping[str, Any], rewriter: QueryRewriter) -> list[Mapping[str, Any]]:
    """The values of the vector field; one even where there is none."""
    if not rewriter.nested_path:
        return [source.get(rewriter.field) or {}]
    kept = source.get(rewriter.nested_path) or []
    return [one.get(rewriter.vector_name) or {} for one in ([kept] if isinstance(kept, dict) else kept)]
