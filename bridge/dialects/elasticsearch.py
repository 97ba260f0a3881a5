"""Query vectors ─▶ Elasticsearch DSL. Pure functions; the twin of `opensearch.py`."""

from __future__ import annotations

from bridge.dialects.features import Query, rank_feature
from bridge.records import SparseVector
from bridge.tokens import query_keys

__all__ = ["rank_feature", "sparse_vector", "term_bool"]


def sparse_vector(field: str, vector: SparseVector) -> Query:
    """The `sparse_vector` query with a `query_vector` (8.15 and newer).

    `prune` is off: since 8.19 and 9.1 it is on by default, for raw vectors too, and drops tokens.
    """
    return {"sparse_vector": {"field": field, "query_vector": query_keys(vector), "prune": False}}


def term_bool(field: str, vector: SparseVector) -> Query:
    """A bool of boosted `term` clauses on a `sparse_vector` field: the same dot product, before 8.15."""
    return {
        "bool": {
            "should": [{"term": {field: {"value": key, "boost": weight}}} for key, weight in query_keys(vector).items()]
        }
    }
