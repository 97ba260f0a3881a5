"""Queries over passages, in words that both products speak. Pure functions over the clauses of the other modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.dialects.features import Query

INNER_HITS = "passages"
"""The name under which an answer gives each hit's own passages."""


def nested(path: str, clause: Mapping[str, Any], inner: Mapping[str, Any] | None = None) -> Query:
    """`clause`, asked of the passages under `path`: a document scores what its best passage does.

    Args:
        path: the nested field.
        clause: over a field inside of it, by its full path.
        inner: see `inner_hits`; without it the answer does not say which passage was the best.
    """
    found: Query = {"path": path, "query": dict(clause), "score_mode": "max"}
    return {"nested": found | ({"inner_hits": dict(inner)} if inner else {})}


def collapse(field: str, inner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The body's `collapse`: of the documents with the same value of `field`, the best alone is a hit.

    Args:
        field: a `keyword` field, or a number; documents without it count as one.
        inner: see `inner_hits`; the best documents of each value.
    """
    return {"field": field} | ({"inner_hits": dict(inner)} if inner else {})


def inner_hits(size: int, source: Any, *, explain: bool = False) -> dict[str, Any]:
    """The best `size` passages of each hit, with the fields that `source` names, and how the engine came to a score."""
    found = {"name": INNER_HITS, "size": size, "_source": source}
    return found | {"explain": True} if explain else found
