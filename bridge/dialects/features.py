"""`rank_feature`: the dialect that both products speak, in every version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.records import SparseVector
from bridge.tokens import query_keys

Query = dict[str, Any]


def rank_feature(field: str, vector: SparseVector) -> Query:
    """A bool of `rank_feature` clauses with a linear function: Σ boost × feature, an exact dot product."""
    return {
        "bool": {
            "should": [
                {"rank_feature": {"field": f"{field}.{key}", "boost": weight, "linear": {}}}
                for key, weight in query_keys(vector).items()
            ]
        }
    }


def filtered(clause: Query, filter: Mapping[str, Any] | None) -> Query:  # noqa: A002
    """`clause`, of those documents that match `filter`; scores stay as they are."""
    if not filter:
        return clause
    return {"bool": {"should": [clause], "minimum_should_match": 1, "filter": [dict(filter)]}}
