"""How many tokens a query may have: the engines count the clauses of a whole search together.

1,024 are allowed (`indices.query.bool.max_clause_count`, and Elasticsearch 8 never allows fewer). A filter's clauses
count too, and so do those that an engine adds by itself, on an index with nested fields.
"""

from __future__ import annotations

from typing import Any

from bridge.tokens import MAX_CLAUSES

_ENGINE = 4
"""What an engine may add."""

MAX_TOKENS = 1000
"""Of a query whose filter is no longer than usual."""


def most_tokens(fields: int, clause: Any = None) -> int:
    """How many tokens can be asked of so many fields beside the filter `clause`; 1 at least."""
    beside = _ENGINE + (_count(clause) if clause is not None else 0)
    return max(1, (MAX_CLAUSES - max(MAX_CLAUSES - MAX_TOKENS, beside)) // fields)


def _count(clause: Any) -> int:
    """The clauses of a filter, or more: a text makes one of each of its words, a list of values but one."""
    if isinstance(clause, dict):
        return sum(map(_count, clause.values()))
    if isinstance(clause, list | tuple):
        return sum(map(_count, clause)) if any(isinstance(one, dict) for one in clause) else 1
    return max(1, len(clause.split())) if isinstance(clause, str) else 1
