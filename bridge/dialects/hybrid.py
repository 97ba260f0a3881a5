"""Several searches in one, fused by the engine. Pure functions.

A piece is the part of a search body that finds documents in one way: ``{"query": …}``, or Elasticsearch's
``{"knn": …}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.dialects.features import Query, filtered
from bridge.records import Product

MOST_CANDIDATES = 10_000
"""The engines' own limit on what a part may find."""


def words(text: str, fields: Sequence[str], filter: Mapping[str, Any] | None = None) -> Query:  # noqa: A002
    """BM25 of `text` in the text `fields`; in all of them where none is named."""
    how: Query = {"query": text, "type": "most_fields"}
    clause: Query = {"multi_match": how | ({"fields": list(fields)} if fields else {})}
    return {"query": filtered(clause, filter)}


def nearest(
    product: Product,
    field: str,
    vector: Sequence[float],
    depth: int,
    filter: Mapping[str, Any] | None = None,  # noqa: A002
) -> Query:
    """The `depth` documents whose dense vectors in `field` are nearest to `vector`, float[dimension]."""
    narrowed: Query = {"filter": dict(filter)} if filter else {}
    if product == "opensearch":
        return {"query": {"knn": {field: {"vector": list(vector), "k": depth} | narrowed}}}
    wide = {"k": depth, "num_candidates": min(MOST_CANDIDATES, max(100, depth * 3 // 2))}
    return {"knn": {"field": field, "query_vector": list(vector)} | wide | narrowed}


def opensearch(pieces: Sequence[Query], depth: int, pipeline: str | Query) -> Query:
    """OpenSearch's `hybrid` query, fused by a search pipeline: one that is there by name, or one that comes along."""
    queries = [piece["query"] for piece in pieces]
    return {"query": {"hybrid": {"queries": queries, "pagination_depth": depth}}, "search_pipeline": pipeline}


def linear(pieces: Sequence[Query], weights: Sequence[float], depth: int) -> Query:
    """Elasticsearch's `linear` retriever: each part's scores brought to 0..1, then their weighted sum."""
    parts = [
        {"retriever": _retriever(piece), "weight": weight, "normalizer": "minmax"}
        for piece, weight in zip(pieces, weights, strict=True)
    ]
    return {"retriever": {"linear": {"retrievers": parts, "rank_window_size": depth}}}


def rrf(pieces: Sequence[Query], weights: Sequence[float] | None, depth: int, rank_constant: int) -> Query:
    """Elasticsearch's `rrf` retriever; it takes `weights` from 9.2 on."""
    parts = [_retriever(piece) for piece in pieces]
    if weights:
        parts = [{"retriever": part, "weight": weight} for part, weight in zip(parts, weights, strict=True)]
    return {"retriever": {"rrf": {"retrievers": parts, "rank_window_size": depth, "rank_constant": rank_constant}}}


def _retriever(piece: Query) -> Query:
    return {"knn": piece["knn"]} if "knn" in piece else {"standard": piece}
